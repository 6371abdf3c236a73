"""No call waits for ever: many at once on one container, and a monitor that is stopped."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest

from corten.api.client import ApiError, Client
from tests.engines import PATIENCE, eventually, free_port
from tests.system.conftest import listens
from tests.system.test_taking_over import is_told

_WEDGED = "that looks after the container does not answer"


def monitor_of(engine, container: str) -> int:
    """The parent of the container's first process."""
    pid = engine.client.get(f"/containers/{container}/json")["State"]["Pid"]
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])


def state(engine, container: str) -> dict:
    return engine.client.get(f"/containers/{container}/json")["State"]


def ends_with(call, text: str) -> None:
    """The call fails with the text, in a time that a person would wait."""
    with pytest.raises(ApiError, match=text):
        call()


def once_it_answers(call) -> None:
    """A monitor that goes on has a queue to read first."""
    end = time.monotonic() + 20
    while True:
        try:
            call()
            return
        except ApiError as error:
            assert _WEDGED in error.message
            assert time.monotonic() < end


def test_a_wedged_monitor_holds_up_nobody_else(own_engine):
    engine = own_engine
    wedged = engine.run("sleep", "600", name="wedged")
    pid = monitor_of(engine, wedged)
    os.kill(pid, signal.SIGSTOP)
    try:
        errors: dict[str, str] = {}

        def call(path: str, **query: int) -> None:
            try:
                Client(engine.socket).post(f"/containers/{wedged}/{path}", **query)
            except ApiError as error:
                errors[path] = error.message

        exec_id = engine.client.post(f"/containers/{wedged}/exec", {"Cmd": ["true"]})["Id"]
        queries = {"pause": {}, "stop": {"t": 0}, "restart": {"t": 0}, "resize": {"h": 1, "w": 1}, "kill": {"signal": "CHLD"}}
        threads = [threading.Thread(target=call, args=(path,), kwargs=query) for path, query in queries.items()]
        for thread in threads:
            thread.start()
        others = [engine.run("sleep", "600") for _ in range(3)]  # the room of the wedged one is not for them
        assert engine.output("echo", "fine") == (0, "fine\n")
        assert state(engine, wedged)["Running"]
        assert len(engine.client.get("/containers/json")) == 4
        engine.client.post(f"/containers/{others[0]}/restart", t=0)
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        ends_with(lambda: engine.client.post(f"/exec/{exec_id}/start", {"Detach": True}), _WEDGED)
        ends_with(lambda: engine.client.delete(f"/containers/{wedged}", force=1), _WEDGED)
        assert set(errors) == set(queries)
        for path, message in errors.items():
            assert _WEDGED in message, path
    finally:
        os.kill(pid, signal.SIGCONT)
    once_it_answers(lambda: engine.remove(wedged))
    with pytest.raises(ApiError, match="No such container"):
        state(engine, wedged)


def test_an_engine_starts_beside_a_wedged_monitor(own_engine):
    engine = own_engine
    wedged = engine.run("sh", "-c", "sleep 600", name="wedged")
    pid = monitor_of(engine, wedged)
    os.kill(pid, signal.SIGSTOP)
    try:
        engine.kill()
        engine.start()
        assert state(engine, wedged)["Running"]
        ends_with(lambda: engine.client.post(f"/containers/{wedged}/kill"), _WEDGED)
        assert engine.output("echo", "fine") == (0, "fine\n")
    finally:
        os.kill(pid, signal.SIGCONT)
    once_it_answers(lambda: engine.client.post(f"/containers/{wedged}/kill"))
    assert (state(engine, wedged)["Status"], state(engine, wedged)["ExitCode"]) == ("exited", 137)


def test_a_wedged_monitor_that_dies_is_replaced(own_engine):
    engine = own_engine
    wedged = engine.run("sleep", "600")
    pid = monitor_of(engine, wedged)
    os.kill(pid, signal.SIGSTOP)
    engine.kill()
    engine.start()
    os.kill(pid, signal.SIGKILL)
    once_it_answers(lambda: engine.client.post(f"/containers/{wedged}/kill"))
    assert is_told(state(engine, wedged)["ExitCode"], 137)


def _caught_at_its_set_up(bridge: str, monitor: int, start: threading.Thread) -> int:
    """Start a container, stop its first process before its sandbox is set up, and its monitor once the engine knows of it; the process."""
    before = set(_children(monitor))
    links = _links(bridge)
    start.start()
    while not (new := set(_children(monitor)) - before):
        assert start.is_alive()
    (first,) = new
    os.kill(first, signal.SIGSTOP)
    eventually(lambda: _links(bridge) - links)
    os.kill(monitor, signal.SIGSTOP)
    return first


def _links(bridge: str) -> set[str]:
    return set(os.listdir(f"/sys/class/net/{bridge}/brif"))


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


@pytest.mark.parametrize("network", ["bridge", "named"])
def test_a_monitor_that_falls_silent_in_a_start_is_passed_over(own_engine, network):
    engine = own_engine
    monitor = monitor_of(engine, engine.run("sleep", "600"))
    bridge = engine.bridge
    if network == "named":
        bridge = f"br-{engine.client.post('/networks/create', {'Name': network})['Id'][:12]}"
    slow = {"Tmpfs": {f"/slow/{number}": "" for number in range(200)}}  # so that its set-up is seen
    ports = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(free_port())}]}
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "echo hello; exec httpd -f -p 80 -h /bin"], "HostConfig": slow | {"NetworkMode": network, "PortBindings": ports}}
    web = engine.client.post("/containers/create", body, name="web")["Id"]
    seen: list[str] = []

    def start() -> None:
        seen.append(engine.docker("docker", "start", "web").stdout)
        seen.append(engine.docker("docker", "logs", "web").stdout)

    thread = threading.Thread(target=start)
    first = _caught_at_its_set_up(bridge, monitor, thread)
    try:
        thread.join(30 * PATIENCE)
        assert seen == ["web\n", "hello\n"]
        assert state(engine, web)["Pid"] != first
        assert monitor_of(engine, web) != monitor
        links = _links(bridge)
    finally:
        os.kill(monitor, signal.SIGCONT)
    once_it_answers(lambda: engine.client.post(f"/containers/{engine.run('sleep', '600')}/kill"))
    eventually(lambda: not os.path.exists(f"/proc/{first}"))  # the monitor has taken down what it had begun, and that alone
    assert state(engine, web)["Running"]
    address = engine.client.get(f"/containers/{web}/json")["NetworkSettings"]["Networks"][network]["IPAddress"]
    name = "web" if network == "named" else address
    assert engine.output("wget", "-q", "-O", "/dev/null", f"http://{name}/ls", NetworkMode=network) == (0, "")
    assert listens(int(ports["80/tcp"][0]["HostPort"]))
    eventually(lambda: _links(bridge) == links)
    engine.client.post(f"/containers/{web}/restart", t=0)
    eventually(lambda: listens(int(ports["80/tcp"][0]["HostPort"])))
    assert engine.monitor_log() == ""


CALLS = ("start", "stop?t=0", "kill", "kill?signal=HUP", "restart?t=0", "pause", "unpause", "rename", "update", "inspect", "exec", "remove", "top", "wait", "logs")
HARMLESS = (200, 201, 204, 304, 404, 409)


def _one(client: Client, call: str, number: int) -> None:
    path, _, query = call.partition("?")
    parameters = dict([query.split("=")]) if query else {}
    if path == "inspect":
        client.get("/containers/mixed/json")
    elif path == "rename":
        client.post("/containers/mixed/rename", name=f"mixed{number}")
        client.post(f"/containers/mixed{number}/rename", name="mixed")
    elif path == "update":
        client.post("/containers/mixed/update", {"CpuShares": random.randint(2, 1000), "RestartPolicy": {"Name": random.choice(("no", "always"))}})
    elif path == "exec":
        client.post(f"/exec/{client.post('/containers/mixed/exec', {'Cmd': ['true']})['Id']}/start", {"Detach": True})
    elif path == "remove":
        if random.random() < 0.3:
            client.delete("/containers/mixed", force=1)
        client.post("/containers/create", {"Image": "busybox", "Cmd": ["sleep", "600"]}, name="mixed")
    elif path == "top":
        client.get("/containers/mixed/top")
    elif path == "logs":
        client.get("/containers/mixed/logs", stdout=1)
    elif path == "wait":
        client.post("/containers/mixed/start")
    else:
        client.post(f"/containers/mixed/{path}", **parameters)


def test_everything_at_once_on_one_container(own_engine):
    engine = own_engine
    client = Client(engine.socket)
    client.post("/containers/create", {"Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": {"RestartPolicy": {"Name": "always"}}}, name="mixed")
    other = engine.run("sleep", "600")
    surprises: list[str] = []
    left = dict.fromkeys(CALLS, 40)

    def work(call: str, number: int) -> None:
        mine = Client(engine.socket)
        while left[call]:
            left[call] -= 1
            try:
                _one(mine, call, number)
            except ApiError as error:
                fine = error.http_status in HARMLESS or "is not paused" in error.message or "Cannot restart container" in error.message
                if not fine:
                    surprises.append(f"{call}: {error.http_status} {error.message}")

    threads = [threading.Thread(target=work, args=(call, number), daemon=True) for number, call in enumerate(CALLS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60 * PATIENCE)
        assert not thread.is_alive(), f"stuck, left to do: {left}"
    assert not surprises, "\n".join(sorted(set(surprises)))
    assert state(engine, other)["Running"]
    for item in client.get("/containers/json", all=1):
        client.delete(f"/containers/{item['Id']}", force=1)
    assert engine.output("echo", "fine") == (0, "fine\n")
    assert os.listdir(f"{engine.exec_root}/containers") == []
    assert "Traceback" not in engine.log()
    assert engine.monitor_log() == ""
