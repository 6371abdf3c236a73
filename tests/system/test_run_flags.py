"""Every flag of `docker run`, through the real CLI, with its effect read inside the container, from the kernel, or from inspect.

Rows that are data are in run_flags.py; the functions here are those that need more. A flag without a row fails the run.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable

import pytest

from corten.linux.cgroup import host_layout
from tests.engines import RunningEngine, eventually, free_port
from tests.system.run_flags import GROUP, INSIDE, REFUSED, SHOWN
from tests.system.test_docker_cli import Terminal

NAME = f"cortest-flag-{os.getpid()}"
ROWS: dict[str, Callable[..., None]] = {}


def row(*flags: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(function: Callable[..., None]) -> Callable[..., None]:
        ROWS.update(dict.fromkeys(flags, function))
        return function

    return register


class Docker:
    """`docker run` with flags; what it made is removed after each row."""

    def __init__(self, engine: RunningEngine, program: str, folder: str) -> None:
        self.engine, self.program, self.folder = engine, program, folder

    def call(self, *arguments: str, check: bool = True, **options: object) -> subprocess.CompletedProcess:
        return self.engine.docker(self.program, *arguments, check=check, **options)

    def run(self, *flags: str, script: str = "true", check: bool = True, **options: object) -> subprocess.CompletedProcess:
        return self.call("run", "--rm", *flags, "busybox", "sh", "-c", script, check=check, **options)

    def keep(self, *flags: str, script: str = "exec sleep 600") -> str:
        """A container that runs on; its id."""
        return self.call("run", "-d", *flags, "busybox", "sh", "-c", script).stdout.strip()

    def inspect(self, container: str) -> dict:
        return json.loads(self.call("inspect", container).stdout)[0]

    def pid(self, container: str) -> int:
        return self.inspect(container)["State"]["Pid"]


@pytest.fixture(scope="module")
def flags_engine(assets):
    running = RunningEngine("f")
    try:
        running.load(f"{assets}/images/busybox.tar")
        yield running
    finally:
        running.stop()


@pytest.fixture
def docker(flags_engine, docker_cli, tmp_path):
    yield Docker(flags_engine, docker_cli, str(tmp_path))
    flags_engine.remove_all()
    for name in flags_engine.client.get("/networks"):
        if name["Name"] not in ("bridge", "host", "none"):
            flags_engine.client.delete(f"/networks/{name['Id']}")
    for volume in flags_engine.client.get("/volumes")["Volumes"] or []:
        flags_engine.client.delete(f"/volumes/{volume['Name']}", force=1)


def control_file(pid: int, name: str) -> str:
    """A file of a process's control group, empty if this kernel has none."""
    layout = host_layout()
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        groups = {name: line.rstrip("\n").split(":", 2)[2] for line in file for name in line.split(":")[1].split(",")}
    folder = layout.v2 + groups[""] if layout.unified else layout.v1.get(name.partition(".")[0], "/nosuch") + groups.get(name.partition(".")[0], "")
    try:
        with open(f"{folder}/{name}", encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def disk() -> tuple[str, str]:
    """A block device and its number."""
    for name in sorted(os.listdir("/sys/block")):
        if os.path.exists(f"/dev/{name}") and not name.startswith(("loop", "ram", "zram")):
            with open(f"/sys/block/{name}/dev", encoding="utf-8") as file:
                return f"/dev/{name}", file.read().strip()
    pytest.skip("this machine shows no block device to throttle")


def all_flags(program: str) -> set[str]:
    shown = subprocess.run([program, "run", "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^ +(?:-\w, )?(--[a-z0-9-]+)", shown, re.MULTILINE))


def everything() -> list[str]:
    return sorted({*INSIDE, *GROUP, *SHOWN, *REFUSED, *ROWS})


def test_every_flag_has_a_row(docker_cli):
    assert set(everything()) == all_flags(docker_cli)


def check(flag: str, docker: Docker) -> None:
    if flag in ROWS:
        ROWS[flag](docker)
    elif flag in INSIDE:
        arguments, script, pattern = INSIDE[flag]
        shown = docker.run(*arguments, script=script, check=False)
        assert re.search(pattern, shown.stdout), shown
    elif flag in REFUSED:
        arguments, pattern = REFUSED[flag]
        shown = docker.run(*arguments, check=False)
        assert shown.returncode != 0
        assert re.search(pattern, shown.stderr), shown
    elif flag in SHOWN:
        arguments, path, value = SHOWN[flag]
        found = docker.inspect(docker.keep(*(word.replace("VOLUME", NAME) for word in arguments)))
        for key in path.split("."):
            found = found[key]
        assert found == value
    else:
        _check_group(flag, docker)


def _check_group(flag: str, docker: Docker) -> None:
    arguments, v1_file, v1_value, v2_file, v2_value = GROUP[flag]
    unified = host_layout().unified
    name, value = (v2_file, v2_value) if unified else (v1_file, v1_value)
    if not name:
        pytest.skip(f"{flag}: control groups of version 2 have no such limit")
    if not _kernel_has(name):
        pytest.skip(f"{flag}: this kernel has no {name}")
    path, number = disk() if "DISK" in " ".join(arguments) else ("", "")
    if flag == "--blkio-weight-device" and "[bfq]" not in _read(f"/sys/block/{path.rpartition('/')[2]}/queue/scheduler"):
        pytest.skip(f"{flag}: {path} is not scheduled by BFQ, which alone weighs devices")
    container = docker.keep(*(word.replace("DISK", path) for word in arguments))
    assert re.search(rf"(?m)^{value.replace('NUMBER', number)}\b", control_file(docker.pid(container), name)), name


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _kernel_has(name: str) -> bool:
    """Some files are only in groups below the root."""
    layout = host_layout()
    top = layout.v2 if layout.unified else layout.v1.get(name.partition(".")[0], "/nosuch")
    return any(name in files for _, _, files in os.walk(top))


@row("--attach")
def _(docker):
    shown = docker.run("-a", "stdout", script="echo out; echo err >&2")
    assert (shown.stdout, shown.stderr) == ("out\n", "")


@row("--cgroup-parent")
def _(docker):
    parent = f"/cortest-{os.getpid()}-parent"
    container = docker.keep("--cgroup-parent", parent)
    with open(f"/proc/{docker.pid(container)}/cgroup", encoding="utf-8") as file:
        assert f":{parent}/{container}\n" in file.read()
    docker.engine.remove_all()
    layout = host_layout()
    for mount in {*layout.v1.values(), *([layout.v2] if layout.unified else [])}:
        os.rmdir(mount + parent)


@row("--cgroupns")
def _(docker):
    for mode, same in (("host", True), ("private", False)):
        shown = docker.run("--cgroupns", mode, script="readlink /proc/self/ns/cgroup").stdout.strip()
        assert (shown == os.readlink("/proc/self/ns/cgroup")) is same


@row("--cidfile")
def _(docker):
    container = docker.keep("--cidfile", f"{docker.folder}/id")
    with open(f"{docker.folder}/id", encoding="utf-8") as file:
        assert file.read() == container
    assert docker.inspect(container)["HostConfig"]["ContainerIDFile"] == f"{docker.folder}/id"


@row("--cpu-rt-runtime")
def _(docker):
    if host_layout().unified or not _kernel_has("cpu.rt_runtime_us"):
        pytest.skip("--cpu-rt-runtime: this kernel schedules no real-time groups")
    parent = f"{host_layout().v1['cpu']}{docker.engine.cgroup_parent}"
    docker.keep()  # makes the parent group
    with open(f"{parent}/cpu.rt_runtime_us", "w", encoding="utf-8") as file:
        file.write("20000")
    container = docker.keep("--cpu-rt-runtime", "10000")
    assert control_file(docker.pid(container), "cpu.rt_runtime_us") == "10000\n"
    failed = docker.run("--cpu-rt-runtime", "900000", check=False)
    assert failed.returncode == 125
    assert "cpu.rt_runtime_us" in failed.stderr


@row("--detach")
def _(docker):
    container = docker.keep()
    assert re.fullmatch("[0-9a-f]{64}", container)
    assert docker.inspect(container)["State"]["Running"] is True


@row("--detach-keys", "--tty", "--interactive")
def _(docker):
    terminal = Terminal(docker.engine.environment, docker.program, "run", "--name", NAME, "-it", "--detach-keys", "ctrl-a,x", "busybox", "sh")
    terminal.until(b"# ")
    terminal.type(b"test -t 0 && test -t 1 && echo tty-$((40+2))\n")
    terminal.until(b"tty-42")
    terminal.type(b"\x01x")
    assert terminal.close() == 0
    assert docker.inspect(NAME)["State"]["Running"] is True


@row("--env-file", "--label-file")
def _(docker):
    with open(f"{docker.folder}/file", "w", encoding="utf-8") as file:
        file.write("# comment\nA=from file\n")
    container = docker.keep("--env-file", f"{docker.folder}/file", "--label-file", f"{docker.folder}/file")
    shown = docker.inspect(container)["Config"]
    assert "A=from file" in shown["Env"]
    assert shown["Labels"] == {"A": "from file"}
    assert docker.call("exec", container, "sh", "-c", "echo $A").stdout == "from file\n"


@row("--gpus")
def _(docker):
    failed = docker.run("--gpus", "all", check=False)
    assert failed.returncode == 125
    assert 'could not select device driver "" with capabilities: [[gpu]]' in failed.stderr  # with a CDI spec: test_cdi.py


@row("--health-cmd")
def _(docker):
    container = docker.keep("--health-cmd", "test -e /dev/null", "--health-interval", "100ms")
    eventually(lambda: docker.inspect(container)["State"]["Health"]["Status"] == "healthy")


@row("--help")
def _(docker):
    assert "Usage:  docker run [OPTIONS] IMAGE" in docker.call("run", "--help").stdout


@row("--ip", "--ip6", "--network-alias", "--link-local-ip")
def _(docker):
    docker.call("network", "create", "--subnet", "10.211.0.0/24", "--ipv6", "--subnet", "fd00:211::/64", NAME)
    container = docker.keep("--network", NAME, "--ip", "10.211.0.77", "--ip6", "fd00:211::77", "--network-alias", "other", "--link-local-ip", "169.254.7.7")
    shown = docker.call("exec", container, "ip", "addr", "show", "eth0").stdout
    assert re.search(r"inet 10\.211\.0\.77/24", shown)
    assert re.search(r"inet6 fd00:211::77/64", shown)
    assert "169.254.7.7" in shown
    answer = docker.run("--network", NAME, script="nslookup other 127.0.0.11 || getent hosts other; ping -c1 -W2 other")
    assert "10.211.0.77" in answer.stdout


@row("--kernel-memory")
def _(docker):
    assert docker.run("--kernel-memory", "64m", script="echo runs").stdout == "runs\n"


@row("--link")
def _(docker):
    docker.keep("--name", NAME, "-e", "SAID=yes", "--expose", "80")
    shown = docker.run("--link", f"{NAME}:friend", script="env; cat /etc/hosts").stdout
    assert re.search(r"FRIEND_PORT=tcp://\d+\.\d+\.\d+\.\d+:80", shown)
    assert "FRIEND_ENV_SAID=yes" in shown
    assert re.search(r"(?m)^\d+\.\d+\.\d+\.\d+\s+friend\b", shown)


@row("--log-driver")
def _(docker):
    container = docker.keep("--log-driver", "none", script="echo said")
    failed = docker.call("logs", container, check=False)
    assert "configured logging driver does not support reading" in failed.stderr
    container = docker.keep("--log-driver", "json-file", script="echo said; exec sleep 600")
    eventually(lambda: docker.call("logs", container).stdout == "said\n")


@row("--name")
def _(docker):
    docker.keep("--name", NAME)
    assert docker.call("ps", "--format", "{{.Names}}").stdout == f"{NAME}\n"


@row("--pid", "--uts")
def _(docker):
    for flag, kind in (("--pid", "pid"), ("--uts", "uts"), ("--ipc", "ipc")):
        assert docker.run(flag, "host", script=f"readlink /proc/self/ns/{kind}").stdout.strip() == os.readlink(f"/proc/self/ns/{kind}")
    first = docker.keep("--ipc", "shareable")
    for flag, kind in (("--pid", "pid"), ("--ipc", "ipc"), ("--network", "net")):
        shown = docker.run(flag, f"container:{first}", script=f"readlink /proc/self/ns/{kind}").stdout.strip()
        assert shown == os.readlink(f"/proc/{docker.pid(first)}/ns/{kind}")
    private = docker.keep("--ipc", "private")
    failed = docker.run("--ipc", f"container:{private}", check=False)
    assert "non-shareable IPC (hint: use IpcMode:shareable for the donor container)" in failed.stderr


@row("--publish")
def _(docker):
    port = free_port()
    container = docker.keep("-p", f"127.0.0.1:{port}:80", script="echo through | nc -l -p 80; exec sleep 600")
    assert docker.call("port", container).stdout.strip() == f"80/tcp -> 127.0.0.1:{port}"


@row("--publish-all")
def _(docker):
    container = docker.keep("-P", "--expose", "80")
    assert re.search(r"80/tcp -> 0\.0\.0\.0:\d+", docker.call("port", container).stdout)


@row("--pull")
def _(docker):
    failed = docker.call("run", "--rm", "--pull", "never", "nosuch", check=False)
    assert (failed.returncode, "No such image: nosuch:latest" in failed.stderr) == (125, True)


@row("--rm")
def _(docker):
    docker.run("--name", NAME)
    assert docker.call("ps", "-aq").stdout == ""


@row("--sig-proxy")
def _(docker):
    process = subprocess.Popen([docker.program, "run", "--name", NAME, "busybox", "sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done"],
                               env=docker.engine.environment, stdout=subprocess.PIPE)  # fmt: skip
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 6
    process.stdout.close()


@row("--storage-opt")
def _(docker):
    failed = docker.run("--storage-opt", "size=1g", check=False)
    if failed.returncode == 0:
        return  # the volumes' own test reads the quota
    assert failed.returncode == 125
    assert re.search("storage-opt is supported only for overlay over xfs with 'pquota' mount option|StorageOpt", failed.stderr)


@row("--use-api-socket")
def _(docker):
    shown = docker.run("--use-api-socket", script="ls -l /var/run/docker.sock; env", check=False)
    if os.path.exists("/var/run/docker.sock"):
        assert re.search(r"(?m)^s.*/var/run/docker\.sock$", shown.stdout), shown
    else:  # the CLI asks for a bind of this path, wherever the engine listens
        assert "bind source path does not exist: /var/run/docker.sock" in shown.stderr


@row("--volume", "--volumes-from")
def _(docker):
    with open(f"{docker.folder}/in", "w", encoding="utf-8") as file:
        file.write("from the host")
    docker.keep("--name", NAME, "-v", f"{docker.folder}:/data", "-v", f"{NAME}:/named")
    docker.call("exec", NAME, "sh", "-c", "cat /data/in > /named/out")
    assert docker.run("--volumes-from", f"{NAME}:ro", script="cat /named/out; touch /named/x 2>&1; true").stdout.startswith("from the host")


@pytest.mark.parametrize("flag", everything())
def test_flag(flag, docker):
    check(flag, docker)
