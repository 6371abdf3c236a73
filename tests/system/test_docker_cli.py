"""The real docker CLI: pull from a real registry, run, terminal, port, exec, logs, cp, stats, stop, rm."""

from __future__ import annotations

import os
import pty
import select
import struct
import subprocess
import tarfile
import time
import urllib.request
from io import BytesIO

import pytest

from tests.engines import eventually
from tests.system.conftest import free_port, listens


@pytest.fixture(scope="module")
def docker(engine, docker_cli, registry):
    def run(*arguments: str, **options: object) -> str:
        done = engine.docker(docker_cli, *arguments, **options)
        return done.stdout if options.get("check", True) else done

    run("pull", "-q", f"{registry}/debian")
    yield run
    engine.remove_all()
    run("rmi", f"{registry}/debian")


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    engine.remove_all()


@pytest.fixture
def image(registry):
    return f"{registry}/debian"


def test_pull_shows_what_it_does(docker, registry):
    shown = docker("pull", f"{registry}/busybox")
    assert "Pulling from busybox" in shown
    assert "Pull complete" in shown or "Already exists" in shown
    assert f"Status: Downloaded newer image for {registry}/busybox:latest" in shown
    again = docker("pull", f"{registry}/busybox")
    assert f"Status: Image is up to date for {registry}/busybox:latest" in again
    digest = next(line for line in again.splitlines() if line.startswith("Digest: ")).split()[1]
    assert docker("inspect", "--format", "{{index .RepoDigests 0}}", f"{registry}/busybox").strip() == f"{registry}/busybox@{digest}"
    shown = docker("rmi", f"{registry}/busybox")
    assert f"Untagged: {registry}/busybox:latest" in shown
    missing = docker("pull", f"{registry}/nosuch", check=False)
    assert missing.returncode == 1
    assert "not found" in missing.stderr


def test_run_rm(docker, image):
    assert docker("run", "--rm", image, "cat", "/etc/debian_version").strip().startswith(("1", "t", "f"))
    failed = docker("run", "--rm", image, "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (failed.returncode, failed.stdout, failed.stderr) == (7, "out\n", "err\n")
    assert docker("ps", "-aq") == ""


def test_run_takes_input(docker, image):
    assert docker("run", "--rm", "-i", image, "tr", "a-z", "A-Z", input="hello\n" * 5000) == "HELLO\n" * 5000


@pytest.mark.parametrize(("command", "code", "text"), [("nosuchcmd", 127, "executable file not found in $PATH"), ("/etc/passwd", 126, "permission denied"), ("/nope", 127, "no such file or directory")])
def test_programs_that_cannot_run(docker, image, command, code, text):
    failed = docker("run", "--name", "cannot", image, command, check=False)
    assert failed.returncode == code
    assert text in failed.stderr
    assert docker("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "cannot").strip() == f"created {code}"
    docker("rm", "cannot")


class Terminal:
    """The docker CLI on a terminal of its own."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(arguments[0], list(arguments), environment)
        import fcntl
        import termios

        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        self.shown = b""

    def until(self, text: bytes, seconds: float = 15) -> bytes:
        end = time.monotonic() + seconds
        while text not in self.shown:
            left = end - time.monotonic()
            assert left > 0, f"{text!r} did not appear in {self.shown!r}"
            if select.select([self.fd], [], [], left)[0]:
                try:
                    self.shown += os.read(self.fd, 4096)
                except OSError:
                    break
        assert text in self.shown, self.shown
        shown, _, self.shown = self.shown.partition(text)
        return shown

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def close(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def test_run_it_through_a_terminal(docker, engine, docker_cli, image):
    terminal = Terminal(engine.environment, docker_cli, "run", "-it", "--rm", image, "sh")
    terminal.until(b"# ")
    terminal.type(b"test -t 0 && test -t 1 && echo is-a-$((1))-tty\n")
    terminal.until(b"is-a-1-tty")
    terminal.type(b"until stty size | grep '33 101'; do sleep 0.1; done; stty size; echo $TERM-end\n")
    shown = terminal.until(b"xterm-end")
    assert b"33 101" in shown
    terminal.type(b"sh -c 'echo going-$((1)); exec sleep 60'\n")
    terminal.until(b"going-1")  # said by the foreground program itself: what is typed now reaches it, not its shell
    terminal.type(b"\x03")
    terminal.type(b"echo after-$((2))\n")
    terminal.until(b"after-2")
    terminal.type(b"exit 5\n")
    assert terminal.close() == 5


def test_detach_keys_leave_it_running(docker, engine, docker_cli, image):
    terminal = Terminal(engine.environment, docker_cli, "run", "-it", "--name", "kept", image, "sh")
    terminal.until(b"# ")
    terminal.type(b"\x10\x11")
    assert terminal.close() == 0
    assert docker("ps", "--format", "{{.Names}} {{.State}}").split() == ["kept", "running"]
    again = Terminal(engine.environment, docker_cli, "attach", "kept")
    again.type(b"echo back-$((3))\n")
    again.until(b"back-3")
    again.type(b"exit 0\n")
    assert again.close() == 0
    docker("rm", "kept")


def test_published_port_answers(docker, image, assets):
    port = free_port()
    docker("run", "-d", "--name", "web", "-p", f"{port}:80", "busybox", "httpd", "-f", "-p", "80", "-h", "/var/www")
    assert docker("port", "web").strip() == f"80/tcp -> 0.0.0.0:{port}"
    eventually(lambda: listens(port))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        assert answer.read() == b"hello from busybox\n"
    taken = docker("run", "-d", "--name", "web2", "-p", f"{port}:80", "busybox", "sleep", "9", check=False)
    assert taken.returncode == 125
    assert "address already in use" in taken.stderr
    docker("rm", "web2")
    docker("rm", "-f", "web")
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2)


def test_exec(docker, image):
    docker("run", "-d", "--name", "box", image, "sleep", "600")
    assert docker("exec", "box", "sh", "-c", "echo $HOSTNAME; echo $HOME").split() == [docker("inspect", "--format", "{{.Config.Hostname}}", "box").strip(), "/root"]
    assert docker("exec", "-i", "box", "cat", input="abc") == "abc"
    assert docker("exec", "-u", "nobody", "-w", "/tmp", "-e", "A=b", "box", "sh", "-c", "id -un; pwd; echo $A").split() == ["nobody", "/tmp", "b"]
    failed = docker("exec", "box", "sh", "-c", "exit 9", check=False)
    assert failed.returncode == 9
    missing = docker("exec", "box", "nosuch", check=False)
    assert missing.returncode == 127
    assert 'exec: "nosuch": executable file not found in $PATH' in missing.stdout + missing.stderr
    assert "nobody" not in docker("top", "box")
    assert "sleep 600" in docker("top", "box")
    docker("rm", "-f", "box")


def test_exec_on_a_terminal(docker, engine, docker_cli, image):
    docker("run", "-d", "--name", "box", image, "sleep", "600")
    terminal = Terminal(engine.environment, docker_cli, "exec", "-it", "box", "sh")
    terminal.until(b"# ")
    terminal.type(b"tty; exit 3\n")
    terminal.until(b"/dev/pts/")
    assert terminal.close() == 3
    docker("rm", "-f", "box")


def test_logs(docker, engine, docker_cli, image):
    docker("run", "-d", "--name", "talk", image, "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done; echo bad >&2")
    followed = docker("logs", "-f", "talk", stdin=subprocess.DEVNULL)
    assert followed == "".join(f"line {number}\n" for number in range(1, 6))
    assert docker("logs", "--tail", "2", "talk") == "line 5\n"
    stamped = docker("logs", "-t", "--tail", "3", "talk").splitlines()
    assert stamped[0].endswith("Z line 4")
    moment = stamped[0].split()[0]
    assert docker("logs", "--since", moment, "talk").startswith("line 4\n")
    assert docker("logs", "--until", moment, "talk") == "line 1\nline 2\nline 3\nline 4\n"
    docker("rm", "talk")


def test_cp_both_ways(docker, image, tmp_path):
    docker("run", "-d", "--name", "box", image, "sleep", "600")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("content")
    os.symlink("/etc/passwd", tmp_path / "in" / "link")
    for running in (True, False):
        docker("cp", str(tmp_path / "in"), "box:/root/copied" if running else "box:/root/stopped")
        folder = "/root/copied" if running else "/root/stopped"
        docker("cp", f"box:{folder}", str(tmp_path / folder.rpartition("/")[2]))
        copied = tmp_path / folder.rpartition("/")[2]
        assert (copied / "file").read_text() == "content"
        assert os.readlink(copied / "link") == "/etc/passwd"
        if running:
            docker("stop", "-t", "0", "box")
    missing = docker("cp", "box:/nosuch", str(tmp_path), check=False)
    assert "Could not find the file /nosuch in container box" in missing.stderr
    docker("rm", "box")


def test_stats_pause_rename_stop_rm(docker, image):
    docker("run", "-d", "--name", "box", image, "sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.05; done")
    fields = docker("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}", "box").split()
    assert fields[0] == "box"
    assert int(fields[1]) >= 1
    docker("pause", "box")
    assert docker("ps", "--format", "{{.Status}}").strip().endswith("(Paused)")
    docker("unpause", "box")
    docker("rename", "box", "other")
    docker("stop", "other")
    assert docker("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "other").split() == ["exited", "4"]
    docker("start", "other")
    docker("kill", "-s", "KILL", "other")
    assert docker("wait", "other").strip() == "137"
    docker("rm", "other")
    assert "other" not in docker("ps", "-a")


def test_images_and_history(docker, image):
    assert image in docker("images", "--format", "{{.Repository}}")
    assert "make_image.py" in docker("history", image)
    docker("tag", image, "mine:1")
    assert "Untagged: mine:1" in docker("rmi", "mine:1")


def test_events_and_info(docker, image):
    since = str(time.time())
    docker("run", "--rm", "--name", "seen", "--label", "a=b", image, "true")
    shown = docker("events", "--since", since, "--until", str(time.time()), "--filter", "container=seen", "--format", "{{.Action}}").split()
    assert shown == ["create", "attach", "start", "die", "destroy"]
    assert docker("info", "--format", "{{.Driver}} {{.Swarm.LocalNodeState}}").split() == ["overlay2", "inactive"]
    assert docker("version", "--format", "{{.Server.APIVersion}}").strip() == "1.51"
    assert docker("network", "ls", "--format", "{{.Name}}").split() == ["bridge", "host", "none"]


def test_cp_packs_to_standard_output(engine, docker_cli, docker, image):
    docker("create", "--name", "box", image, "true")
    done = subprocess.run([docker_cli, "cp", "box:/etc/debian_version", "-"], env=engine.environment, capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        assert archive.getnames() == ["debian_version"]
    docker("rm", "box")


def test_a_link_is_removed_and_nothing_else(docker):
    docker("run", "-d", "--name", "linked", "busybox", "sleep", "600")
    docker("run", "-d", "--name", "linking", "--link", "linked:other", "busybox", "sleep", "600")
    assert docker("inspect", "linking", "--format", "{{.HostConfig.Links}}") == "[/linked:/linking/other]\n"
    assert docker("rm", "--link", "/linking/nosuch", check=False).returncode == 1
    assert docker("rm", "--link", "/linking/other") == "/linking/other\n"
    assert docker("inspect", "linking", "--format", "{{.HostConfig.Links}} {{.State.Running}}") == "[] true\n"
    assert docker("inspect", "linked", "--format", "{{.State.Running}}") == "true\n"
    docker("rm", "-f", "linked", "linking")
