"""What the control groups of this kernel can limit: files looked for once, no group touched.

Sources: Documentation/admin-guide/cgroup-v1 (memory, blkio, cpuset) and cgroup-v2.rst; sysfs cpu/online, node/online.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from corten.linux.cgroup import Layout


@dataclass(frozen=True)
class Abilities:
    """`cpus` and `memory_nodes` are kernel lists (`0-3,7`) of what is online."""

    cpus: str
    memory_nodes: str
    cpu_count: int
    swap_limit: bool
    swappiness: bool
    oom_control: bool
    block_weight: bool
    realtime: bool


def abilities(layout: Layout) -> Abilities:
    memory, block = layout.v1.get("memory", ""), layout.v1.get("blkio", "")
    return Abilities(
        cpus=_online("cpu", "0"), memory_nodes=_online("node", "0"), cpu_count=os.cpu_count() or 1,
        swap_limit=layout.unified or os.path.exists(f"{memory}/memory.memsw.limit_in_bytes"),
        swappiness=bool(memory) and os.path.exists(f"{memory}/memory.swappiness"),
        oom_control=bool(memory) and os.path.exists(f"{memory}/memory.oom_control"),
        block_weight=_has(layout.v2, "io.weight", "io.bfq.weight") if layout.unified else _has(block, "blkio.weight", "blkio.bfq.weight"),
        realtime=os.path.exists(f"{layout.v1.get('cpu', '')}/cpu.rt_period_us"),
    )  # fmt: skip


def _online(noun: str, fallback: str) -> str:
    with suppress(OSError), open(f"/sys/devices/system/{noun}/online", encoding="utf-8") as file:
        return file.read().strip()
    return fallback  # a kernel without NUMA has one node and no list of them


def _has(mount: str, *names: str) -> bool:
    """Some files are in every group but the root."""
    if not mount:
        return False
    folders = [mount, *(entry.path for entry in os.scandir(mount) if entry.is_dir())]
    return any(os.path.exists(f"{folder}/{name}") for folder in folders[:16] for name in names)
