"""Limits of version 2 through the whole engine, read from the kernel. Needs a host with version 2 alone: `make test-vm` boots one."""

from __future__ import annotations

import os

import pytest

from corten.linux.cgroup import host_layout
from tests.engines import RunningEngine


@pytest.fixture(scope="module", autouse=True)
def version_2():
    if not host_layout().unified:
        pytest.skip("needs a host with cgroup version 2 alone")


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    engine.remove_all()


def group_of(engine, container: str) -> str:
    with open(f"/proc/{pid_of(engine, container)}/cgroup", encoding="utf-8") as file:
        return host_layout().v2 + file.read().strip().removeprefix("0::")


def pid_of(engine, container: str) -> int:
    return engine.client.get(f"/containers/{container}/json")["State"]["Pid"]


def read(*path: str) -> str:
    with open("/".join(path), encoding="utf-8") as file:
        return file.read().strip()


def test_every_controller_reaches_the_container(engine):
    group = group_of(engine, engine.run("sleep", "60"))
    assert group == f"{host_layout().v2}{engine.cgroup_parent}/{os.path.basename(group)}"
    assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(read(group, "cgroup.controllers").split())


def test_limits_are_what_was_asked_for(engine):
    asked = {
        "Memory": 64 << 20, "MemorySwap": 96 << 20, "MemoryReservation": 32 << 20, "NanoCpus": 500_000_000, "CpuShares": 512,
        "CpusetCpus": "0", "CpusetMems": "0", "PidsLimit": 20,
    }  # fmt: skip
    group = group_of(engine, engine.run("sleep", "60", **asked))
    shown = {name: read(group, name) for name in ("memory.max", "memory.low", "cpu.max", "cpu.weight", "cpuset.cpus", "cpuset.mems", "pids.max")}
    assert shown == {
        "memory.max": str(64 << 20), "memory.low": str(32 << 20), "cpu.max": "50000 100000", "cpu.weight": "20",
        "cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "20",
    }  # fmt: skip
    if os.path.exists(f"{group}/memory.swap.max"):
        assert read(group, "memory.swap.max") == str(32 << 20)


def test_io_is_throttled_by_device(engine):
    disk = next(name for name in os.listdir("/sys/block") if name.startswith(("vd", "sd", "nvme")))
    device, number = f"/dev/{disk}", read("/sys/block", disk, "dev")
    limits = {key: [{"Path": device, "Rate": rate}] for key, rate in
              (("BlkioDeviceReadBps", 1 << 20), ("BlkioDeviceWriteBps", 2 << 20), ("BlkioDeviceReadIOps", 300), ("BlkioDeviceWriteIOps", 400))}  # fmt: skip
    group = group_of(engine, engine.run("sleep", "60", **limits))
    assert read(group, "io.max") == f"{number} rbps=1048576 wbps=2097152 riops=300 wiops=400"


def test_the_container_sees_its_own_group_as_the_root(engine):
    code, output = engine.output("sh", "-c", "cat /proc/self/cgroup; cat /sys/fs/cgroup/pids.max; ls /sys/fs/cgroup | grep -c cgroup.procs; mkdir /sys/fs/cgroup/x", PidsLimit=33)
    lines = output.splitlines()
    assert lines[:3] == ["0::/", "33", "1"]
    assert code == 1
    assert "Read-only file system" in lines[3]


def test_a_divided_group_takes_execs(engine, docker_cli):
    """What systemd does in a container: move itself down and hand controllers on. The group then takes no process itself."""
    script = "mkdir /sys/fs/cgroup/init && echo 1 > /sys/fs/cgroup/init/cgroup.procs && echo +pids > /sys/fs/cgroup/cgroup.subtree_control && echo ready && exec sleep 60"
    container = engine.run("sh", "-c", script, Privileged=True)
    with engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1, "stderr": 1, "follow": 1}) as response:
        assert b"ready" in response.readline()
    assert engine.docker(docker_cli, "exec", container, "cat", "/proc/self/cgroup").stdout == "0::/init\n"
    engine.client.post(f"/containers/{container}/pause")
    assert read(group_of(engine, container), "..", "cgroup.events").splitlines()[-1] == "frozen 1"
    engine.client.post(f"/containers/{container}/unpause")


def test_devices_are_a_program_in_the_kernel(engine):
    code, output = engine.output("sh", "-c", "mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem; echo x > /dev/null && echo null", CapAdd=["SYS_RAWIO"])
    assert code == 0
    assert "Operation not permitted" in output
    assert output.endswith("null\n")
    code, _ = engine.output("sh", "-c", "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg", DeviceCgroupRules=["c 1:11 r"], CapAdd=["SYSLOG"])
    assert code == 0


def test_stats_have_what_version_2_counts(engine):
    container = engine.run("sh", "-c", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; sleep 60", Memory=64 << 20, PidsLimit=30)
    shown = engine.client.get(f"/containers/{container}/stats", stream="false", **{"one-shot": "true"})
    assert shown["memory_stats"]["limit"] == 64 << 20
    assert shown["memory_stats"]["usage"] > 0
    assert shown["memory_stats"]["stats"]["anon"] > 0
    assert shown["pids_stats"] == {"current": 1, "limit": 30}
    assert shown["cpu_stats"]["cpu_usage"]["total_usage"] > 0


def test_the_parent_may_be_a_slice_of_systemd(engine, docker_cli):
    parent = f"/system.slice/cortest-{os.getpid()}"
    container = engine.run("sleep", "60", CgroupParent=parent, Memory=32 << 20)
    group = group_of(engine, container)
    assert group == f"{host_layout().v2}{parent}/{container}"
    assert read(group, "memory.max") == str(32 << 20)
    engine.remove(container)
    os.rmdir(os.path.dirname(group))


def test_an_engine_leaves_no_group(assets):
    engine = RunningEngine("g")
    try:
        engine.load(f"{assets}/images/busybox.tar")
        engine.run("sleep", "60", Memory=32 << 20)
        folder = host_layout().v2 + engine.cgroup_parent
        assert os.path.isdir(folder)
    finally:
        engine.stop()
    assert not os.path.exists(folder)
