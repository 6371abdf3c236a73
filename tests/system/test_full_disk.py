"""A data root without a byte left: what runs goes on, stopping and removing work, and so does the engine's own end and start."""

from __future__ import annotations

import subprocess

import pytest

from corten.api.client import ApiError
from tests.engines import RunningEngine
from tests.system.conftest import need


@pytest.fixture
def small(tmp_path, monkeypatch, assets):
    """An engine whose data root is a file system of 200 MB; the function fills it."""
    need("mkfs.ext4")
    disk, point = tmp_path / "disk", tmp_path / "point"
    point.mkdir()
    with open(disk, "wb") as file:
        file.truncate(200 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, point], check=True)
    monkeypatch.setenv("CORTEN_TEST_ROOT", str(point))
    try:
        running = RunningEngine("d")
        try:
            running.load(f"{assets}/images/busybox.tar")
            yield running, lambda: fill(point)
        finally:
            (point / "fill").unlink(missing_ok=True)
            running.stop()
    finally:
        subprocess.run(["umount", point], check=True)


def fill(point) -> None:
    for block in (1 << 20, 1 << 12, 1):
        with open(point / "fill", "ab", buffering=0) as file:
            try:
                while file.write(b"x" * block) == block:
                    continue
            except OSError as error:
                assert error.errno == 28, error


def test_containers_stop_and_go_on_a_full_disk(small):
    engine, fill_up = small
    talker = engine.run("sh", "-c", "while echo talking; do sleep 0.01; done")
    quiet = engine.run("sleep", "600", Binds=["data:/data"])
    other = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"]})["Id"]
    fill_up()
    for path, body in (("/volumes/create", {"Name": "new"}), ("/containers/create", {"Image": "busybox"}), (f"/containers/{other}/start", None)):
        with pytest.raises(ApiError, match=r"(?i)no space left on device") as caught:
            engine.client.post(path, body)
        assert caught.value.http_status == 500
    engine.client.post(f"/containers/{quiet}/stop", t=0)
    engine.client.post(f"/containers/{talker}/kill")
    assert engine.client.post(f"/containers/{talker}/wait")["StatusCode"] == 137
    engine.client.delete(f"/containers/{quiet}")
    assert {item["Id"]: item["State"] for item in engine.client.get("/containers/json", all=1)} == {talker: "exited", other: "created"}
    assert [volume["Name"] for volume in engine.client.get("/volumes")["Volumes"]] == ["data"]


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_an_engine_ends_and_starts_on_a_full_disk(small, end):
    engine, fill_up = small
    box = engine.run("sleep", "600")
    fill_up()
    getattr(engine, end)()
    engine.start()
    fill_up()
    assert engine.client.get(f"/containers/{box}/json")["State"]["Running"]
    engine.client.delete(f"/containers/{box}", force=1)
    assert engine.client.get("/containers/json", all=1) == []
    assert engine.terminate() == 0
    engine.start()
