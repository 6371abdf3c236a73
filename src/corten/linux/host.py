"""What this machine is and can do, read from the kernel's files. No policy, nothing kept.

Sources: proc(5), cgroups(7), os-release(5).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from corten.linux.cgroup import host_layout

# Docker names these after their common magic number.
_FILESYSTEMS = {"ext2": "extfs", "ext3": "extfs", "ext4": "extfs"}
_V1_FILES = {
    "memory_limit": ("memory", "memory.limit_in_bytes"), "swap_limit": ("memory", "memory.memsw.limit_in_bytes"),
    "kernel_memory_tcp": ("memory", "memory.kmem.tcp.limit_in_bytes"), "oom_kill_disable": ("memory", "memory.oom_control"),
    "cpu_quota": ("cpu", "cpu.cfs_quota_us"), "cpu_shares": ("cpu", "cpu.shares"), "cpuset": ("cpuset", "cpuset.cpus"),
}  # fmt: skip


@dataclass(frozen=True)
class CgroupAbilities:
    """What can be limited here; `version` is 1 or 2."""

    version: int
    memory_limit: bool
    swap_limit: bool
    kernel_memory_tcp: bool
    oom_kill_disable: bool
    cpu_quota: bool
    cpu_shares: bool
    cpuset: bool
    pids_limit: bool


def cgroup_abilities() -> CgroupAbilities:
    layout = host_layout()
    if layout.unified:
        there = read_text(f"{layout.v2}/cgroup.controllers").split()
        memory, cpu = "memory" in there, "cpu" in there
        return CgroupAbilities(2, memory, memory, False, False, cpu, cpu, "cpuset" in there, "pids" in there)
    found = {
        name: controller in layout.v1 and os.path.exists(f"{layout.v1[controller]}/{file}") for name, (controller, file) in _V1_FILES.items()
    }
    return CgroupAbilities(1, **found, pids_limit="pids" in layout.v1)


def read_text(path: str) -> str:
    """The content without space around it; empty if the file is not there or says nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def os_release() -> dict[str, str]:
    """os-release(5)."""
    rows = (line.partition("=") for line in (read_text("/etc/os-release") or read_text("/usr/lib/os-release")).splitlines() if "=" in line)
    return {key: value.strip("\"'") for key, _, value in rows}


def memory_total() -> int:
    """Bytes."""
    return int(read_text("/proc/meminfo").split()[1]) * 1024


def filesystem(path: str) -> str:
    """The type of the file system that holds a path, as Docker names it."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in read_text("/proc/self/mountinfo").splitlines():
        fields = line.split()
        if fields[2] == wanted:
            kind = fields[fields.index("-") + 1]
            return _FILESYSTEMS.get(kind, kind)
    return "<unknown>"


def has_seccomp() -> bool:
    return os.path.exists("/proc/sys/kernel/seccomp/actions_avail")


def forwards_ipv4() -> bool:
    return read_text("/proc/sys/net/ipv4/ip_forward") == "1"
