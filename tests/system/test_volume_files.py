"""Single paths of volumes in and out without a container: what a container's archive does, links, races, mounted and limited volumes."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading

import pytest

from corten.api.client import ApiError
from tests.system.conftest import need
from tests.system.test_copying import content, refusal, tar_of

ARCHIVE = "/corten/volumes/{}/archive"


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    engine.remove_all()
    for volume in engine.client.get("/volumes")["Volumes"]:
        engine.client.delete(f"/volumes/{volume['Name']}")
    assert os.listdir(f"{engine.data_root}/volumes") == os.listdir(f"{engine.data_root}/tmp") == []
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert f"{engine.data_root}/volumes" not in file.read()


@pytest.fixture
def data(engine):
    """A volume; its folder on the host."""
    return engine.client.post("/volumes/create", {"Name": "data"})["Mountpoint"]


def put(engine, volume: str, path: str, data: bytes, **query: object) -> None:
    engine.client.open("PUT", ARCHIVE.format(volume), query={"path": path, **query}, body=data).close()


def get(engine, volume: str, path: str) -> bytes:
    with engine.client.open("GET", ARCHIVE.format(volume), query={"path": path}) as response:
        return response.read()


def stat(engine, volume: str, path: str) -> dict:
    with engine.client.open("HEAD", ARCHIVE.format(volume), query={"path": path}) as response:
        return json.loads(base64.b64decode(response.headers["X-Docker-Container-Path-Stat"]))


def test_in_and_out(engine, data):
    put(engine, "data", "/", tar_of({"sub/file": b"new"}))
    status = os.stat(f"{data}/sub/file")
    assert (status.st_uid, status.st_gid) == (7, 8)
    assert content(get(engine, "data", "sub/file"), "file") == b"new"
    assert content(get(engine, "data", "/sub"), "sub/file") == b"new"
    assert content(get(engine, "data", "/sub/."), "./file") == b"new"
    found = stat(engine, "data", "/sub/file")
    assert (found["name"], found["size"], found["mode"]) == ("file", 3, 0o755)
    assert stat(engine, "data", "/sub")["mode"] & 1 << 31


def test_what_is_refused(engine, data):
    put(engine, "data", "/", tar_of({"file": b"", "folder/x": b""}))
    assert refusal(get, engine, "data", "/nosuch") == (404, "Could not find the file /nosuch in volume data")
    assert refusal(put, engine, "data", "/nosuch", tar_of({"a": b""})) == (404, "Could not find the file /nosuch in volume data")
    assert refusal(put, engine, "data", "/file", tar_of({"a": b""})) == (400, "extraction point is not a directory")
    assert refusal(put, engine, "data", "/", tar_of({"folder": b""}), noOverwriteDirNonDir=1)[0] == 500
    assert refusal(put, engine, "data", "/", b"no tar" * 200)[0] == 400
    assert refusal(put, engine, "data", "/", tar_of({"../out": b""}))[0] == 400
    assert refusal(get, engine, "data", "") == (400, "bad parameter: pathcannot be empty")
    assert refusal(get, engine, "nosuch", "/") == (404, "get nosuch: no such volume")


def test_a_link_leads_nowhere_else(engine, data, tmp_path):
    (tmp_path / "secret").write_text("outside")
    os.symlink(str(tmp_path), f"{data}/out")
    os.symlink("../../../../../../../../../..", f"{data}/up")
    assert refusal(get, engine, "data", "/out/secret")[0] == 404
    assert refusal(put, engine, "data", "/out", tar_of({"a": b""}))[0] == 404
    put(engine, "data", "/up", tar_of({"inside": b""}))
    assert os.path.exists(f"{data}/inside")


def test_a_path_that_is_swapped_for_a_link_never_leads_out(engine, data, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("outside")
    os.mkdir(f"{data}/sub")
    with open(f"{data}/sub/file", "w", encoding="utf-8") as file:
        file.write("inside")
    os.symlink(str(outside), f"{data}/link")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(f"{data}/sub", f"{data}/away")
            os.rename(f"{data}/link", f"{data}/sub")
            os.rename(f"{data}/sub", f"{data}/link")
            os.rename(f"{data}/away", f"{data}/sub")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for number in range(30):
            for work in (lambda: get(engine, "data", "/sub/file"), lambda: get(engine, "data", "/"), lambda number=number: put(engine, "data", "/sub", tar_of({f"n{number}": b""}))):
                try:
                    assert b"outside" not in (work() or b"").replace(str(outside).encode(), b"")
                except ApiError as error:
                    assert error.http_status == 404, error.message
    finally:
        stop.set()
        thread.join()
    assert os.listdir(outside) == ["file"]
    assert any(name.startswith("n") for name in os.listdir(f"{data}/sub"))


@pytest.mark.parametrize("options", [{"type": "tmpfs", "device": "tmpfs"}, {"size": "16m"}], ids=["tmpfs", "limited"])
def test_volumes_that_must_be_mounted(engine, options):
    if "size" in options:
        need("mkfs.ext4")
    engine.client.post("/volumes/create", {"Name": "other", "DriverOpts": options})
    box = engine.run("sleep", "600", Binds=["other:/data"])
    put(engine, "other", "/", tar_of({"file": b"x"}))
    assert content(get(engine, "other", "/file"), "file") == b"x"
    engine.remove(box)
    if "size" in options:
        assert content(get(engine, "other", "/file"), "file") == b"x"


def test_a_full_volume_says_so(engine):
    need("mkfs.ext4")
    engine.client.post("/volumes/create", {"Name": "small", "DriverOpts": {"size": "4m"}})
    status, text = refusal(put, engine, "small", "/", tar_of({"file": bytes(range(256)) * (8 << 12)}))
    assert (status, "No space left on device" in text) == (500, True)
    put(engine, "small", "/", tar_of({"little": b"x"}))


# --- corten volume cp
def cp(engine, *arguments: str, code: int = 0) -> str:
    command = [f"{os.path.dirname(sys.executable)}/corten", "-H", f"unix://{engine.socket}", "volume", "cp", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


def test_cp_as_docker_cp(engine, data, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "one").write_text("1")
    os.symlink("one", tmp_path / "src" / "link")
    cp(engine, f"{tmp_path}/src", "data:/")
    cp(engine, f"{tmp_path}/src", "data:/renamed")
    cp(engine, f"{tmp_path}/src/.", "data:/renamed")
    cp(engine, f"{tmp_path}/src/one", "data:/src/two")
    assert sorted(os.listdir(data)) == ["renamed", "src"]
    assert sorted(os.listdir(f"{data}/renamed")) == ["link", "one"]
    assert sorted(os.listdir(f"{data}/src")) == ["link", "one", "two"]
    assert os.readlink(f"{data}/src/link") == "one"
    cp(engine, "data:/src", f"{tmp_path}/back")
    cp(engine, "data:/src/two", f"{tmp_path}/back")
    cp(engine, "data:/src/two", f"{tmp_path}/three")
    assert sorted(os.listdir(tmp_path / "back")) == ["link", "one", "two"]
    assert (tmp_path / "three").read_text() == "1"
    assert "Could not find the file" in cp(engine, "data:/nosuch", str(tmp_path), code=1)
    assert "no such file" in cp(engine, f"{tmp_path}/nosuch", "data:/", code=1)
    assert "no such directory" in cp(engine, "data:/src", f"{tmp_path}/no/such", code=1)
    assert "one of the two" in cp(engine, "data:/src", "data:/x", code=2)


def test_cp_writes_through_no_link_that_the_volume_has(engine, data, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    os.mkdir(f"{data}/sub")
    cp(engine, "data:/sub", f"{tmp_path}/here")
    os.rmdir(tmp_path / "here" / "sub")
    os.symlink(tmp_path / "there", tmp_path / "here" / "sub")
    with open(f"{data}/sub/file", "w", encoding="utf-8") as file:
        file.write("x")
    assert "sub: is no folder, or a link to one" in cp(engine, "data:/sub", f"{tmp_path}/here", code=1)
    assert os.listdir(tmp_path / "there") == []
