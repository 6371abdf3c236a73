"""Size limits of writable layers and volumes: a full disk is the container's, and nothing stays mounted."""

from __future__ import annotations

import contextlib
import os
import time

import pytest

from corten.api.client import ApiError
from tests.system.conftest import need

FILL = "dd if=/dev/zero of={}/fill bs=1M count=64 2>&1 | grep -o 'No space left on device'; df -m {} | tail -1 | awk '{{print $2}}'; rm {}/fill; echo again >{}/small && cat {}/small"


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    need("mkfs.ext4")
    yield
    engine.remove_all()
    for volume in engine.client.get("/volumes")["Volumes"]:
        engine.client.delete(f"/volumes/{volume['Name']}")
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert engine.data_root not in file.read()
    end = time.monotonic() + 10
    while any(engine.data_root in backing for backing in backing_files()):  # the kernel takes a moment to let a device go
        assert time.monotonic() < end, "a loop device stays"
        time.sleep(0.02)


def backing_files() -> list[str]:
    found = []
    for name in os.listdir("/sys/block"):
        with contextlib.suppress(OSError), open(f"/sys/block/{name}/loop/backing_file", encoding="utf-8") as file:
            found.append(file.read())
    return found


def test_a_writable_layer_with_a_limit(engine):
    code, shown = engine.output("sh", "-c", FILL.replace("{}", "/root").replace("{{", "{").replace("}}", "}"), StorageOpt={"size": "20m"})
    assert code == 0, shown
    assert "No space left on device" in shown
    assert shown.splitlines()[-1] == "again"
    assert int(shown.splitlines()[-2]) <= 20


def test_what_a_layer_takes_of_its_limit_is_shown(engine):
    box = engine.run("dd", "if=/dev/zero", "of=/file", "bs=1M", "count=5", StorageOpt={"size": "20m"})
    engine.client.post(f"/containers/{box}/wait")
    shown = engine.client.get(f"/containers/{box}/json", size=1)
    assert shown["SizeRw"] == 5 << 20
    assert 0 < shown["SizeRwLimit"] <= 20 << 20


def test_a_limited_layer_is_kept_over_stops_and_crashes(own_engine):
    box = own_engine.run("sh", "-c", "echo once >>/log", StorageOpt={"size": "20m"})
    own_engine.client.post(f"/containers/{box}/wait")
    own_engine.terminate()
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert own_engine.data_root not in file.read(), "an ended engine left a layer of a stopped container mounted"
    own_engine.start()
    own_engine.client.post(f"/containers/{box}/start")
    own_engine.client.post(f"/containers/{box}/wait")
    own_engine.kill()
    own_engine.start()
    with own_engine.client.open("GET", f"/containers/{box}/archive", query={"path": "/log"}) as response:
        assert b"once\nonce\n" in response.read()
    own_engine.remove(box)
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert own_engine.data_root not in file.read()


def test_a_volume_with_a_limit(engine):
    engine.client.post("/volumes/create", {"Name": "small", "DriverOpts": {"size": "16m"}})
    script = FILL.replace("{}", "/data").replace("{{", "{").replace("}}", "}")
    for _ in range(2):
        code, shown = engine.output("sh", "-c", f"ls /data; {script}", Binds=["small:/data"])
        assert code == 0, shown
        assert "No space left on device" in shown
        assert shown.splitlines()[-1] == "again"
        assert int(shown.splitlines()[-2]) <= 16
    assert shown.splitlines()[0] == "small", "what the first container wrote was not there for the second"


def test_a_limited_volume_takes_the_images_content(engine):
    engine.client.post("/volumes/create", {"Name": "filled", "DriverOpts": {"size": "16m"}})
    code, shown = engine.output("sh", "-c", "ls -A /etc; grep ' /etc ' /proc/self/mountinfo", Binds=["filled:/etc"])
    assert code == 0
    assert shown.split()[:2] == ["group", "hostname"]
    assert "ext4 /dev/loop" in shown


@pytest.mark.parametrize(("option", "text"), [({"size": "1k"}, "too small"), ({"size": "abc"}, "invalid size: 'abc'"), ({"foo": "1"}, "Unknown option foo")])
def test_bad_limits_are_refused(engine, option, text):
    with pytest.raises(ApiError, match=text) as caught:
        engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"StorageOpt": option}})
    assert caught.value.http_status == 400


def test_a_limit_of_what_is_mounted_is_refused(engine):
    with pytest.raises(ApiError, match="size limit is for a volume that holds its content itself"):
        engine.client.post("/volumes/create", {"Name": "both", "DriverOpts": {"size": "1m", "type": "tmpfs", "device": "tmpfs"}})
