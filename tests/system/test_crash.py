"""kill -9 of the engine at any time: containers, ports, logs and streams go on, and the next engine finds every one."""

from __future__ import annotations

import os
import threading
import time
import urllib.request

import pytest

from corten.api.client import ApiError, demultiplex
from tests.engines import eventually
from tests.system.conftest import free_port, listens


def monitors(engine) -> list[int]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                name = file.read().strip()
            target = os.readlink(f"/proc/{pid}/fd/2")
        except OSError:
            continue
        if name == "corten-monitor" and target.startswith(engine.exec_root):
            found.append(int(pid))
    return found


def state(engine, container: str) -> dict:
    return engine.client.get(f"/containers/{container}/json")["State"]


def test_containers_outlive_the_engine(own_engine):
    engine, port = own_engine, free_port()
    web = engine.run("httpd", "-f", "-p", "80", "-h", "/var/www", PortBindings={"80/tcp": [{"HostPort": str(port)}]})
    talker = engine.run("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done", name="talker")
    short = engine.run("sh", "-c", "sleep 0.7; exit 9")
    gone = engine.run("sh", "-c", "sleep 0.7", AutoRemove=True)
    pid = state(engine, web)["Pid"]
    ending = [state(engine, container)["Pid"] for container in (short, gone)]
    attached = engine.client.hijack(f"/containers/{talker}/attach", stream=1, stdout=1)
    attached.settimeout(5)
    frames = demultiplex(attached.recv)
    next(frames)
    eventually(lambda: listens(port))
    engine.kill()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        assert answer.read() == b"hello from busybox\n"
    assert [next(frames)[0] for _ in range(20)] == [1] * 20  # the stream goes on without an engine
    attached.close()
    eventually(lambda: not any(os.path.exists(f"/proc/{ended}") for ended in ending))
    engine.start()
    assert state(engine, web)["Pid"] == pid
    assert state(engine, web)["Running"] is True
    assert (state(engine, short)["Status"], state(engine, short)["ExitCode"]) == ("exited", 9)
    with pytest.raises(ApiError, match="No such container"):
        state(engine, gone)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        assert answer.status == 200
    with engine.client.open("GET", f"/containers/{talker}/logs", query={"stdout": 1}) as response:
        numbers = [int(line) for _, data in demultiplex(response.read) for line in data.split()]
    assert numbers == list(range(1, len(numbers) + 1)), "a line is missing"
    exec_id = engine.client.post(f"/containers/{web}/exec", {"Cmd": ["true"], "AttachStdout": True})["Id"]
    engine.client.hijack(f"/exec/{exec_id}/start", {}).close()
    engine.client.post(f"/containers/{talker}/stop", t=0)
    taken = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": str(port)}]}}})["Id"]
    with pytest.raises(ApiError, match="address already in use"):
        engine.client.post(f"/containers/{taken}/start")


def test_a_killed_engine_under_load_loses_nothing(own_engine):
    engine = own_engine
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                container = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["sleep", "0.05"]})["Id"]
                engine.client.post(f"/containers/{container}/start")
                engine.client.post(f"/containers/{container}/wait")
                engine.client.delete(f"/containers/{container}", force=1)
            except Exception:  # the engine is down right now
                time.sleep(0.05)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for pause in (0.31, 0.17, 0.43):
        time.sleep(pause)
        engine.kill()
        engine.start()
    stop.set()
    for thread in threads:
        thread.join()
    eventually(lambda: all(item["State"] in ("created", "exited") for item in engine.client.get("/containers/json", all=1)))
    engine.remove_all()
    assert os.listdir(f"{engine.data_root}/containers") == []
    assert os.listdir(f"{engine.exec_root}/containers") == []


def test_what_a_crash_left_of_a_creation_is_removed(own_engine):
    engine = own_engine
    kept = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"]})["Id"]
    engine.kill()
    for folder in (engine.data_root, engine.exec_root):  # as if it had died between a folder and its row
        os.makedirs(f"{folder}/containers/{'f' * 64}/upper")
    engine.start()
    assert os.listdir(f"{engine.data_root}/containers") == [kept]
    assert os.listdir(f"{engine.exec_root}/containers") == []
    engine.remove(kept)


def test_a_shard_is_full_and_another_is_made(own_engine):
    engine = own_engine
    before = len(monitors(engine))
    for _ in range(17):
        engine.run("sleep", "600")
    assert len(monitors(engine)) == before + 1


def test_a_second_engine_on_the_same_data_is_refused(own_engine):
    import subprocess
    import sys

    done = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "cortend"), "--data-root", own_engine.data_root, "--exec-root", f"/run/cortest-second-{os.getpid()}"],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "another engine uses" in done.stderr


def test_a_mix_on_one_container_never_deadlocks(own_engine):
    engine = own_engine
    container = engine.run("sleep", "600", name="mixed")
    other = engine.run("sleep", "600")
    calls = ["start", "stop?t=0", "kill", "pause", "unpause", "restart?t=0"]
    stop = time.monotonic() + 3

    def work(number: int) -> None:
        while time.monotonic() < stop:
            path, _, query = calls[number].partition("?")
            try:
                engine.client.post(f"/containers/{container}/{path}", **dict([query.split("=")]) if query else {})
            except ApiError as error:
                assert error.http_status in (304, 409, 500), error.message
                assert "internal error" not in error.message

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    while time.monotonic() < stop:
        begin = time.monotonic()
        assert state(engine, other)["Running"]
        assert time.monotonic() - begin < 5
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    engine.remove(container)


def test_a_slow_client_holds_nobody_up(own_engine):
    engine = own_engine
    flood = engine.run("sh", "-c", "sleep 0.3; yes | head -c 8000000; sleep 600")
    slow = engine.client.hijack(f"/containers/{flood}/attach", stream=1, stdout=1)
    time.sleep(0.5)
    begin = time.monotonic()
    engine.output("true")
    assert time.monotonic() - begin < 5
    for pid in monitors(engine):
        with open(f"/proc/{pid}/statm", encoding="utf-8") as file:
            assert int(file.read().split()[1]) * 4096 < 64 << 20
    received = 0
    slow.settimeout(10)
    while received < 8_000_000:
        received += len(slow.recv(1 << 16))
    slow.close()


def test_a_program_that_does_not_read_holds_its_client_up_not_the_monitor(own_engine):
    engine = own_engine
    body = {"Image": "busybox", "Cmd": ["sleep", "600"], "OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
    container = engine.client.post("/containers/create", body)["Id"]
    sock = engine.client.hijack(f"/containers/{container}/attach", stream=1, stdin=1, stdout=1)
    engine.client.post(f"/containers/{container}/start")
    sock.settimeout(1)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 200 << 20:
            sent += sock.send(b"x" * (1 << 20))
    sock.close()
    assert sent < 16 << 20
    for pid in monitors(engine):
        with open(f"/proc/{pid}/statm", encoding="utf-8") as file:
            assert int(file.read().split()[1]) * 4096 < 64 << 20


def run_exec(engine, container: str, *command: str) -> bytes:
    exec_id = engine.client.post(f"/containers/{container}/exec", {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True})["Id"]
    sock = engine.client.hijack(f"/exec/{exec_id}/start", {})
    sock.settimeout(10)
    try:
        return b"".join(data for _, data in demultiplex(sock.recv))
    finally:
        sock.close()


def test_what_an_exec_leaves_behind_holds_nobody_up(own_engine):
    engine = own_engine
    container = engine.run("sleep", "600")
    exec_id = engine.client.post(f"/containers/{container}/exec", {"Cmd": ["sh", "-c", "yes &"], "AttachStdout": True})["Id"]
    with engine.client.hijack(f"/exec/{exec_id}/start", {}) as sock:
        sock.settimeout(10)
        assert sock.recv(100)
        assert run_exec(engine, container, "sh", "-c", "(sleep 0.5; echo late) & echo next") == b"next\nlate\n"
        engine.remove(container)
        while sock.recv(1 << 20):  # the container's end is the end of what it left behind
            continue


@pytest.mark.parametrize("host", [{}, {"PidMode": "host"}])
def test_execs_end_with_their_container(own_engine, host):
    engine = own_engine
    container = engine.run("sleep", "600", **host)
    other = engine.run("sleep", "600")
    before = monitors(engine)
    exec_id = engine.client.post(f"/containers/{container}/exec", {"Cmd": ["sleep", "600"], "AttachStdout": True})["Id"]
    sock = engine.client.hijack(f"/exec/{exec_id}/start", {})
    end = time.monotonic() + 5
    while not engine.client.get(f"/exec/{exec_id}/json")["Pid"]:
        assert time.monotonic() < end
        time.sleep(0.01)
    engine.client.post(f"/containers/{container}/kill")
    sock.settimeout(10)
    assert sock.recv(100) == b""
    sock.close()
    assert engine.client.get(f"/exec/{exec_id}/json")["Running"] is False
    assert engine.client.get(f"/exec/{exec_id}/json")["ExitCode"] == 137
    assert monitors(engine) == before
    assert state(engine, other)["Running"]
    assert engine.monitor_log() == ""


def test_refused_starts_and_execs_cost_the_monitor_no_descriptor(own_engine):
    engine = own_engine
    container = engine.run("sleep", "600")
    (pid,) = monitors(engine)
    before = len(os.listdir(f"/proc/{pid}/fd"))
    for number in range(5):
        bad = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "OpenStdin": bool(number % 2),
                                                        "HostConfig": {"Sysctls": {"net.no.such": "1"}}})["Id"]  # fmt: skip
        with pytest.raises(ApiError, match="no/such"):
            engine.client.post(f"/containers/{bad}/start")
        assert b"not found in $PATH" in run_exec(engine, container, "nosuch")
    assert len(os.listdir(f"/proc/{pid}/fd")) == before


def test_clients_that_attach_while_it_starts_get_everything(own_engine):
    engine = own_engine
    for _ in range(10):
        body = {"Image": "busybox", "Cmd": ["sh", "-c", "sleep 0.3; echo said"]}
        container = engine.client.post("/containers/create", body)["Id"]
        starter = threading.Thread(target=engine.client.post, args=(f"/containers/{container}/start",))
        starter.start()
        sock = engine.client.hijack(f"/containers/{container}/attach", stream=1, stdout=1)
        sock.settimeout(10)
        assert b"".join(data for _, data in demultiplex(sock.recv)) == b"said\n"
        sock.close()
        starter.join()
        engine.remove(container)


def test_a_copy_that_its_client_leaves_costs_nothing(own_engine):
    engine = own_engine
    container = engine.run("sh", "-c", "head -c 60000000 /dev/zero > /big; sleep 600")
    eventually(lambda: engine.client.get(f"/containers/{container}/json", size=1).get("SizeRw", 0) >= 60_000_000)
    before = len(os.listdir(f"/proc/{engine.process.pid}/fd"))
    for _ in range(3):
        response = engine.client.open("GET", f"/containers/{container}/archive", query={"path": "/big"})
        assert response.read(1000)
        response.close()
    with engine.client.open("GET", f"/containers/{container}/archive", query={"path": "/big"}) as response:
        assert len(response.read()) > 60_000_000
    eventually(lambda: len(os.listdir(f"/proc/{engine.process.pid}/fd")) <= before)
    assert "Traceback" not in engine.log()
    assert "never retrieved" not in engine.log()
