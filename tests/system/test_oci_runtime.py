"""corten-runtime for others, and others for Corten: podman runs with ours, crun and runc run the bundles that Corten writes."""

from __future__ import annotations

import json
import os
import pty
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from corten.linux import syscalls
from tests.system.conftest import need

PID = os.getpid()
RUNTIME = os.path.join(os.path.dirname(sys.executable), "corten-runtime")


def runtime(*arguments: str, check: bool = True, **options: object) -> subprocess.CompletedProcess:
    done = subprocess.run([RUNTIME, *arguments], capture_output=True, text=True, timeout=60, check=False, **options)
    if check:
        assert done.returncode == 0, done.stderr
    return done


def create(*arguments: str) -> None:
    """The container inherits these streams, and keeps a pipe open for as long as it lives."""
    subprocess.run([RUNTIME, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=True)


@pytest.fixture
def bundle(assets, tmp_path):
    shutil.copytree(f"{assets}/images/busybox-rootfs", tmp_path / "rootfs", symlinks=True)
    subprocess.run([RUNTIME, "spec", "-b", str(tmp_path)], check=True)

    def configure(*args: str, terminal: bool = False, change=None) -> str:
        path = tmp_path / "config.json"
        config = json.loads(path.read_text())
        config["process"] |= {"args": list(args), "terminal": terminal}
        if change:
            change(config)
        path.write_text(json.dumps(config))
        return str(tmp_path)

    return configure


@pytest.fixture
def root(tmp_path):
    return ["--root", str(tmp_path / "state")]


def test_run_gives_output_and_exit_code(bundle, root):
    done = runtime(*root, "run", "-b", bundle("sh", "-c", "id -u; hostname; exit 3"), f"cortest-run-{PID}", check=False)
    assert (done.returncode, done.stdout.split()) == (3, ["0", "corten"])
    assert json.loads(runtime(*root, "list", "-f", "json").stdout) == []


def test_the_spec_s_operations(bundle, root):
    path = bundle("sleep", "600")
    create(*root, "create", "-b", path, "--pid-file", f"{path}/pid", f"cortest-ops-{PID}")
    try:
        shown = json.loads(runtime(*root, "state", f"cortest-ops-{PID}").stdout)
        assert (shown["status"], shown["bundle"]) == ("created", path)
        with open(f"{path}/pid", encoding="utf-8") as file:
            assert int(file.read()) == shown["pid"]
        assert "exists" in runtime(*root, "create", "-b", path, f"cortest-ops-{PID}", check=False).stderr
        runtime(*root, "start", f"cortest-ops-{PID}")
        assert json.loads(runtime(*root, "state", f"cortest-ops-{PID}").stdout)["status"] == "running"
        assert "cannot start" in runtime(*root, "start", f"cortest-ops-{PID}", check=False).stderr
        assert runtime(*root, "exec", f"cortest-ops-{PID}", "sh", "-c", "echo $$; exit 4", check=False).returncode == 4
        assert json.loads(runtime(*root, "ps", "-f", "json", f"cortest-ops-{PID}").stdout) == [shown["pid"]]
        runtime(*root, "pause", f"cortest-ops-{PID}")
        assert json.loads(runtime(*root, "state", f"cortest-ops-{PID}").stdout)["status"] == "paused"
        assert "cannot exec" in runtime(*root, "exec", f"cortest-ops-{PID}", "true", check=False).stderr
        runtime(*root, "resume", f"cortest-ops-{PID}")
        runtime(*root, "update", "--pids-limit", "55", f"cortest-ops-{PID}")
        with open(f"/proc/{shown['pid']}/cgroup", encoding="utf-8") as file:
            assert f"cortest-ops-{PID}" in file.read()
        assert "cannot delete" in runtime(*root, "delete", f"cortest-ops-{PID}", check=False).stderr
        runtime(*root, "kill", f"cortest-ops-{PID}", "KILL")
        end = time.monotonic() + 5
        while json.loads(runtime(*root, "state", f"cortest-ops-{PID}").stdout)["status"] != "stopped":
            assert time.monotonic() < end
            time.sleep(0.02)
        assert runtime(*root, "kill", f"cortest-ops-{PID}", check=False).returncode == 1
    finally:
        runtime(*root, "delete", "--force", f"cortest-ops-{PID}")
    assert "does not exist" in runtime(*root, "state", f"cortest-ops-{PID}", check=False).stderr
    assert json.loads(runtime("features").stdout)["linux"]["cgroup"]["v2"] is True


def test_hooks_run_where_the_spec_says(bundle, root, tmp_path):
    log = tmp_path / "hooks"
    script = tmp_path / "hook.sh"
    script.write_text(f"#!/bin/sh\ncat > /dev/null\necho $1 >> {log}\n")
    script.chmod(0o755)
    (tmp_path / "rootfs" / "inside.sh").write_text("#!/bin/sh\necho startContainer\n")
    (tmp_path / "rootfs" / "inside.sh").chmod(0o755)

    def change(config):
        config["hooks"] = {kind: [{"path": str(script), "args": ["hook", kind]}] for kind in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")}
        config["hooks"]["startContainer"] = [{"path": "/inside.sh"}]

    runtime(*root, "run", "-b", bundle("true", change=change), f"cortest-hooks-{PID}")
    assert log.read_text().split() == ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    script.write_text("#!/bin/sh\necho broken >&2; exit 1\n")
    done = runtime(*root, "run", "-b", bundle("true", change=change), f"cortest-hooks-{PID}", check=False)
    assert done.returncode == 1
    assert "broken" in done.stderr


def test_terminal_by_console_socket(bundle, root, tmp_path):
    path = bundle("sh", "-c", "test -t 0 && tty && stty size", terminal=True, change=lambda config: config["process"].update(consoleSize={"height": 12, "width": 34}))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "c.sock"))
    listener.listen(1)
    create(*root, "create", "-b", path, "--console-socket", str(tmp_path / "c.sock"), f"cortest-tty-{PID}")
    connection, _ = listener.accept()
    _, fds, _, _ = socket.recv_fds(connection, 100, 1)
    connection.close()
    listener.close()
    runtime(*root, "start", f"cortest-tty-{PID}")
    shown = b""
    while b"12 34" not in shown:
        shown += os.read(fds[0], 1000)
    os.close(fds[0])
    assert b"/dev/pts/0" in shown
    runtime(*root, "delete", "--force", f"cortest-tty-{PID}")


def test_run_on_a_terminal_of_ours(bundle, root):
    path = bundle("sh", "-c", "test -t 1 && echo is-tty; exit 2", terminal=True)
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(RUNTIME, [RUNTIME, *root, "run", "-b", path, f"cortest-own-{PID}"])
    shown = b""
    try:
        while data := os.read(fd, 1000):
            shown += data
    except OSError:
        assert b"is-tty" in shown
    os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2


def test_user_and_time_namespaces(bundle, root):
    def change(config):
        config["linux"]["namespaces"] += [{"type": "user"}, {"type": "time"}]
        config["linux"]["uidMappings"] = config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        config["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000}}
        config["root"]["readonly"] = False
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] not in ("sysfs", "cgroup")]
        config["linux"].pop("resources")

    path = bundle("sh", "-c", "cat /proc/self/uid_map; cut -d. -f1 /proc/uptime; ls -ld /proc/1/ns/user >/dev/null && id -u; echo x > /dev/null", change=change)
    os.chmod(path, 0o755)
    parent = path
    while parent != "/":
        os.chmod(parent, os.stat(parent).st_mode | 0o011)
        parent = os.path.dirname(parent)
    done = runtime(*root, "run", "-b", path, f"cortest-user-{PID}", check=False)
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words[:3] == ["0", "100000", "65536"]
    assert int(words[3]) > 1_000_000
    assert words[4] == "0"


def test_missing_host_rights_are_a_warning(bundle, root, tmp_path):
    bounding = next(int(line.split()[1], 16) for line in _read("/proc/self/status").splitlines() if line.startswith("CapBnd"))
    if bounding >> 24 & 1:
        pytest.skip("this host has CAP_SYS_RESOURCE: nothing is missing")

    def change(config):
        for names in config["process"]["capabilities"].values():
            names.append("CAP_SYS_RESOURCE")
        config["process"]["rlimits"] = [{"type": "RLIMIT_MEMLOCK", "soft": 1 << 50, "hard": 1 << 50}]
        config["process"]["oomScoreAdj"] = -900

    log = tmp_path / "log"
    runtime("--log", str(log), "--log-format", "json", *root, "run", "-b", bundle("true", change=change), f"cortest-warn-{PID}")
    texts = " ".join(json.loads(line)["msg"] for line in log.read_text().splitlines())
    assert "CAP_SYS_RESOURCE" in texts
    assert "RLIMIT_MEMLOCK" in texts
    assert "oom_score_adj" in texts


def test_podman_runs_with_it(assets, tmp_path):
    podman = need("podman")
    folder = tempfile.mkdtemp(prefix="ctp")  # podman wants short paths
    base = [podman, "--root", f"{folder}/s", "--runroot", f"{folder}/r", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", RUNTIME]

    def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        done = subprocess.run([*base, *arguments], capture_output=True, text=True, timeout=120, check=False)
        if check:
            assert done.returncode == 0, done.stderr
        return done

    try:
        run("load", "-q", "-i", f"{assets}/images/busybox.tar")
        done = run("run", "--rm", "--network", "none", "busybox", "sh", "-c", "echo in podman; exit 6", check=False)
        assert (done.returncode, done.stdout) == (6, "in podman\n"), done.stderr
        run("run", "-d", "--name", f"cortest-pod-{PID}", "--network", "none", "--memory", "64m", "busybox", "sleep", "600")
        assert run("exec", f"cortest-pod-{PID}", "cat", "/proc/1/comm").stdout == "sleep\n"
        run("rm", "-f", "-t", "0", f"cortest-pod-{PID}")
    finally:
        run("rm", "-fa", "-t", "0", check=False)
        subprocess.run([*base, "system", "reset", "-f"], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("program", ["crun", "runc"])
@pytest.mark.parametrize("image", ["hello", "debian"])
def test_others_run_the_bundle_that_corten_writes(engine, assets, tmp_path, program, image):
    other = need(program)
    if image == "hello":
        engine.client.post("/corten/hello")
        command = ["/hello"]
    else:
        engine.load(f"{assets}/images/debian.tar")
        command = ["cat", "/etc/debian_version"]
    body = {"Image": image, "Cmd": command, "HostConfig": {"NetworkMode": "none"}}
    container = engine.client.post("/containers/create", body)["Id"]
    engine.client.post(f"/containers/{container}/start")
    engine.client.post(f"/containers/{container}/wait")
    with engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1}) as response:
        ours = response.read()[8:].decode()
    made = f"{engine.data_root}/containers/{container}"
    bundle = tmp_path / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    config = json.loads(_read(f"{made}/config.json"))
    config["linux"]["cgroupsPath"] = f"/cortest-{program}-{PID}"  # one that the other runtime removes whole
    (bundle / "config.json").write_text(json.dumps(config))
    row = engine.client.get(f"/images/{image}/json")["RootFS"]["Layers"]
    assert len(row) == 1
    lower = _layer(engine, row[0])
    for name in ("u", "w"):
        (tmp_path / name).mkdir()
    syscalls.mount("overlay", str(bundle / "rootfs"), "overlay", 0, f"lowerdir={lower},upperdir={tmp_path}/u,workdir={tmp_path}/w")
    # crun refuses hybrid hosts: in a mount namespace of its own the version 2 mount is taken out of its sight.
    hide = ["unshare", "-m", "sh", "-c", 'umount "$(findmnt -nt cgroup2 -o TARGET | head -n 1)" && exec "$@"', "sh"] if program == "crun" and _hybrid() else []
    try:
        done = subprocess.run([*hide, other, "--root", str(tmp_path / "state"), "run", "-b", str(bundle), f"cortest-{program}-{PID}"],
                              capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
    finally:
        syscalls.umount2(str(bundle / "rootfs"), syscalls.MNT_DETACH)
        engine.remove(container)
    assert done.returncode == 0, done.stderr
    first = ours.splitlines()[0]
    assert done.stdout.splitlines()[0] == first


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _hybrid() -> bool:
    text = _read("/proc/self/mountinfo")
    return " - cgroup2 " in text and " - cgroup " in text


def _layer(engine, diff_id: str) -> str:
    import sqlite3

    with sqlite3.connect(f"{engine.data_root}/state.db") as database:
        number = database.execute("SELECT number FROM layers WHERE diff_id = ?", (diff_id,)).fetchone()[0]
    database.close()
    return f"{engine.data_root}/layers/{number}"
