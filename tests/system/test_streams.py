"""Attach and exec streams: WebSockets, slow clients beside others, who outlives whom, memory that does not grow."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import threading
import time
import warnings

import aiohttp
import docker as docker_sdk
import pytest

from corten.api.client import demultiplex
from tests.system.test_docker_cli import Terminal
from tests.system.test_logs import log_config, logs

MIB = 1 << 20


def resident(engine) -> dict[int, int]:
    """Bytes of memory of their own (VmRSS without file pages) of the engine's process and its monitors."""
    found = {}
    pids = [engine.process.pid]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                is_monitor = file.read() == "corten-monitor\n"
            if is_monitor and os.readlink(f"/proc/{pid}/fd/2").startswith(engine.exec_root + "/"):
                pids.append(int(pid))
        except OSError:
            continue
    for pid in pids:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            found[pid] = next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon:"))
    return found


def attach(engine, container: str, **query: object) -> socket.socket:
    sock = engine.client.hijack(f"/containers/{container}/attach", **{"stream": 1, "stdout": 1, "stderr": 1, **query})
    sock.settimeout(60)
    return sock


def created(engine, *command: str, host: dict | None = None, **config: object) -> str:
    return engine.client.post("/containers/create", {"Image": "busybox", "Cmd": list(command), "HostConfig": host or {}, **config})["Id"]


WRITE_100_MIB = ["sh", "-c", "read go; yes 0123456789012345678901234567890123456789012345678901234567890123456789012345678 | head -c 104857600; echo done >&2"]


def test_a_client_that_never_reads_holds_nobody_up(own_engine):
    engine = own_engine
    container = created(engine, *WRITE_100_MIB, host=log_config("json-file", max_size="1g"), OpenStdin=True, AttachStdin=True)
    never, reader = attach(engine, container), attach(engine, container, stdin=1)
    never.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    engine.client.post(f"/containers/{container}/start")
    before = resident(engine)
    most: dict[int, int] = {}
    reader.sendall(b"\n")
    total, ended = 0, b""
    for stream, data in demultiplex(reader.recv):
        total += len(data) if stream == 1 else 0
        ended += data if stream == 2 else b""
        if total % (8 * MIB) < len(data):
            most = {pid: max(size, most.get(pid, 0)) for pid, size in resident(engine).items()}
    assert total == 100 * MIB
    assert ended == b"done\n"
    with engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1}) as response:
        assert sum(len(data) for _, data in demultiplex(response.read)) == 100 * MIB
    most = {pid: max(size, most.get(pid, 0)) for pid, size in resident(engine).items()}
    for pid, size in most.items():
        assert size - before.get(pid, 0) < 16 * MIB, (pid, before, most)
    # Nothing that it got is out of place: whole frames of the beginning, then the reason in a frame of stream 3.
    frames = list(demultiplex(never.recv))
    assert 60 * MIB < sum(len(data) for stream, data in frames if stream == 1) < 80 * MIB
    assert frames[-1][0] == 3
    assert b"docker logs has all of it" in frames[-1][1]
    never.close()
    reader.close()
    engine.remove(container)
    assert not [name for name in os.listdir(f"{engine.data_root}/containers") if name == container]


def test_a_slow_client_alone_is_waited_for(engine):
    container = created(engine, "sh", "-c", "read go; yes 0123456 | head -c 104857600", host=log_config("none"), OpenStdin=True, StdinOnce=True)
    with attach(engine, container, stdin=1) as sock:
        engine.client.post(f"/containers/{container}/start")
        sock.sendall(b"\n")
        total = 0
        for _, data in demultiplex(sock.recv):
            if total < 80 * MIB <= total + len(data):
                time.sleep(0.2)
            total += len(data)
    assert total == 100 * MIB
    engine.remove(container)


def test_the_engine_does_not_grow_with_what_passes_through(engine):
    container = engine.run("sh", "-c", "yes 01234567890123456789012345678901234567890123456789 | head -c 40000000; sleep 600", **log_config("json-file", max_size="1g"))
    end = time.monotonic() + 30
    while sum(len(data) for data in [logs(engine, container, tail=1)]) == 0:
        assert time.monotonic() < end

    def use(times: int) -> None:
        for _ in range(times):
            with engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1}) as response:
                while response.read(MIB):
                    continue
            socks = [attach(engine, container) for _ in range(20)]
            exec_id = engine.client.post(f"/containers/{container}/exec", {"Cmd": ["true"], "AttachStdout": True})["Id"]
            with engine.client.hijack(f"/exec/{exec_id}/start", {}) as sock:
                assert sock.recv(10) == b""
            for sock in socks:
                sock.close()

    use(2)
    before = resident(engine)
    use(4)
    after = resident(engine)
    for pid, size in before.items():
        assert after[pid] - size < 6 * MIB
    engine.remove(container)


def test_a_log_follower_that_does_not_read_costs_no_memory(engine):
    container = created(engine, "sh", "-c", "read go; yes $(head -c 999 /dev/zero | tr '\\0' x) | head -c 40000000; echo done >&2; sleep 600", host=log_config("json-file", max_size="1g"), OpenStdin=True)
    engine.client.post(f"/containers/{container}/start")
    with engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1, "follow": 1}) as follower, attach(engine, container, stdout=0, stdin=1) as other:
        before = resident(engine)
        other.sendall(b"\n")
        assert other.recv(100).endswith(b"done\n")
        after = resident(engine)
        assert all(after[pid] - before[pid] < 8 * MIB for pid in before)
        read = 0
        while read < 40000000:
            read += len(next(demultiplex(follower.read))[1])
    engine.remove(container)


def test_many_attachers_get_the_same(engine):
    container = created(engine, "sh", "-c", "read go; for n in $(seq 500); do echo line $n; done", OpenStdin=True)
    socks = [attach(engine, container, stdin=int(number == 0)) for number in range(12)]
    engine.client.post(f"/containers/{container}/start")
    socks[0].sendall(b"\n")
    expected = b"".join(b"line %d\n" % (number + 1) for number in range(500))
    for sock in socks:
        assert b"".join(data for _, data in demultiplex(sock.recv)) == expected
        sock.close()
    engine.remove(container)


def test_attach_replays_the_log(engine):
    container = engine.run("sh", "-c", "echo one; echo two >&2; sleep 600")
    end = time.monotonic() + 5
    while len(logs(engine, container)) < 8:
        assert time.monotonic() < end
    with attach(engine, container, logs=1, stream=0) as sock:
        assert sorted(demultiplex(sock.recv)) == [(1, b"one\n"), (2, b"two\n")]
    with attach(engine, container, logs=1, stdout=0) as sock:
        assert next(demultiplex(sock.recv)) == (2, b"two\n")
    engine.remove(container)


# --- WebSockets
def web_socket(engine, container: str, talk, version: str = "v1.51", **query: object) -> object:
    async def run() -> object:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(engine.socket)) as session:
            parameters = {"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1, **query}
            async with session.ws_connect(f"http://d/{version}/containers/{container}/attach/ws", params=parameters) as ws:
                return await asyncio.wait_for(talk(ws), 20)

    return asyncio.run(run())


@pytest.mark.parametrize(("version", "kind"), [("v1.51", aiohttp.WSMsgType.BINARY), ("v1.27", aiohttp.WSMsgType.TEXT)])
def test_attach_over_a_web_socket(engine, version, kind):
    container = created(engine, "sh", "-c", "read line; echo got $line; echo err >&2", OpenStdin=True)
    engine.client.post(f"/containers/{container}/start")

    async def talk(ws):
        await ws.send_str("hello\n")
        return [(message.type, message.data) async for message in ws]

    found = web_socket(engine, container, talk, version)
    assert {message[0] for message in found} == {kind}
    text = b"".join(data if isinstance(data, bytes) else data.encode() for _, data in found)
    assert sorted(text.splitlines()) == [b"err", b"got hello"]  # raw, without frames
    assert engine.client.get(f"/containers/{container}/json")["State"]["ExitCode"] == 0

    async def read(ws):
        return b"".join([message.data async for message in ws])

    assert sorted(web_socket(engine, container, read, logs=1, stream=0).splitlines()) == [b"err", b"got hello"]
    engine.remove(container)


def test_a_web_socket_needs_its_headers(engine):
    container = created(engine, "true")
    with pytest.raises(Exception, match="WebSocket"):
        engine.client.get(f"/containers/{container}/attach/ws", stream=1)
    engine.remove(container)


def test_a_web_socket_that_does_not_read_costs_no_memory(engine):
    container = created(engine, "sh", "-c", "read go; yes 0123456789 | head -c 60000000; echo done >&2", host=log_config("none"), OpenStdin=True)
    engine.client.post(f"/containers/{container}/start")
    with attach(engine, container, stdout=0) as other:

        async def talk(ws):
            before = resident(engine)
            await ws.send_str("\n")
            loop = asyncio.get_running_loop()
            ended = await loop.run_in_executor(None, other.recv, 100)
            return before, resident(engine), ended, len((await ws.receive()).data)

        before, after, ended, size = web_socket(engine, container, talk)
    assert ended.endswith(b"done\n")
    assert size > 0
    assert all(after[pid] - before[pid] < 12 * MIB for pid in before if pid != os.getpid())
    engine.remove(container)


# --- execs
def exec_socket(engine, container: str, *command: str, **config: object) -> socket.socket:
    exec_id = engine.client.post(f"/containers/{container}/exec", {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True, **config})["Id"]
    sock = engine.client.hijack(f"/exec/{exec_id}/start", {"Tty": bool(config.get("Tty"))})
    sock.settimeout(20)
    return sock


def test_an_exec_s_stream_ends_with_its_last_writer(engine):
    container = engine.run("sleep", "600")
    exec_id = engine.client.post(f"/containers/{container}/exec", {"Cmd": ["sh", "-c", "(sleep 0.7; echo late) & echo now; exit 3"], "AttachStdout": True})["Id"]
    with engine.client.hijack(f"/exec/{exec_id}/start", {}) as sock:
        frames = demultiplex(sock.recv)
        assert next(frames) == (1, b"now\n")
        end = time.monotonic() + 5
        while engine.client.get(f"/exec/{exec_id}/json")["Running"]:
            assert time.monotonic() < end
        assert engine.client.get(f"/exec/{exec_id}/json")["ExitCode"] == 3
        assert list(frames) == [(1, b"late\n")]
    engine.remove(container)


def test_what_a_container_leaves_behind_is_logged_to_its_end(engine):
    container = engine.run("sh", "-c", "trap '' TERM HUP; (while :; do echo tick; sleep 0.05; done) & sleep 0.3; echo last", PidMode="host")
    engine.client.post(f"/containers/{container}/wait")
    assert logs(engine, container).count(b"last") == 1
    engine.remove(container)


def test_a_half_closed_client_still_gets_output(engine):
    container = engine.run("sleep", "600")
    with exec_socket(engine, container, "sh", "-c", "cat; sleep 0.3; echo after", AttachStdin=True) as sock:
        sock.sendall(b"x" * 300_000 + b"\n")
        sock.shutdown(socket.SHUT_WR)
        found = b"".join(data for _, data in demultiplex(sock.recv))
    assert found == b"x" * 300_000 + b"\nafter\n"
    engine.remove(container)


def test_an_exec_s_terminal_is_resized(engine):
    container = engine.run("sleep", "600")
    body = {"Cmd": ["sh", "-c", "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"], "Tty": True, "AttachStdout": True, "AttachStdin": True}
    exec_id = engine.client.post(f"/containers/{container}/exec", body)["Id"]
    with engine.client.hijack(f"/exec/{exec_id}/start", {"Tty": True}) as sock:
        sock.settimeout(20)
        assert sock.recv(100).startswith(b"ready")
        engine.client.post(f"/exec/{exec_id}/resize", h=33, w=99)
        assert sock.recv(100).startswith(b"33 99")
    engine.remove(container)


# --- docker-py
def test_docker_py_attaches(engine):
    sdk = docker_sdk.DockerClient(base_url=f"unix://{engine.socket}")
    try:
        container = sdk.containers.create("busybox", ["sh", "-c", "read line; echo got $line; echo err >&2"], stdin_open=True)
        sock = sdk.api.attach_socket(container.id, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        output: list[tuple[bytes | None, bytes | None]] = []
        stream = container.attach(stream=True, demux=True)
        thread = threading.Thread(target=output.extend, args=(stream,))
        container.start()
        thread.start()
        sock._sock.sendall(b"hello\n")
        frames = sorted(demultiplex(sock._sock.recv))
        assert frames == [(1, b"got hello\n"), (2, b"err\n")]
        thread.join(10)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the SDK leaves closing its sockets to the collector
            sock.close()
            del sock, stream, thread
            gc.collect()
        assert set(output) <= {(b"got hello\n", None), (None, b"err\n")}
        container.wait()
        assert sorted(container.logs(stream=True)) == [b"err\n", b"got hello\n"]
        container.remove()
    finally:
        sdk.close()


# --- the docker CLI
def test_docker_attach_proxies_signals_and_the_exit_code(engine, docker_cli):
    container = engine.run("sh", "-c", "trap 'echo term; exit 7' TERM; while :; do echo tick; sleep 0.05; done")
    with subprocess.Popen([docker_cli, "attach", "--no-stdin", container], env=engine.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as cli:
        assert cli.stdout.readline() == b"tick\n"
        cli.terminate()
        rest = cli.stdout.read()
        assert cli.wait(20) == 7
    assert rest.endswith(b"term\n")
    engine.remove(container)


def test_docker_start_attached_and_interactive(engine, docker_cli):
    container = created(engine, "sh", "-c", "cat; echo over >&2; exit 3", OpenStdin=True, StdinOnce=True, AttachStdin=True, AttachStdout=True, AttachStderr=True)
    data = os.urandom(2 * MIB)
    done = subprocess.run([docker_cli, "start", "-ai", container], env=engine.environment, input=data, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (3, b"over\n")
    assert done.stdout == data
    engine.remove(container)


def test_detach_keys_of_one_s_own(engine, docker_cli):
    container = created(engine, "sh", "-c", "stty raw -echo; echo ready; cat -v", Tty=True, OpenStdin=True)
    engine.client.post(f"/containers/{container}/start")
    terminal = Terminal(engine.environment, docker_cli, "attach", "--detach-keys", "ctrl-a,d", container)
    terminal.type(b"a\x01b")  # a beginning of the keys that is not the keys goes through
    terminal.until(b"a^Ab")
    terminal.type(b"\x01d")
    terminal.until(b"read escape sequence")
    terminal.close()
    assert engine.client.get(f"/containers/{container}/json")["State"]["Running"]
    engine.remove(container)
