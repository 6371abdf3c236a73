"""A shell in a container that has none: the tools' files at /, the container's at /target, nothing of it left behind."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile

import pytest

from corten.api.client import ApiError
from tests.conftest import what_is_there


@pytest.fixture(scope="module")
def bare(engine):
    """An image with one program, and no shell; its name."""
    container = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"]})["Id"]
    with engine.client.open("GET", f"/containers/{container}/archive", query={"path": "/bin/busybox"}) as response, \
            tarfile.open(fileobj=io.BytesIO(response.read())) as archive:
        program = archive.extractfile("busybox").read()
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        entry = tarfile.TarInfo("sleep")
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, io.BytesIO(program))
    engine.client.open("POST", "/images/create", query={"fromSrc": "-", "repo": "bare"}, body=output.getvalue()).close()
    engine.remove_all()
    yield "bare"
    engine.client.delete("/images/bare", force=1)


@pytest.fixture
def corten(engine):
    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run([os.path.join(os.path.dirname(sys.executable), "corten"), "-H", f"unix://{engine.socket}", *arguments],
                              capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
        assert done.returncode == code, f"{done.stdout}{done.stderr}{engine.log()[-2000:]}{engine.monitor_log()[-2000:]}"
        return done.stdout + done.stderr

    yield run
    engine.remove_all()


def test_a_running_container_without_a_shell(engine, bare, corten):
    container = engine.run("/sleep", "600", image=bare, name="bare-box", Binds=["/etc:/mounted:ro"])
    assert 'exec: "sh": executable file not found' in corten("exec", "bare-box", "sh", code=127)
    before = what_is_there()
    shown = corten("exec", "--tools", "busybox", "bare-box", "sh", "-c", "ls /target; hostname; ps -o pid,args; ls /target/mounted/passwd; cat /etc/hosts; id -u; echo $PATH")
    for part in ("sleep\n", container[:12], "1 /sleep 600", "/target/mounted/passwd", "127.0.0.1", "\n0\n", "/bin"):
        assert part in shown
    address = engine.client.get(f"/containers/{container}/json")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert address in corten("exec", "--tools", "busybox", "bare-box", "ifconfig", "eth0")
    corten("exec", "--tools", "busybox", "bare-box", "sh", "-c", "touch /new /bin/new; exit 3", code=3)
    assert engine.client.get(f"/containers/{container}/changes") == [{"Path": "/mounted", "Kind": 1}]
    assert "new" not in corten("exec", "--tools", "busybox", "bare-box", "ls", "/", "/bin").replace("newgrp", "")
    corten("exec", "--tools", "busybox", "bare-box", "sh", "-c", "echo found >/target/written")
    assert {"Path": "/written", "Kind": 1} in engine.client.get(f"/containers/{container}/changes")
    assert what_is_there() == before
    with open(f"/proc/{engine.client.get(f'/containers/{container}/json')['State']['Pid']}/mountinfo", encoding="utf-8") as file:
        assert "/target" not in file.read()


def test_a_terminal_and_input(engine, bare, corten):
    engine.run("/sleep", "600", image=bare, name="bare-box")
    created = engine.client.post("/corten/containers/bare-box/tools", {"Image": "busybox", "Cmd": ["sh", "-c", "test -t 0; echo tty $?"], "Tty": True, "AttachStdout": True})
    assert created["ContainerId"] == ""
    sock = engine.client.hijack(f"/exec/{created['ExecId']}/start", {"Tty": True})
    said = b""
    while piece := sock.recv(4096):
        said += piece
    sock.close()
    assert said == b"tty 0\r\n"


def test_a_stopped_container(engine, bare, corten):
    name = engine.client.post("/corten/hello")["Name"]
    try:
        engine.client.post("/containers/create", {"Image": name}, name="said-hello")
        engine.client.post("/containers/said-hello/start")
        engine.client.post("/containers/said-hello/wait")
        shown = corten("exec", "--tools", "busybox", "said-hello", "sh", "-c", "ls -l /target/hello; touch /target/x; id -u", code=0)
        assert "/target/hello" in shown
        assert "Read-only file system" in shown
        assert [item["Names"] for item in engine.client.get("/containers/json", all=1)] == [["/said-hello"]]
        assert engine.client.get("/containers/said-hello/changes") is None
        engine.client.post("/containers/said-hello/start")
        engine.client.post("/containers/said-hello/wait")
    finally:
        engine.remove_all()
        engine.client.delete(f"/images/{name}")


def test_what_cannot_be(engine, bare, corten):
    engine.run("/sleep", "600", image=bare, name="bare-box")
    for body, status, text in (
        ({}, 400, "Image: the name"), ({"Image": "nosuch"}, 404, "No such image: nosuch"), ({"Image": "bare"}, 400, "names no command"),
        ({"Image": 5}, 400, "invalid JSON"),
    ):  # fmt: skip
        with pytest.raises(ApiError) as refused:
            engine.client.post("/corten/containers/bare-box/tools", body)
        assert (refused.value.http_status, text in refused.value.message) == (status, True)
    engine.client.post("/containers/bare-box/pause")
    with pytest.raises(ApiError) as refused:
        engine.client.post("/corten/containers/bare-box/tools", {"Image": "busybox", "Cmd": ["ls"]})
    assert "is paused" in refused.value.message
    engine.client.post("/containers/bare-box/unpause")
    assert "executable file not found" in corten("exec", "--tools", "busybox", "bare-box", "nosuchprogram", code=127)
