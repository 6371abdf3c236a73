"""Corten's own with volumes: rename, clone, snapshot, save, load."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import subprocess
import tarfile
import threading

import pytest

from corten.api.client import ApiError
from corten.errors import Unavailable
from corten.store.database import Database
from tests.engines import RunningEngine, eventually
from tests.images import entry, layer
from tests.system.conftest import need


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    engine.remove_all()
    for volume in engine.client.get("/volumes")["Volumes"]:
        engine.client.delete(f"/volumes/{volume['Name']}")
    assert os.listdir(f"{engine.data_root}/volumes") == os.listdir(f"{engine.data_root}/tmp") == []


def fill(engine, name: str) -> str:
    """A volume with a file of somebody's, a link and a folder; its path."""
    path = engine.client.post("/volumes/create", {"Name": name, "Labels": {"of": "test"}})["Mountpoint"]
    os.mkdir(f"{path}/sub", 0o750)
    with open(f"{path}/sub/file", "w", encoding="utf-8") as file:
        file.write("content")
    os.chown(f"{path}/sub/file", 12, 34)
    os.chmod(f"{path}/sub/file", 0o4755)
    os.symlink("sub/file", f"{path}/link")
    return path


def look(path: str) -> list[tuple]:
    found = []
    for folder, folders, names in os.walk(path):
        for name in sorted([*folders, *names]):
            status = os.lstat(os.path.join(folder, name))
            found.append((os.path.relpath(os.path.join(folder, name), path), status.st_mode, status.st_uid, status.st_gid, status.st_size if not folders else 0, status.st_mtime_ns // 10**9))
    return sorted(found)


def read(engine, path: str) -> bytes:
    with engine.client.open("GET", path) as response:
        return response.read()


def load(engine, name: str, data: bytes) -> dict:
    with engine.client.open("POST", "/corten/volumes/load", query={"name": name}, body=data, headers={"Content-Type": "application/x-tar"}) as response:
        return json.load(response)


def names(engine) -> set[str]:
    return {volume["Name"] for volume in engine.client.get("/volumes")["Volumes"]}


def refused(engine, path: str, **query: object) -> int:
    with pytest.raises(ApiError) as caught:
        engine.client.post(path, **query)
    return caught.value.http_status


def test_a_clone_is_the_same_and_its_own(engine):
    source = fill(engine, "first")
    made = engine.client.post("/corten/volumes/first/clone", name="second")
    assert (made["Name"], made["Labels"]) == ("second", {"of": "test"})
    assert look(made["Mountpoint"]) == look(source)
    with open(f"{made['Mountpoint']}/sub/file", "a", encoding="utf-8") as file:
        file.write(" and more")
    with open(f"{source}/sub/file", encoding="utf-8") as file:
        assert file.read() == "content"
    assert refused(engine, "/corten/volumes/first/clone", name="second") == 409
    assert refused(engine, "/corten/volumes/nosuch/clone", name="third") == 404
    assert refused(engine, "/corten/volumes/first/clone", name="../x") == 400
    assert refused(engine, "/corten/volumes/first/clone") == 400


def test_snapshots_are_kept_as_many_as_wanted(engine):
    fill(engine, "data")
    made = [engine.client.post("/corten/volumes/data/snapshot", keep=2)["Name"] for _ in range(4)]
    assert names(engine) == {"data", *made[2:]}
    labels = engine.client.get(f"/volumes/{made[3]}")["Labels"]
    assert labels == {"of": "test", "dev.corten.snapshot.of": "data"}
    assert engine.client.post("/corten/volumes/data/snapshot", name="before-upgrade")["Name"] == "before-upgrade"
    engine.client.post("/corten/volumes/data/rename", name="moved")
    last = engine.client.post("/corten/volumes/moved/snapshot", name="last", keep=1)
    assert last["Labels"]["dev.corten.snapshot.of"] == "moved"
    assert names(engine) == {"moved", "last"}
    engine.client.post("/corten/volumes/moved/rename", name="data")
    assert refused(engine, "/corten/volumes/data/snapshot", keep=-1) == 400


def test_a_copy_is_neither_a_snapshot_nor_anonymous(engine):
    fill(engine, "data")
    kept = engine.client.post("/corten/volumes/data/snapshot", name="snap")["Name"]
    assert engine.client.post(f"/corten/volumes/{kept}/clone", name="work")["Labels"] == {"of": "test"}
    anonymous = engine.client.post("/volumes/create")["Name"]
    assert engine.client.post(f"/corten/volumes/{anonymous}/clone", name="kept")["Labels"] is None
    engine.client.post("/corten/volumes/data/snapshot", keep=1)
    assert {"work", "kept"} <= names(engine)
    assert "snap" not in names(engine)


def test_save_and_load(engine):
    source = fill(engine, "saved")
    made = load(engine, "loaded", read(engine, "/corten/volumes/saved/tar"))
    assert look(made["Mountpoint"]) == look(source)


@pytest.mark.parametrize("data", [b"no tar" * 1000, layer([entry("../out", b"x")]), layer([entry("a", b"x" * 5000)])[:3000]], ids=["noise", "leads out", "cut off"])
def test_what_is_no_archive_makes_no_volume(engine, data):
    with pytest.raises(ApiError) as caught:
        load(engine, "bad", data)
    assert caught.value.http_status == 400
    assert names(engine) == set()


def test_an_archive_cannot_write_through_a_link(engine, tmp_path):
    archive = layer([entry("way", kind=tarfile.SYMTYPE, linkname=str(tmp_path)), entry("way/file", b"x")])
    with pytest.raises(ApiError):
        load(engine, "bad", archive)
    assert os.listdir(tmp_path) == []


def test_containers_follow_a_renamed_volume(engine, docker_cli):
    fill(engine, "old")
    box = engine.run("sleep", "600", Binds=["old:/data:ro"])
    engine.client.post("/corten/volumes/old/rename", name="new")
    assert names(engine) == {"new"}
    shown = engine.client.get(f"/containers/{box}/json")
    assert shown["HostConfig"]["Binds"] == ["new:/data:ro"]
    assert (shown["Mounts"][0]["Name"], shown["Mounts"][0]["Source"]) == ("new", f"{engine.data_root}/volumes/new/_data")
    assert engine.docker(docker_cli, "exec", box, "cat", "/data/link").stdout == "content"
    engine.client.post(f"/containers/{box}/restart", t=0)
    assert engine.docker(docker_cli, "exec", box, "cat", "/data/link").stdout == "content"
    assert refused(engine, "/corten/volumes/new/rename", name="new") == 409
    assert refused(engine, "/corten/volumes/old/rename", name="other") == 404
    assert refused(engine, "/corten/volumes/new/rename", name="a/b") == 400


def test_a_crash_between_the_row_and_the_folder_of_a_renaming(own_engine):
    fill(own_engine, "old")
    own_engine.client.post("/corten/volumes/old/rename", name="new")
    own_engine.terminate()
    import sqlite3

    database = sqlite3.connect(f"{own_engine.data_root}/state.db")
    row = json.loads(database.execute("SELECT record FROM volumes").fetchone()[0])
    database.execute("UPDATE volumes SET record = ?", (json.dumps(row | {"moved_from": "old"}).encode(),))
    database.commit()
    database.close()
    os.rename(f"{own_engine.data_root}/volumes/new", f"{own_engine.data_root}/volumes/old")
    own_engine.start()
    assert names(own_engine) == {"new"}
    assert os.listdir(f"{own_engine.data_root}/volumes") == ["new"]
    assert "link" in os.listdir(f"{own_engine.data_root}/volumes/new/_data")


@pytest.fixture(params=["btrfs", "xfs"])
def reflinking(request, assets, tmp_path, monkeypatch):
    """An engine whose data root is on a file system with reflinks; where that is mounted."""
    disk, point = tmp_path / "disk", tmp_path / "point"
    point.mkdir()
    with open(disk, "wb") as file:
        file.truncate(400 << 20)
    subprocess.run([need(f"mkfs.{request.param}"), "-q", disk], check=True)
    if subprocess.run(["mount", "-o", "loop", disk, point], check=False, capture_output=True).returncode:
        pytest.skip(f"this kernel has no {request.param}")
    monkeypatch.setenv("CORTEN_TEST_ROOT", str(point))
    try:
        running = RunningEngine("r")
        try:
            yield running, point
        finally:
            running.stop()
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_clone_shares_its_blocks_where_the_file_system_can(reflinking):
    engine, point = reflinking
    path = engine.client.post("/volumes/create", {"Name": "big"})["Mountpoint"]
    with open(f"{path}/file", "wb") as file:
        file.write(os.urandom(100 << 20))
    os.sync()
    before = os.statvfs(point).f_bfree
    made = engine.client.post("/corten/volumes/big/clone", name="copy")
    os.sync()
    used = (before - os.statvfs(point).f_bfree) * os.statvfs(point).f_frsize
    assert used < 20 << 20, "the blocks were copied"
    with open(f"{made['Mountpoint']}/file", "r+b") as file:
        file.write(b"changed")
    with open(f"{path}/file", "rb") as file:
        assert file.read(7) != b"changed"


@pytest.mark.parametrize("action", ["clone", "snapshot", "load"])
def test_a_crash_in_the_middle_leaves_no_volume(own_engine, action):
    path = fill(own_engine, "data")
    with open(f"{path}/big", "wb") as file:
        for _ in range(200):
            file.write(os.urandom(1 << 20))
    tar = read(own_engine, "/corten/volumes/data/tar") if action == "load" else b""

    def quietly() -> None:
        with contextlib.suppress(ApiError, Unavailable, http.client.HTTPException, OSError):  # the engine dies under it
            load(own_engine, "new", tar) if tar else own_engine.client.post(f"/corten/volumes/data/{action}", name="new")

    thread = threading.Thread(target=quietly)
    thread.start()
    eventually(lambda: any(name.startswith("volume-copy-") for name in os.listdir(f"{own_engine.data_root}/tmp")))
    own_engine.kill()
    thread.join()
    own_engine.start()
    assert names(own_engine) == {"data"}
    assert os.listdir(f"{own_engine.data_root}/volumes") == ["data"]
    eventually(lambda: os.listdir(f"{own_engine.data_root}/tmp") == [])
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert f"{own_engine.data_root}/" not in file.read()


def test_a_saved_tar_is_what_tar_says(engine):
    fill(engine, "saved")
    with tarfile.open(fileobj=io.BytesIO(read(engine, "/corten/volumes/saved/tar"))) as archive:
        assert sorted(os.path.normpath(name) for name in archive.getnames()) == [".", "link", "sub", "sub/file"]


def test_a_clone_says_how_far_it_is(engine):
    path = fill(engine, "data")
    with open(f"{path}/big", "wb") as file:
        file.write(b"x" * (40 << 20))
    said = list(engine.client.messages("/corten/volumes/data/clone", name="copy", progress=1))
    assert (said[0]["status"], said[-2]["status"]) == ("Copying", "Copied")
    assert said[-1]["aux"] == engine.client.get("/volumes/copy")
    counts = [message["progressDetail"]["current"] for message in said[:-1] if message.get("progressDetail")]
    assert counts == sorted(counts)
    assert counts[-1] == said[-3]["progressDetail"]["total"] == (40 << 20) + len("content") + len("sub/file")
    snapshot = list(engine.client.messages("/corten/volumes/data/snapshot", progress=1))[-1]["aux"]
    assert snapshot["Labels"]["dev.corten.snapshot.of"] == "data"
    with pytest.raises(ApiError) as caught:
        list(engine.client.messages("/corten/volumes/data/clone", name="copy", progress=1))
    assert caught.value.http_status == 409


def test_history_of_use_and_size(own_engine):
    own_engine.client.post("/volumes/create", {"Name": "data"})
    own_engine.client.get("/system/df")
    first = own_engine.run("sh", "-c", "echo content >/data/file", name="first", Binds=["data:/data"])
    own_engine.client.post(f"/containers/{first}/wait")
    second = own_engine.run("sleep", "600", name="second", Binds=["data:/mnt:ro"])
    own_engine.client.get("/system/df")
    own_engine.client.get("/system/df")
    own_engine.client.post("/corten/volumes/data/rename", name="moved")
    own_engine.kill()
    own_engine.start()
    found = own_engine.client.get("/corten/volumes/moved/history")
    ran = own_engine.client.get(f"/containers/{first}/json")["State"]
    assert [(use["Container"], use["Name"], use["Destination"], use["RW"]) for use in found["Uses"]] == [(first, "first", "/data", True), (second, "second", "/mnt", False)]
    assert (found["Uses"][0]["From"], found["Uses"][0]["To"]) == (ran["StartedAt"], ran["FinishedAt"])
    assert found["Uses"][1]["To"] == ""
    assert [entry["Size"] for entry in found["Sizes"]] == [0, len("content\n")]
    own_engine.remove_all()
    assert own_engine.client.get("/corten/volumes/moved/history")["Uses"][1]["To"]
    own_engine.client.delete("/volumes/moved")
    own_engine.client.post("/volumes/create", {"Name": "moved"})
    assert own_engine.client.get("/corten/volumes/moved/history")["Uses"] == []


def test_history_keeps_the_newest(tmp_path):
    database = Database(str(tmp_path / "db"))
    for number in range(10):
        database.add_volume_history("a", str(number).encode(), 4)
        database.add_volume_history("b", str(number).encode(), 4)
    assert database.volume_history("a") == database.volume_history("b") == [b"6", b"7", b"8", b"9"]
    database.delete_volume("a")
    database.move_volume_history("b", "c")
    assert (database.volume_history("a"), database.volume_history("b"), len(database.volume_history("c"))) == ([], [], 4)
    database.close()


def test_a_limited_volume_counts_in_system_df(engine):
    need("mkfs.ext4")
    engine.client.post("/volumes/create", {"Name": "small", "DriverOpts": {"size": "16m"}})
    usage = {volume["Name"]: volume["UsageData"] for volume in engine.client.get("/system/df", type="volume")["Volumes"]}
    assert 0 < usage["small"]["Size"] < 16 << 20
