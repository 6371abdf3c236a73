"""OCI resources -> the writes that make them so, for each cgroup version. Pure: printable, comparable.

Source: OCI runtime-spec config-linux.md "Control groups"; conversions between versions as runc and crun do them
(cpu.weight from shares, io.weight from blkio weight).
"""

from __future__ import annotations

from corten.linux.cgroup import Setting
from corten.spec.runtime import BlockIO, Resources, ThrottleDevice

_THROTTLES = (
    ("throttle_read_bps_device", "blkio.throttle.read_bps_device", "rbps"),
    ("throttle_write_bps_device", "blkio.throttle.write_bps_device", "wbps"),
    ("throttle_read_iops_device", "blkio.throttle.read_iops_device", "riops"),
    ("throttle_write_iops_device", "blkio.throttle.write_iops_device", "wiops"),
)


def settings_for(resources: Resources, *, unified: bool) -> list[Setting]:
    return _v2(resources) if unified else _v1(resources)


def _v1_memory(resources: Resources) -> list[Setting]:
    memory = resources.memory
    if not memory:
        return []
    found: list[Setting] = []
    limit = [] if memory.limit is None else [Setting("memory", "memory.limit_in_bytes", str(memory.limit))]
    swap = (
        []
        if memory.swap is None
        else [Setting("memory", "memory.memsw.limit_in_bytes", str(memory.swap), optional=memory.swap <= 0)]
    )
    # The kernel keeps limit <= limit + swap at every moment: lifting writes the larger one first.
    found += swap + limit if memory.limit == -1 else limit + swap
    if memory.reservation is not None:
        found.append(Setting("memory", "memory.soft_limit_in_bytes", str(memory.reservation)))
    if memory.swappiness is not None:
        found.append(Setting("memory", "memory.swappiness", str(memory.swappiness)))
    if memory.disable_o_o_m_killer:
        found.append(Setting("memory", "memory.oom_control", "1"))
    return found


def _v1_cpu(resources: Resources) -> list[Setting]:
    cpu = resources.cpu
    if not cpu:
        return []
    rows = (
        ("cpu", "cpu.shares", cpu.shares),
        ("cpu", "cpu.cfs_period_us", cpu.period),
        ("cpu", "cpu.cfs_quota_us", cpu.quota),
        ("cpu", "cpu.rt_period_us", cpu.realtime_period),
        ("cpu", "cpu.rt_runtime_us", cpu.realtime_runtime),
        ("cpuset", "cpuset.cpus", cpu.cpus or None),
        ("cpuset", "cpuset.mems", cpu.mems or None),
    )
    return [Setting(controller, file, str(value)) for controller, file, value in rows if value is not None]


def _throttle_lines(devices: list[ThrottleDevice] | None) -> list[tuple[str, int]]:
    return [(f"{device.major}:{device.minor}", device.rate) for device in devices or []]


def _v1_block_io(block_io: BlockIO | None) -> list[Setting]:
    if not block_io:
        return []
    found: list[Setting] = []
    if block_io.weight is not None:
        # Only the BFQ scheduler weighs; without it the kernel has neither file and the weight has no meaning.
        found.append(Setting("blkio", "blkio.weight", str(block_io.weight), optional=True))
        found.append(Setting("blkio", "blkio.bfq.weight", str(block_io.weight), optional=True))
    found += [
        Setting("blkio", file, f"{device.major}:{device.minor} {device.weight}", optional=True)
        for device in block_io.weight_device or []
        for file in ("blkio.weight_device", "blkio.bfq.weight_device")
    ]
    for attribute, file, _ in _THROTTLES:
        for device, rate in _throttle_lines(getattr(block_io, attribute)):
            found.append(Setting("blkio", file, f"{device} {rate}"))
    return found


def _v1(resources: Resources) -> list[Setting]:
    found = _v1_memory(resources) + _v1_cpu(resources) + _v1_block_io(resources.block_io)
    if resources.pids and resources.pids.limit:
        found.append(Setting("pids", "pids.max", "max" if resources.pids.limit < 0 else str(resources.pids.limit)))
    return found


def cpu_weight(shares: int) -> int:
    """cpu.shares (2..262144) on the scale of cpu.weight (1..10000)."""
    return 1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142


def io_weight(weight: int) -> int:
    """blkio.weight (10..1000) on the scale of io.weight (1..10000)."""
    return 1 + (weight - 10) * 9999 // 990


def _limit(value: int) -> str:
    return "max" if value < 0 else str(value)


def _v2_memory(resources: Resources) -> list[Setting]:
    memory = resources.memory
    if not memory:
        return []
    found: list[Setting] = []
    if memory.swap is not None:
        # Version 2 limits swap alone, the OCI value is memory plus swap.
        swap = memory.swap if memory.swap < 0 else memory.swap - max(memory.limit or 0, 0)
        found.append(Setting("memory", "memory.swap.max", _limit(swap), optional=True))
    if memory.limit is not None:
        found.append(Setting("memory", "memory.max", _limit(memory.limit)))
    if memory.reservation is not None:
        found.append(Setting("memory", "memory.low", _limit(memory.reservation)))
    return found


def _v2(resources: Resources) -> list[Setting]:
    found = _v2_memory(resources)
    cpu, block_io = resources.cpu, resources.block_io
    if cpu:
        if cpu.shares:
            found.append(Setting("cpu", "cpu.weight", str(cpu_weight(cpu.shares))))
        if cpu.quota or cpu.period:
            quota = "max" if cpu.quota is None or cpu.quota <= 0 else str(cpu.quota)
            found.append(Setting("cpu", "cpu.max", f"{quota} {cpu.period or 100000}"))
        if cpu.cpus:
            found.append(Setting("cpuset", "cpuset.cpus", cpu.cpus))
        if cpu.mems:
            found.append(Setting("cpuset", "cpuset.mems", cpu.mems))
    if resources.pids and resources.pids.limit:
        found.append(Setting("pids", "pids.max", _limit(resources.pids.limit)))
    if block_io:
        if block_io.weight:
            found.append(Setting("io", "io.bfq.weight", str(block_io.weight), optional=True))
            found.append(Setting("io", "io.weight", f"default {io_weight(block_io.weight)}", optional=True))
        for weighted in block_io.weight_device or []:
            if weighted.weight:
                number = f"{weighted.major}:{weighted.minor}"
                found.append(Setting("io", "io.bfq.weight", f"{number} {weighted.weight}", optional=True))
                found.append(Setting("io", "io.weight", f"{number} {io_weight(weighted.weight)}", optional=True))
        for attribute, _, key in _THROTTLES:
            for device, rate in _throttle_lines(getattr(block_io, attribute)):
                found.append(Setting("io", "io.max", f"{device} {key}={rate}"))
    found += [Setting(name.partition(".")[0], name, value) for name, value in (resources.unified or {}).items()]
    return found
