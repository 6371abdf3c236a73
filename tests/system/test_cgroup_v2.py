"""The version 2 code on a real cgroup2 mount: on a hybrid host it has few controllers, but devices, freezing and killing work."""

from __future__ import annotations

import contextlib
import os
import threading
import time

import pytest

from corten.linux.cgroup import Layout, host_layout
from corten.linux.cgroup_v2 import CgroupV2
from corten.spec.runtime import DeviceRule


@pytest.fixture
def group():
    mount = host_layout().v2
    if not mount:
        pytest.skip("this host has no cgroup2 mount")
    control = f"{mount}/cgroup.subtree_control"
    with open(control, encoding="utf-8") as file:
        before = set(file.read().split())
    made = CgroupV2(Layout({}, mount), f"/cortest-v2-{os.getpid()}")
    made.create()
    yield made
    made.kill()
    made.remove()
    made.remove()
    with open(control, encoding="utf-8") as file:
        added = set(file.read().split()) - before
    for name in added:
        with contextlib.suppress(OSError), open(control, "w", encoding="utf-8") as file:
            file.write(f"-{name}")


def in_group(group: CgroupV2, work) -> int:
    """Fork, enter, do; the exit code."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            group.enter()
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def can_open(path: str, flags: int) -> bool:
    try:
        os.close(os.open(path, flags))
    except PermissionError:
        return False
    return True


def test_device_program_is_loaded_and_decides(group):
    rules = [DeviceRule(False, "rwm"), DeviceRule(True, "r", "c", 1, 3), DeviceRule(True, "rwm", "c", 1, 5)]
    group.apply([], rules)

    def probe() -> int:
        answers = (can_open("/dev/null", os.O_RDONLY), can_open("/dev/null", os.O_WRONLY), can_open("/dev/zero", os.O_RDWR), can_open("/dev/full", os.O_RDONLY))
        return sum(1 << place for place, answer in enumerate(answers) if answer)

    assert in_group(group, probe) == 0b0101
    assert can_open("/dev/full", os.O_RDONLY)  # nothing outside is touched


def test_freeze_kill_and_remove(group):
    pid = os.fork()
    if pid == 0:
        group.enter()
        while True:
            time.sleep(0.01)
    end = time.monotonic() + 5
    while group.pids() != [pid]:
        assert time.monotonic() < end
        time.sleep(0.01)
    group.freeze(True)
    assert "frozen 1" in group.read("", "cgroup.events")
    group.freeze(False)
    assert "frozen 0" in group.read("", "cgroup.events")
    reaper = threading.Thread(target=os.waitpid, args=(pid, 0))
    reaper.start()
    group.kill()
    reaper.join()
    assert group.pids() == []
