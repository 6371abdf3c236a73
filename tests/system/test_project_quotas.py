"""Size limits by project quotas, on file systems that enforce them: ext4 and xfs, mounted with prjquota."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.engines import RunningEngine
from tests.system.conftest import need

MAKE = {"ext4": ["mkfs.ext4", "-q", "-F", "-O", "quota,project"], "xfs": ["mkfs.xfs", "-q"]}
FULL = {"ext4": "Disk quota exceeded", "xfs": "No space left on device"}  # the file systems' own choice
FILL = "dd if=/dev/zero of={0}/fill bs=1M count=64 2>&1 | grep -oE 'No space left on device|.* quota exceeded'; df -m {0} | tail -1 | awk '{{print $2}}'; rm {0}/fill; echo again >{0}/small && cat {0}/small"


@pytest.fixture(params=["ext4", "xfs"])
def limited(request, assets, tmp_path, monkeypatch):
    """(engine, what it says when a quota is used up) of a data root with project quotas."""
    disk, point = tmp_path / "disk", tmp_path / "point"
    point.mkdir()
    with open(disk, "wb") as file:
        file.truncate(400 << 20)
    need(MAKE[request.param][0])
    subprocess.run([*MAKE[request.param], disk], check=True)
    if subprocess.run(["mount", "-o", "loop,prjquota", disk, point], check=False, capture_output=True).returncode:
        pytest.skip(f"this kernel has no project quotas on {request.param}")
    monkeypatch.setenv("CORTEN_TEST_ROOT", str(point))
    try:
        running = RunningEngine("q")
        try:
            running.load(f"{assets}/images/busybox.tar")
            yield running, FULL[request.param]
        finally:
            running.stop()
    finally:
        subprocess.run(["umount", point], check=True)


def full(engine, folder: str, said: str, **host: object) -> None:
    code, shown = engine.output("sh", "-c", FILL.format(folder), **host)
    assert code == 0, shown
    assert said in shown
    assert shown.splitlines()[-1] == "again"
    assert int(shown.splitlines()[-2]) <= 20


def test_a_limited_layer_and_a_limited_volume(limited):
    engine, said = limited
    full(engine, "/root", said, StorageOpt={"size": "20m"})
    engine.client.post("/volumes/create", {"Name": "small", "DriverOpts": {"size": "20m"}})
    full(engine, "/data", said, Binds=["small:/data"])
    assert os.listdir(f"{engine.data_root}/volumes/small") == ["_data"]
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert f"{engine.data_root}/volumes/small" not in file.read()


def test_what_a_layer_takes_and_what_is_kept(limited):
    engine, _ = limited
    box = engine.run("dd", "if=/dev/zero", "of=/file", "bs=1M", "count=5", StorageOpt={"size": "20m"})
    engine.client.post(f"/containers/{box}/wait")
    shown = engine.client.get(f"/containers/{box}/json", size=1)
    assert (shown["SizeRw"], shown["SizeRwLimit"]) == (5 << 20, 20 << 20)
    engine.kill()
    engine.start()
    assert engine.client.get(f"/containers/{box}/json", size=1)["SizeRwLimit"] == 20 << 20
    engine.client.post(f"/containers/{box}/start")
    assert engine.client.post(f"/containers/{box}/wait")["StatusCode"] == 0
