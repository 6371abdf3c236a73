"""Version 2 on a folder that looks like one: what is written where, and what is said when a controller is not there."""

from __future__ import annotations

import os

import pytest

from corten.engine import stats
from corten.linux import cgroup_files
from corten.linux.cgroup import Layout, Setting
from corten.linux.cgroup_v2 import CgroupV2


@pytest.fixture
def mount(tmp_path):
    """A root with three controllers, and below it /corten, where the kernel would make the files by itself."""
    for folder in (tmp_path, tmp_path / "corten"):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.controllers").write_text("cpu memory pids\n")
        (folder / "cgroup.subtree_control").write_text("")
    return tmp_path


@pytest.fixture
def writes(monkeypatch, mount):
    """Every write, as (path below the root, value); those to the root's subtree_control that name `cpu` are refused."""
    seen = []

    def write(path: str, value: str) -> None:
        seen.append((os.path.relpath(path, mount), value))
        if path == f"{mount}/cgroup.subtree_control" and "+cpu" in value.split():
            raise OSError(22, "Invalid argument", path)

    monkeypatch.setattr(cgroup_files, "write", write)
    return seen


def test_what_is_handed_down_already_is_not_written_again(mount, writes):
    for folder in (mount, mount / "corten"):
        (folder / "cgroup.subtree_control").write_text("memory pids cpu\n")
    CgroupV2(Layout({}, str(mount)), "/corten/x").create()
    assert writes == []
    assert os.path.isdir(mount / "corten" / "x")


def test_a_controller_that_is_refused_keeps_none_of_the_others_back(mount, writes):
    (mount / "corten" / "cgroup.subtree_control").write_text("pids\n")
    CgroupV2(Layout({}, str(mount)), "/corten/x").create()
    root, below = "cgroup.subtree_control", "corten/cgroup.subtree_control"
    assert writes == [(root, "+cpu +memory +pids"), (root, "+cpu"), (root, "+memory"), (root, "+pids"), (below, "+cpu +memory")]


def test_a_limit_without_its_controller_names_who_keeps_it_back(mount, writes):
    group = CgroupV2(Layout({}, str(mount)), "/corten/x")
    group.create()
    (mount / "corten" / "cgroup.controllers").write_text("memory pids\n")
    (mount / "corten" / "x" / "cgroup.controllers").write_text("memory pids\n")
    with pytest.raises(OSError, match=f"the cpu controller is not enabled in {mount}/cgroup.subtree_control"):
        group.apply([Setting("cpu", "cpu.max", "1 2")], None)
    with pytest.raises(OSError, match="this kernel has no io controller"):
        group.apply([Setting("io", "io.max", "8:0 rbps=1")], None)
    with pytest.raises(OSError, match="this kernel does not have it"):
        group.apply([Setting("memory", "memory.new", "1")], None)
    writes.clear()
    group.apply([Setting("memory", "memory.swap.max", "0", optional=True)], None)
    assert writes == []


def test_a_process_beside_one_that_divided_its_group_goes_where_that_is(mount, writes, monkeypatch):
    group = CgroupV2(Layout({}, str(mount)), "/corten/x")
    group.create()
    (mount / "corten" / "x" / "init.scope").mkdir()
    control = mount / "corten" / "x" / "cgroup.subtree_control"
    real = cgroup_files.read
    monkeypatch.setattr(cgroup_files, "read", lambda path: "0::/corten/x/init.scope\n" if path == "/proc/7/cgroup" else real(path))

    def folder(beside: int) -> str:
        fd = group.descriptor(beside)
        try:
            return os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), mount)
        finally:
            os.close(fd)

    assert folder(7) == "corten/x"
    control.write_text("memory\n")
    assert folder(7) == "corten/x/init.scope"
    assert folder(0) == "corten/x"


class Files:
    """A group whose files are given."""

    def __init__(self, **files: str) -> None:
        self._files = files

    def read(self, controller: str, file: str) -> str:
        return self._files.get(file.replace(".", "_"), "")


def test_stats_of_version_2():
    group = Files(
        io_stat="254:0 rbytes=4096 wbytes=1 rios=1 wios=2 dbytes=0 dios=0\n8:16 \n", memory_current="10\n", memory_max="max\n",
        memory_events="low 0\noom 2\noom_kill 3\n", memory_stat="anon 5\nfile 6\n", pids_current="1\n", pids_max="max\n",
        cpu_stat="usage_usec 7\nuser_usec 4\nsystem_usec 3\nnr_periods 2\nnr_throttled 1\nthrottled_usec 9\n",
    )  # fmt: skip
    shown = stats.sample(group, os.getpid(), unified=True, own_network=False)
    assert shown["blkio_stats"]["io_service_bytes_recursive"] == [
        {"major": 254, "minor": 0, "op": "read", "value": 4096}, {"major": 254, "minor": 0, "op": "write", "value": 1},
    ]  # fmt: skip
    assert shown["blkio_stats"]["io_serviced_recursive"] is None
    assert (shown["memory_stats"]["usage"], shown["memory_stats"]["failcnt"], shown["memory_stats"]["stats"]) == (10, 2, {"anon": 5, "file": 6})
    assert shown["memory_stats"]["limit"] > 1 << 20
    assert shown["cpu_stats"]["cpu_usage"] == {"total_usage": 7000, "usage_in_kernelmode": 3000, "usage_in_usermode": 4000}
    assert shown["cpu_stats"]["throttling_data"] == {"periods": 2, "throttled_periods": 1, "throttled_time": 9000}
    assert shown["pids_stats"] == {"current": 1}
