"""What the control groups of this kernel can limit: files looked for once, no group touched.

Sources: Documentation/admin-guide/cgroup-v1 (memory, blkio, cpuset) and cgroup-v2.rst; sysfs cpu/online, node/online.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields

from corten.linux.cgroup import Layout


@dataclass(frozen=True)
class Abilities:
    """`version` is 1 or 2; `cpus` and `memory_nodes` are kernel lists (`0-3,7`) of what is online; each flag says what can be limited."""

    version: int
    cpus: str
    memory_nodes: str
    cpu_count: int
    memory_limit: bool
    swap_limit: bool
    swappiness: bool
    oom_control: bool
    kernel_memory_tcp: bool
    cpu_quota: bool
    cpu_shares: bool
    cpuset: bool
    realtime: bool
    pids_limit: bool
    block_weight: bool


def abilities(layout: Layout) -> Abilities:
    able = _able_v2(layout.v2) if layout.unified else _able_v1(layout.v1)
    return Abilities(
        2 if layout.unified else 1, _online("cpu", "0"), _online("node", "0"), os.cpu_count() or 1, **{name: name in able for name in FLAGS}
    )


FLAGS = tuple(row.name for row in fields(Abilities) if row.type == "bool")
# flag -> controller and the files of a group any of which it takes; no file: the controller is enough
_V1: dict[str, tuple[str, tuple[str, ...]]] = {
    "memory_limit": ("memory", ("memory.limit_in_bytes",)), "swap_limit": ("memory", ("memory.memsw.limit_in_bytes",)),
    "swappiness": ("memory", ("memory.swappiness",)), "oom_control": ("memory", ("memory.oom_control",)),
    "kernel_memory_tcp": ("memory", ("memory.kmem.tcp.limit_in_bytes",)), "cpu_quota": ("cpu", ("cpu.cfs_quota_us",)),
    "cpu_shares": ("cpu", ("cpu.shares",)), "cpuset": ("cpuset", ("cpuset.cpus",)), "realtime": ("cpu", ("cpu.rt_period_us",)),
    "pids_limit": ("pids", ()), "block_weight": ("blkio", ("blkio.weight", "blkio.bfq.weight")),
}  # fmt: skip
_V2: dict[str, tuple[str, tuple[str, ...]]] = {
    "memory_limit": ("memory", ()), "swap_limit": ("memory", ()), "cpu_quota": ("cpu", ()), "cpu_shares": ("cpu", ()), "cpuset": ("cpuset", ()),
    "pids_limit": ("pids", ()), "block_weight": ("io", ("io.weight", "io.bfq.weight")),
}  # fmt: skip


def _able_v1(mounts: Mapping[str, str]) -> set[str]:
    return {flag for flag, (controller, files) in _V1.items() if controller in mounts and (not files or _has(mounts[controller], *files))}


def _able_v2(mount: str) -> set[str]:
    with open(f"{mount}/cgroup.controllers", encoding="utf-8") as file:
        there = file.read().split()
    return {flag for flag, (controller, files) in _V2.items() if controller in there and (not files or _has(mount, *files))}


def _online(noun: str, fallback: str) -> str:
    with suppress(OSError), open(f"/sys/devices/system/{noun}/online", encoding="utf-8") as file:
        return file.read().strip()
    return fallback  # a kernel without NUMA has one node and no list of them


def _has(mount: str, *names: str) -> bool:
    """Some files are in every group but the root."""
    with os.scandir(mount) as entries:
        folders = [mount, *(entry.path for entry in entries if entry.is_dir())]
    return any(os.path.exists(f"{folder}/{name}") for folder in folders[:16] for name in names)
