"""Limits that a client asks for: which values and combinations Docker refuses, and what this kernel cannot do. Pure.

Source: Docker Engine 28.5 (moby daemon/daemon_unix.go, verifyPlatformContainerResources): texts, order, warnings.
"""

from __future__ import annotations

from msgspec.structs import replace

from corten.errors import Invalid
from corten.linux.cgroup_abilities import Abilities
from corten.spec.engine import HostConfig
from corten.spec.rlimits import RLIMITS

_MIN_MEMORY = 6 << 20
_NO_SWAP = "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
_NO_SWAPPINESS = "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded."
_NO_WEIGHT = "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
_NO_WEIGHT_DEVICE = "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded."
_NO_OOM_CONTROL = "Your kernel does not support OomKillDisable. OomKillDisable discarded."
_ENDLESS_OOM = (
    "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources."
)


def check_resources(host: HostConfig, *, update: bool = False) -> None:
    """Raises Invalid. An update may set the swap limit alone: the memory limit is there already."""
    _check_memory(host, update=update)
    _check_cpu(host)
    _check_block_io(host)
    _check_ulimits(host)


def _check_memory(host: HostConfig, *, update: bool) -> None:
    if host.memory and host.memory < _MIN_MEMORY:
        raise Invalid("Minimum memory limit allowed is 6MB")
    if host.memory > 0 and 0 < host.memory_swap < host.memory:
        raise Invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory == 0 and host.memory_swap > 0 and not update:
        raise Invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        raise Invalid(f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100")
    if 0 < host.memory_reservation < _MIN_MEMORY:
        raise Invalid("Minimum memory reservation allowed is 6MB")
    if 0 < host.memory < host.memory_reservation:
        raise Invalid("Minimum memory limit can not be less than memory reservation limit, see usage")


def _check_cpu(host: HostConfig) -> None:
    if host.nano_cpus > 0 and host.cpu_period > 0:
        raise Invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host.nano_cpus > 0 and host.cpu_quota > 0:
        raise Invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise Invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if host.cpu_shares < 0:
        raise Invalid(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if 0 < host.cpu_realtime_period < host.cpu_realtime_runtime:
        raise Invalid("cpu real-time runtime cannot be higher than cpu real-time period")
    if 0 < host.cpu_quota < 1000:
        raise Invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")


def _check_block_io(host: HostConfig) -> None:
    if host.io_maximum_bandwidth:
        raise Invalid("invalid option: QoS maximum bandwidth configuration is not supported on linux")
    if host.io_maximum_iops:
        raise Invalid("invalid option: QoS maximum IOPs configuration is not supported on linux")
    for key in ("blkio_device_read_bps", "blkio_device_write_bps", "blkio_device_read_iops", "blkio_device_write_iops"):
        for device in getattr(host, key) or []:
            if not 0 <= device.rate < 1 << 64:
                raise Invalid(f"invalid rate {device.rate} for device {device.path}: want a number that is not negative")
    for weighed in host.blkio_weight_device or []:
        if not 10 <= weighed.weight <= 1000:
            raise Invalid(f"invalid weight {weighed.weight} for device {weighed.path}: range is from 10 to 1000")


def _check_ulimits(host: HostConfig) -> None:
    for limit in host.ulimits or []:
        if f"RLIMIT_{limit.name.upper()}" not in RLIMITS:
            raise Invalid(f"wrong rlimit value: RLIMIT_{limit.name.upper()}")
        if limit.hard >= 0 and (limit.soft < 0 or limit.soft > limit.hard):
            raise Invalid(f"ulimit {limit.name}: soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}")


def fit(host: HostConfig, able: Abilities) -> tuple[HostConfig, list[str]]:
    """What this kernel can do of it, and a warning for each limit that is discarded. Raises Invalid for CPUs that are not there."""
    changes: dict[str, object] = {}
    warnings: list[str] = []
    if host.memory > 0 and host.memory_swap != -1 and not able.swap_limit:
        changes["memory_swap"] = -1
        warnings.append(_NO_SWAP)
    if host.memory_swappiness not in (None, -1) and not able.swappiness:
        changes["memory_swappiness"] = None
        warnings.append(_NO_SWAPPINESS)
    if host.oom_kill_disable and not able.oom_control:
        changes["oom_kill_disable"] = None
        warnings.append(_NO_OOM_CONTROL)
    elif host.oom_kill_disable and not host.memory:
        warnings.append(_ENDLESS_OOM)
    if host.nano_cpus and not 0 < host.nano_cpus <= able.cpu_count * 1_000_000_000:
        raise Invalid(f"range of CPUs is from 0.01 to {able.cpu_count}.00, as there are only {able.cpu_count} CPUs available")
    _check_set(host.cpuset_cpus, able.cpus, "cpuset cpus", "CPUs")
    _check_set(host.cpuset_mems, able.memory_nodes, "cpuset mems", "memory nodes")
    if host.blkio_weight and not able.block_weight:
        changes["blkio_weight"] = 0
        warnings.append(_NO_WEIGHT)
    elif host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise Invalid("Range of blkio weight is from 10 to 1000")
    if host.cpu_percent > 0:
        changes["cpu_percent"] = 0
        warnings.append("linux does not support CPU percent. Percent discarded.")
    if (host.cpu_realtime_period or host.cpu_realtime_runtime) and not able.realtime:
        raise Invalid("kernel does not support CPU real-time scheduler")
    if host.memory_swappiness == -1:
        changes["memory_swappiness"] = None
    if host.pids_limit is not None and host.pids_limit <= 0:
        changes["pids_limit"] = None
    if host.blkio_weight_device and not able.block_weight:
        changes["blkio_weight_device"] = []
        warnings.append(_NO_WEIGHT_DEVICE)
    return replace(host, **changes), warnings


def _check_set(wanted: str, available: str, key: str, noun: str) -> None:
    if not wanted:
        return
    try:
        missing = parse_set(wanted) - parse_set(available)
    except ValueError:
        raise Invalid(f"Invalid value {wanted} for {key}: invalid format: {wanted}") from None
    if missing:
        raise Invalid(f"Requested {noun} are not available - requested {wanted}, available: {available}")


def parse_set(text: str) -> set[int]:
    """`0-2,7` as the kernel writes lists (cpuset(7)). Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        first, last = _number(low), _number(high) if dash else _number(low)
        if last < first or last > _LARGEST:
            raise ValueError(text)
        found.update(range(first, last + 1))
    return found


_LARGEST = 8192  # moby's bound, so that no list is endless


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(_LARGEST)):
        raise ValueError(text)
    return int(text)
