"""A container's resource figures from its cgroup and its network namespace, in Docker's shape.

Source: Docker Engine 28.5 `GET /containers/{id}/stats` on cgroup version 1; its documented omissions on version 2.
"""

from __future__ import annotations

import os
from typing import Any

from corten.linux.cgroup import Cgroup
from corten.spec.timestamps import ZERO, now_ns, rfc3339_nano

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_BLKIO = (
    ("io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive"),
    ("io_serviced_recursive", "blkio.throttle.io_serviced_recursive"),
    ("io_queue_recursive", ""), ("io_service_time_recursive", ""), ("io_wait_time_recursive", ""),
    ("io_merged_recursive", ""), ("io_time_recursive", ""), ("sectors_recursive", ""),
)  # fmt: skip


def _table(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].lstrip("-").isdigit()}


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def system_cpu_ns() -> int:
    """CPU time of the whole host, as /proc/stat counts it."""
    with open("/proc/stat", encoding="utf-8") as file:
        return sum(int(value) for value in file.readline().split()[1:8]) * _TICK_NS


def _memory_total() -> int:
    with open("/proc/meminfo", encoding="utf-8") as file:
        return int(file.readline().split()[1]) * 1024


def _cpu(group: Cgroup, *, unified: bool) -> dict[str, Any]:
    if unified:
        table = _table(group.read("cpu", "cpu.stat"))
        usage: dict[str, Any] = {
            "total_usage": table.get("usage_usec", 0) * 1000,
            "usage_in_kernelmode": table.get("system_usec", 0) * 1000,
            "usage_in_usermode": table.get("user_usec", 0) * 1000,
        }
        throttled = table.get("throttled_usec", 0) * 1000
    else:
        modes = _table(group.read("cpuacct", "cpuacct.stat"))
        usage = {
            "total_usage": _number(group.read("cpuacct", "cpuacct.usage")),
            "percpu_usage": [int(word) for word in group.read("cpuacct", "cpuacct.usage_percpu").split()],
            "usage_in_kernelmode": modes.get("system", 0) * _TICK_NS,
            "usage_in_usermode": modes.get("user", 0) * _TICK_NS,
        }
        table = _table(group.read("cpu", "cpu.stat"))
        throttled = table.get("throttled_time", 0)
    return {
        "cpu_usage": usage,
        "system_cpu_usage": system_cpu_ns(),
        "online_cpus": os.cpu_count() or 1,
        "throttling_data": {
            "periods": table.get("nr_periods", 0), "throttled_periods": table.get("nr_throttled", 0), "throttled_time": throttled,
        },
    }  # fmt: skip


def _memory(group: Cgroup, *, unified: bool) -> dict[str, Any]:
    total = _memory_total()
    if unified:
        limit = _number(group.read("memory", "memory.max"))
        found = {
            "usage": _number(group.read("memory", "memory.current")),
            "stats": _table(group.read("memory", "memory.stat")),
            "limit": min(limit, total) if limit else total,
        }
        failures = _table(group.read("memory", "memory.events")).get("oom", 0)
        return {**found, "failcnt": failures} if failures else found
    limit = _number(group.read("memory", "memory.limit_in_bytes"))
    found = {
        "usage": _number(group.read("memory", "memory.usage_in_bytes")),
        "max_usage": _number(group.read("memory", "memory.max_usage_in_bytes")),
        "stats": _table(group.read("memory", "memory.stat")),
        "limit": min(limit, total) if limit else total,
    }
    failures = _number(group.read("memory", "memory.failcnt"))
    return {**found, "failcnt": failures} if failures else found


def _block_io_unified(group: Cgroup) -> dict[str, Any]:
    """`8:0 rbytes=1 wbytes=2 ...` a device; Docker shows the bytes alone on version 2."""
    entries = []
    for line in group.read("io", "io.stat").splitlines():
        device, *pairs = line.split()
        counters = dict(pair.partition("=")[::2] for pair in pairs)
        major, _, minor = device.partition(":")
        for operation, key in (("read", "rbytes"), ("write", "wbytes")):
            if key in counters:
                entries.append({"major": int(major), "minor": int(minor), "op": operation, "value": int(counters[key])})
    return {key: None for key, _ in _BLKIO} | {"io_service_bytes_recursive": entries or None}


def _block_io(group: Cgroup) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, file in _BLKIO:
        rows = (line.split() for line in group.read("blkio", file).splitlines()) if file else ()
        found[key] = [
            {"major": int(row[0].split(":")[0]), "minor": int(row[0].split(":")[1]), "op": row[1].lower(), "value": int(row[2])}
            for row in rows
            if len(row) == 3
        ]
    return found


def network_counters(pid: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        with open(f"/proc/{pid}/net/dev", encoding="utf-8") as file:
            lines = file.read().splitlines()[2:]
    except OSError:
        return found
    for line in lines:
        name, _, values = line.partition(":")
        numbers = [int(value) for value in values.split()]
        if name.strip() != "lo":
            keys = ("bytes", "packets", "errors", "dropped")
            found[name.strip()] = {f"rx_{key}": numbers[at] for at, key in enumerate(keys)} | {
                f"tx_{key}": numbers[8 + at] for at, key in enumerate(keys)
            }
    return found


def sample(group: Cgroup, pid: int, *, unified: bool, own_network: bool) -> dict[str, Any]:
    """One sample; `read` is its time. The caller adds name, id and the one before (`precpu_stats`, `preread`)."""
    pids: dict[str, Any] = {"current": _number(group.read("pids", "pids.current"))}
    limit = group.read("pids", "pids.max").strip()
    if limit.isdigit():
        pids["limit"] = int(limit)
    found: dict[str, Any] = {
        "read": rfc3339_nano(now_ns()),
        "preread": ZERO,
        "pids_stats": pids,
        "blkio_stats": _block_io_unified(group) if unified else _block_io(group),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(group, unified=unified),
        "precpu_stats": EMPTY_CPU,
        "memory_stats": _memory(group, unified=unified),
    }
    if own_network:
        found["networks"] = network_counters(pid)
    return found


EMPTY_CPU: dict[str, Any] = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}


def nothing(name: str, container_id: str) -> dict[str, Any]:
    """What Docker answers for a container that does not run."""
    return {
        "name": f"/{name}", "id": container_id, "read": ZERO, "preread": ZERO, "pids_stats": {},
        "blkio_stats": {key: None for key, _ in _BLKIO}, "num_procs": 0, "storage_stats": {},
        "cpu_stats": EMPTY_CPU, "precpu_stats": EMPTY_CPU, "memory_stats": {},
    }  # fmt: skip
