"""Record + mounts + network -> the OCI config of a container. Pure: every decision of policy is here and printable.

Source: Docker Engine 28.5's defaults (moby daemon/oci_linux.go, oci/defaults.go, oci/caps).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from corten.engine.devices import make_devices, make_rules
from corten.engine.groups import group_path
from corten.engine.mounts import in_order
from corten.engine.records import ContainerRecord
from corten.engine.security_options import no_new_privileges, seccomp_profile, wanted_capabilities, writable_cgroups
from corten.runtime.sandbox import GROUPS_ANNOTATION, REAPER_ANNOTATION, USER_ANNOTATION
from corten.spec import runtime as oci
from corten.spec.engine import HostConfig, ThrottleDevice
from corten.spec.runtime import Mount
from corten.spec.seccomp_profile import parse_profile, translate
from corten.spec.security import MASKED_PATHS, READONLY_PATHS, default_seccomp_json

DEFAULT_SHM = 64 << 20
DEFAULT_ENV = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT_PATH = "/sbin/docker-init"
_PERIOD = 100_000


@dataclass(frozen=True)
class HostFacts:
    """What the host is like, so that this module need not look."""

    machine: str
    kernel: str  # its release
    capabilities: tuple[str, ...]
    cgroup_unified: bool
    devices: Mapping[str, os.stat_result]  # of the paths that the record names
    apparmor_profile: str = ""  # that this container's processes run under; empty where there is no AppArmor


@dataclass(frozen=True)
class Surroundings:
    """What other services have prepared: file paths, the namespaces of other containers, the init program."""

    rootfs: str
    files: Mapping[str, str]  # path inside -> path on the host (hosts, hostname, resolv.conf)
    hostname: str
    namespace_of: Callable[[str, str], str]  # ("container:ID", "net") -> /proc/PID/ns/net
    init_program: str
    cgroup_parent: str
    unshare_network: bool
    link_env: Sequence[str] = ()  # what legacy links say of the neighbours
    mounts: Sequence[Mount] = ()  # what client and image ask for, a mount before those inside it


def make_config(record: ContainerRecord, host: HostFacts, around: Surroundings) -> oci.RuntimeConfig:
    """Raises Invalid for values that only the host can judge (unknown capability, device)."""
    settings = record.host_config
    capabilities = wanted_capabilities(settings, host.capabilities)
    annotations = dict(settings.annotations or {})
    annotations[USER_ANNOTATION] = record.config.user
    if settings.group_add:
        annotations[GROUPS_ANNOTATION] = ",".join(settings.group_add)
    if has_init(settings):
        annotations[REAPER_ANNOTATION] = INIT_PATH
    return oci.RuntimeConfig(
        oci_version=oci.WRITTEN_VERSION,
        process=_process(record, capabilities, host.apparmor_profile, around.link_env),
        root=oci.Root(around.rootfs, settings.readonly_rootfs),
        hostname=around.hostname,
        domainname=record.config.domainname,
        mounts=_mounts(record, around),
        annotations=annotations,
        linux=oci.Linux(
            namespaces=_namespaces(settings, around, host),
            cgroups_path=group_path(settings.cgroup_parent or around.cgroup_parent, record.id),
            resources=replace(make_resources(settings, host.devices), devices=make_rules(settings, host.devices)),
            devices=make_devices(settings, host.devices),
            seccomp=_seccomp(settings, capabilities, host),
            sysctl=_sysctls(settings, around),
            masked_paths=_paths(settings, settings.masked_paths, MASKED_PATHS),
            readonly_paths=_paths(settings, settings.readonly_paths, READONLY_PATHS),
        ),
    )


def has_init(settings: HostConfig) -> bool:
    """In somebody else's pid namespace there is an init already."""
    return bool(settings.init) and not settings.pid_mode


def _sysctls(settings: HostConfig, around: Surroundings) -> dict[str, str] | None:
    """Docker's defaults for a network namespace of its own: nothing below is worth a capability there."""
    defaults = {"net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.ip_unprivileged_port_start": "0"} if around.unshare_network else {}
    asked = {key.replace("/", "."): value for key, value in (settings.sysctls or {}).items()}
    return defaults | asked or None


def _paths(settings: HostConfig, asked: list[str] | None, default: tuple[str, ...]) -> list[str]:
    if asked is not None:
        return asked
    return [] if settings.privileged else list(default)


def environment(record: ContainerRecord, link_env: Sequence[str] = ()) -> list[str]:
    env = list(record.config.env or [])
    names = {entry.partition("=")[0] for entry in env}
    first = [] if "PATH" in names else [DEFAULT_ENV]
    first.append(f"HOSTNAME={record.config.hostname}")
    if record.config.tty and "TERM" not in names:
        first.append("TERM=xterm")
    entries = {entry.partition("=")[0]: entry for entry in (*first, *link_env, *env) if "=" in entry}
    return list(entries.values())


def process_capabilities(names: list[str]) -> oci.Capabilities:
    return oci.Capabilities(bounding=names, effective=names, permitted=names)


def _process(record: ContainerRecord, capabilities: list[str], apparmor_profile: str, link_env: Sequence[str]) -> oci.Process:
    settings = record.host_config
    height, width = [*settings.console_size, 0, 0][:2]
    return oci.Process(
        args=record.argv,
        cwd=record.config.working_dir or "/",
        terminal=record.config.tty,
        console_size=oci.Box(height, width) if record.config.tty and height and width else None,
        env=environment(record, link_env),
        capabilities=process_capabilities(capabilities),
        rlimits=[oci.Rlimit(f"RLIMIT_{limit.name.upper()}", limit.soft, limit.hard) for limit in settings.ulimits or []] or None,
        no_new_privileges=no_new_privileges(settings),
        oom_score_adj=settings.oom_score_adj or None,
        apparmor_profile=apparmor_profile,
    )


def _namespaces(settings: HostConfig, around: Surroundings, host: HostFacts) -> list[oci.Namespace]:
    found = [oci.Namespace("mount")]
    if around.unshare_network:
        found.append(oci.Namespace("network"))
    elif settings.network_mode.startswith("container:"):
        found.append(oci.Namespace("network", around.namespace_of(settings.network_mode, "net")))
    for kind, name, mode in (("pid", "pid", settings.pid_mode), ("ipc", "ipc", settings.ipc_mode), ("uts", "uts", settings.uts_mode)):
        if mode.startswith("container:"):
            found.append(oci.Namespace(kind, around.namespace_of(mode, name)))
        elif mode != "host":
            found.append(oci.Namespace(kind))
    if cgroupns(settings, host) == "private":
        found.append(oci.Namespace("cgroup"))
    return found


def cgroupns(settings: HostConfig, host: HostFacts) -> str:
    """Docker's default: private on version 2, host on version 1; privileged means host on version 1 too."""
    return settings.cgroupns_mode or ("private" if host.cgroup_unified else "host")


def _mounts(record: ContainerRecord, around: Surroundings) -> list[Mount]:
    settings = record.host_config
    writable = "rw" if settings.privileged else "ro"
    groups = "rw" if writable_cgroups(settings) else "ro"
    rows = [
        Mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
        Mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        Mount("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        Mount("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", writable]),
        Mount("/sys/fs/cgroup", "cgroup", "cgroup", [groups, "nosuid", "noexec", "nodev"]),
        Mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
    ]
    if settings.pid_mode == "host":
        rows[0] = Mount("/proc", "bind", "/proc", ["rbind", "nosuid", "noexec", "nodev"])
    rows += _shared_memory(settings, around)
    files = [Mount(inside, "bind", outside, ["rbind", "rprivate"]) for inside, outside in around.files.items()]
    if has_init(settings):
        files.append(Mount(INIT_PATH, "bind", around.init_program, ["bind", "ro"]))
    inside = [mount for mount in files if not _replaced(mount.destination, around.mounts)]
    return [row for row in rows if not _replaced(row.destination, around.mounts)] + in_order([*around.mounts, *inside])


def _replaced(destination: str, asked: Sequence[Mount]) -> bool:
    """What the client mounts takes the place of a default; a /dev of its own takes all that is below it."""
    return any(mount.destination == destination or (mount.destination == "/dev" and destination.startswith("/dev/")) for mount in asked)


def _shared_memory(settings: HostConfig, around: Surroundings) -> list[Mount]:
    if settings.ipc_mode == "host":
        return [Mount("/dev/shm", "bind", "/dev/shm", ["rbind"])]
    if settings.ipc_mode.startswith("container:"):
        pid_root = around.namespace_of(settings.ipc_mode, "ipc").rsplit("/ns/", 1)[0]
        return [Mount("/dev/shm", "bind", f"{pid_root}/root/dev/shm", ["rbind"])]
    if settings.ipc_mode == "none":
        return []
    size = settings.shm_size or DEFAULT_SHM
    return [Mount("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", f"size={size}"])]


def _throttles(throttled: list[ThrottleDevice] | None, devices: Mapping[str, os.stat_result]) -> list[oci.ThrottleDevice] | None:
    found = [
        oci.ThrottleDevice(os.major(devices[device.path].st_rdev), os.minor(devices[device.path].st_rdev), device.rate)
        for device in throttled or []
    ]
    return found or None


def make_resources(settings: HostConfig, devices: Mapping[str, os.stat_result]) -> oci.Resources:
    """The limits alone; `devices` has the status of every device that they name."""
    swap = settings.memory_swap
    if settings.memory and not swap:
        swap = settings.memory * 2  # Docker: as much swap again
    memory = oci.Memory(
        limit=settings.memory or None,
        reservation=settings.memory_reservation or None,
        swap=swap or None,
        swappiness=None if settings.memory_swappiness in (None, -1) else settings.memory_swappiness,
        disable_o_o_m_killer=settings.oom_kill_disable or None,
    )
    quota = settings.nano_cpus * _PERIOD // 1_000_000_000 if settings.nano_cpus else settings.cpu_quota
    cpu = oci.Cpu(
        shares=settings.cpu_shares or None,
        quota=quota or None,
        period=(_PERIOD if settings.nano_cpus else settings.cpu_period) or None,
        realtime_runtime=settings.cpu_realtime_runtime or None,
        realtime_period=settings.cpu_realtime_period or None,
        cpus=settings.cpuset_cpus,
        mems=settings.cpuset_mems,
    )
    weights = [
        oci.WeightDevice(os.major(devices[device.path].st_rdev), os.minor(devices[device.path].st_rdev), device.weight)
        for device in settings.blkio_weight_device or []
    ]
    block_io = oci.BlockIO(
        weight=settings.blkio_weight or None,
        weight_device=weights or None,
        throttle_read_bps_device=_throttles(settings.blkio_device_read_bps, devices),
        throttle_write_bps_device=_throttles(settings.blkio_device_write_bps, devices),
        throttle_read_iops_device=_throttles(settings.blkio_device_read_iops, devices),
        throttle_write_iops_device=_throttles(settings.blkio_device_write_iops, devices),
    )
    pids = oci.Pids(settings.pids_limit) if settings.pids_limit else None
    return oci.Resources(memory=memory, cpu=cpu, block_io=block_io, pids=pids)


def _seccomp(settings: HostConfig, capabilities: list[str], host: HostFacts) -> msgspec.Raw:
    asked = seccomp_profile(settings)
    if asked == "unconfined" or (settings.privileged and not asked):
        return oci.NO_SECCOMP
    if asked:
        return msgspec.Raw(msgspec.json.encode(translate(parse_profile(asked), capabilities, host.machine, host.kernel)))
    return msgspec.Raw(default_seccomp_json(frozenset(capabilities), host.machine))
