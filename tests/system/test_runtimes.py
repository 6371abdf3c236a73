"""Other OCI runtimes in the place of the built-in one: crun and runc, registered by daemon.json, do all that the engine asks of a runtime.

Both run here also on a hybrid host, which crun refuses: their driver hides the version 2 mount in its own mount namespace.
"""

from __future__ import annotations

import json
import os
import re

import pytest

from corten.api.client import ApiError, demultiplex
from tests.engines import RunningEngine, eventually
from tests.system.conftest import need
from tests.system.test_taking_over import answers, is_told, kill_monitors

PROGRAMS = ("crun", "runc")


@pytest.fixture(scope="module")
def others(assets, tmp_path_factory):
    settings = tmp_path_factory.mktemp("settings") / "daemon.json"
    settings.write_text(json.dumps({"runtimes": {name: {"path": need(name)} for name in PROGRAMS} | {"gone": {"path": "/nosuch/runtime"}}}))
    running = RunningEngine("r", "--config-file", str(settings))
    try:
        running.load(f"{assets}/images/busybox.tar")
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def nothing_stays(others):
    yield
    others.remove_all()
    state = f"{others.exec_root}/runtimes"
    assert not [name for folder in os.listdir(state) for name in os.listdir(f"{state}/{folder}")] if os.path.isdir(state) else True


@pytest.fixture(params=PROGRAMS)
def runtime(request):
    return request.param


def made_by(engine: RunningEngine, container: str) -> int:
    """The pid of a container's init, whose parent is a driver."""
    pid = engine.client.get(f"/containers/{container}/json")["State"]["Pid"]
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        parent = file.read().rpartition(")")[2].split()[1]
    with open(f"/proc/{parent}/comm", encoding="utf-8") as file:
        assert file.read() == "corten-driver\n"
    return pid


def test_output_exit_code_and_limits(others, runtime):
    script = "echo out; echo err >&2; id -u; hostname; cat /proc/1/comm; exit 6"
    code, output = others.output("sh", "-c", script, Runtime=runtime, Memory=64 << 20, NetworkMode="none")
    lines = [line for line in output.split() if line != "err"]
    assert (code, lines[0], lines[1], lines[3]) == (6, "out", "0", "sh")
    assert "err" in output
    assert re.fullmatch("[0-9a-f]{12}", lines[2])
    container = others.run("sleep", "600", Runtime=runtime, Memory=64 << 20)
    pid = made_by(others, container)
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        assert f"{others.cgroup_parent}/{container}" in file.read()
    assert others.client.get(f"/containers/{container}/stats", stream=0)["memory_stats"]["limit"] == 64 << 20
    assert others.client.get(f"/containers/{container}/json")["HostConfig"]["Runtime"] == runtime


def test_a_whole_life(others, runtime, docker_cli):
    def docker(*arguments: str, **options: object) -> str:
        return others.docker(docker_cli, *arguments, **options).stdout

    docker("run", "-d", "--runtime", runtime, "--name", "box", "-v", "/etc/hostname:/there:ro", "busybox", "sleep", "600")
    made_by(others, "box")
    assert docker("exec", "box", "sh", "-c", "echo $HOME; cat /proc/1/comm; ip addr show eth0 | grep -c 'inet '").split() == ["/root", "sleep", "1"]
    assert docker("exec", "-i", "box", "cat", input="through\n") == "through\n"
    failed = others.docker(docker_cli, "exec", "box", "sh", "-c", "exit 9", check=False)
    assert failed.returncode == 9
    missing = others.docker(docker_cli, "exec", "box", "nosuch", check=False)
    assert (missing.returncode, "found in $PATH" in missing.stdout + missing.stderr) == (127, True), missing
    docker("pause", "box")
    assert docker("inspect", "-f", "{{.State.Status}}", "box") == "paused\n"
    docker("unpause", "box")
    assert "sleep 600" in docker("top", "box")
    docker("restart", "-t", "0", "box")
    made_by(others, "box")
    docker("kill", "-s", "TERM", "box")
    docker("kill", "box")
    assert docker("wait", "box") == "137\n"
    docker("start", "box")
    docker("stop", "-t", "0", "box")
    docker("rm", "box")


def test_input_and_terminal(others, runtime, docker_cli):
    done = others.docker(docker_cli, "run", "-i", "--rm", "--runtime", runtime, "busybox", "tr", "a-z", "A-Z", input="hello\n" * 5000)
    assert done.stdout == "HELLO\n" * 5000
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "test -t 0 && stty size && read x && echo got-$x"], "Tty": True, "OpenStdin": True,
            "HostConfig": {"Runtime": runtime, "ConsoleSize": [33, 101]}}  # fmt: skip
    container = others.client.post("/containers/create", body)["Id"]
    with others.client.hijack(f"/containers/{container}/attach", stream=1, stdin=1, stdout=1, stderr=1) as sock:
        others.client.post(f"/containers/{container}/start")
        sock.sendall(b"word\n")
        shown = b""
        while data := sock.recv(4096):
            shown += data
    assert b"33 101" in shown
    assert b"got-word" in shown


def test_user_groups_and_init(others, runtime):
    _, output = others.output("sh", "-c", "id; cat /proc/1/comm", Runtime=runtime, GroupAdd=["audio", "777"], Init=True)
    assert "777" in output
    assert "docker-init" in output
    body = {"Image": "busybox", "Cmd": ["id", "-un"], "User": "daemon", "HostConfig": {"Runtime": runtime}}
    container = others.client.post("/containers/create", body)["Id"]
    others.client.post(f"/containers/{container}/start")
    others.client.post(f"/containers/{container}/wait")
    with others.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1}) as response:
        assert b"".join(data for _, data in demultiplex(response.read)) == b"daemon\n"


def test_what_cannot_start(others, runtime):
    for body, status, code, text in (
        ({"Cmd": ["nosuch"]}, 400, 127, "found in $PATH"),
        ({"Cmd": ["/etc/passwd"]}, 400, 126, "ermission denied"),
        ({"Cmd": ["true"], "User": "nosuch"}, 500, 128, "unable to find user nosuch: no matching entries in passwd file"),
    ):
        container = others.client.post("/containers/create", {"Image": "busybox", "HostConfig": {"Runtime": runtime}} | body)["Id"]
        with pytest.raises(ApiError, match=re.escape(text)) as caught:
            others.client.post(f"/containers/{container}/start")
        assert caught.value.http_status == status
        assert others.client.get(f"/containers/{container}/json")["State"]["ExitCode"] == code
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            assert container not in file.read()


def test_oom_is_told(others, runtime):
    container = others.run("sh", "-c", "x=a; while :; do x=$x$x; done", Runtime=runtime, Memory=16 << 20, MemorySwap=16 << 20)
    others.client.post(f"/containers/{container}/wait")
    assert others.client.get(f"/containers/{container}/json")["State"]["OOMKilled"] is True


def test_joined_namespaces(others, runtime):
    first = others.run("sleep", "600", Runtime=runtime, IpcMode="shareable")
    second = others.run("sleep", "600", Runtime=runtime, NetworkMode=f"container:{first}", PidMode=f"container:{first}", IpcMode=f"container:{first}")
    pids = [made_by(others, container) for container in (first, second)]
    for kind in ("net", "pid", "ipc"):
        assert len({os.readlink(f"/proc/{pid}/ns/{kind}") for pid in pids}) == 1, kind
    with open(f"/proc/{pids[0]}/root/dev/shm/x", "w", encoding="utf-8") as file:
        file.write("shared")
    assert os.path.exists(f"/proc/{pids[1]}/root/dev/shm/x")


def test_they_outlive_the_engine(others, runtime):
    container = others.run("sh", "-c", "while [ ! -e /stop ]; do sleep 0.05; done; exit 5", Runtime=runtime)
    others.kill()
    others.start()
    assert others.client.get(f"/containers/{container}/json")["State"]["Running"] is True
    exec_id = others.client.post(f"/containers/{container}/exec", {"Cmd": ["touch", "/stop"]})["Id"]
    others.client.post(f"/exec/{exec_id}/start", {"Detach": True})
    assert others.client.post(f"/containers/{container}/wait")["StatusCode"] == 5


def test_unknown_and_missing_runtimes_are_refused(others):
    for name, text in (("nosuch", "unknown or invalid runtime name: nosuch"), ("/bin/sh", "unknown or invalid runtime name: /bin/sh"),
                       ("gone", "executable file not found in $PATH")):  # fmt: skip
        with pytest.raises(ApiError, match=re.escape(text)) as caught:
            others.client.post("/containers/create", {"Image": "busybox", "HostConfig": {"Runtime": name}})
        assert caught.value.http_status == 400
    assert others.client.get("/info")["Runtimes"]["crun"]["path"].endswith("/crun")


def test_a_killed_monitor_is_replaced(others, runtime):
    """The driver runs on beside its container, and says how that ended."""
    container = others.run("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.1; done", Runtime=runtime)
    pid = made_by(others, container)
    kill_monitors(others)
    eventually(lambda: answers(others, container))
    assert made_by(others, container) == pid
    assert others.client.get(f"/containers/{container}/top")["Processes"]
    others.client.post(f"/containers/{container}/stop")
    assert is_told(others.client.get(f"/containers/{container}/json")["State"]["ExitCode"], 5)
