"""A monitor that is killed costs nobody a container: another one takes over what it had."""

from __future__ import annotations

import json
import os
import signal

import pytest

from corten.api.client import ApiError
from tests.engines import eventually
from tests.system.test_crash import monitors, state


def is_told(code: int, wanted: int) -> bool:
    """An orphan that somebody else reaps first tells its exit code from Linux 6.15 on; before that it may be unknown."""
    knows = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 15)
    return code == wanted or (not knows and code == 255)


def kill_monitors(engine) -> None:
    before = monitors(engine)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: set(monitors(engine)) and not set(before) & set(monitors(engine)))


def create(engine, *command, **config):
    container = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": list(command), **config})["Id"]
    engine.client.post(f"/containers/{container}/start")
    return container


def logged(engine, container) -> list[str]:
    with open(f"{engine.data_root}/containers/{container}/{container}-json.log", encoding="utf-8") as file:
        return [json.loads(line)["log"].strip() for line in file if line.endswith("\n")]


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def answers(engine, container) -> bool:
    """Whether somebody looks after it: a request that goes through its monitor."""
    try:
        engine.client.post(f"/containers/{container}/kill", signal="CONT")
    except ApiError:
        return False
    return True


@pytest.mark.parametrize("engine_too", [False, True], ids=["monitor", "monitor and engine"])
def test_containers_run_on(own_engine, engine_too):
    """Every line is logged once and in order, the exit code is the program's, and calls work as before."""
    engine = own_engine
    counting = create(engine, "sh", "-c", "n=0; while [ ! -e /end ]; do n=$((n+1)); echo $n; sleep 0.01; done; exit 7")
    waiting = create(engine, "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.1; done")
    pids = [state(engine, container)["Pid"] for container in (counting, waiting)]
    eventually(lambda: len(logged(engine, counting)) > 5)
    if engine_too:
        engine.kill()
        for pid in monitors(engine):
            os.kill(pid, signal.SIGKILL)
        engine.start()
    else:
        kill_monitors(engine)
    eventually(lambda: answers(engine, counting) and answers(engine, waiting))
    assert [state(engine, container)["Pid"] for container in (counting, waiting)] == pids
    seen = len(logged(engine, counting))
    eventually(lambda: len(logged(engine, counting)) > seen)
    created = engine.client.post(f"/containers/{counting}/exec", {"Cmd": ["touch", "/end"]})["Id"]
    engine.client.post(f"/exec/{created}/start", {"Detach": True})
    assert is_told(engine.client.post(f"/containers/{counting}/wait")["StatusCode"], 7)
    lines = list(map(int, logged(engine, counting)))
    assert lines == list(range(1, len(lines) + 1))
    engine.client.post(f"/containers/{waiting}/stop")
    assert is_told(state(engine, waiting)["ExitCode"], 5)
    assert "Traceback" not in engine.log() + engine.monitor_log()


def test_a_terminal_is_not_hung_up(own_engine):
    engine = own_engine
    container = create(engine, "sh", "-c", "trap 'exit 9' HUP; while read line; do echo got $line; done", Tty=True, OpenStdin=True)
    kill_monitors(engine)
    eventually(lambda: answers(engine, container))
    with engine.client.hijack(f"/containers/{container}/attach", stream=1, stdin=1, stdout=1) as sock:
        sock.settimeout(10)
        sock.sendall(b"hello\n")
        data = b""
        while b"got hello" not in data:
            data += sock.recv(1000)
    engine.client.post(f"/containers/{container}/resize", h=30, w=100)
    kill_monitors(engine)  # a terminal is handed on more than once
    eventually(lambda: answers(engine, container))
    engine.kill()
    engine.start()
    kill_monitors(engine)  # and a new engine has asked for it
    eventually(lambda: answers(engine, container))
    assert state(engine, container)["Running"]


def test_a_paused_container_stays_paused_and_names_are_served(own_engine):
    engine = own_engine
    engine.client.post("/networks/create", {"Name": "taken"})
    other = create(engine, "sleep", "600", HostConfig={"NetworkMode": "taken"})
    paused = create(engine, "sleep", "600", HostConfig={"NetworkMode": "taken"})
    engine.client.post(f"/containers/{paused}/pause")
    kill_monitors(engine)
    eventually(lambda: engine.log().count("another one does now") == 2)  # not a signal: that would thaw it
    assert state(engine, paused)["Paused"]
    engine.client.post(f"/containers/{paused}/unpause")
    for again in range(2):  # the second time by an engine that finds the sockets with the new monitor
        created = engine.client.post(f"/containers/{other}/exec", {"Cmd": ["ping", "-c", "1", paused[:12]], "AttachStdout": True})["Id"]
        with engine.client.open("POST", f"/exec/{created}/start", body={"Detach": False}) as output:
            output.read()
        assert engine.client.get(f"/exec/{created}/json")["ExitCode"] == 0
        if not again:
            engine.kill()
            engine.start()
    engine.remove(other)
    engine.remove(paused)
    engine.client.delete("/networks/taken")


def test_execs_end_and_are_said_to_have(own_engine):
    engine = own_engine
    container = create(engine, "sleep", "600")
    created = engine.client.post(f"/containers/{container}/exec", {"Cmd": ["sleep", "601"]})["Id"]
    engine.client.post(f"/exec/{created}/start", {"Detach": True})
    pid = eventually(lambda: engine.client.get(f"/exec/{created}/json")["Pid"])
    kill_monitors(engine)
    shown = eventually(lambda: (found := engine.client.get(f"/exec/{created}/json")) and not found["Running"] and found)
    assert shown["ExitCode"] == 137
    eventually(lambda: gone(pid))
    assert state(engine, container)["Running"]


def test_what_ended_while_nobody_looked_is_said_to_have(own_engine):
    engine = own_engine
    container = create(engine, "sleep", "600")
    pid = state(engine, container)["Pid"]
    engine.kill()
    for monitor in monitors(engine):
        os.kill(monitor, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    engine.start()
    eventually(lambda: not state(engine, container)["Running"])
    assert state(engine, container)["ExitCode"] in (137, 255)  # as long as nobody has reaped it, its own
