"""Record + mounts + network -> the OCI config of a container. Pure: every decision of policy is here and printable.

Source: Docker Engine 28.5's defaults (moby daemon/oci_linux.go, oci/defaults.go, oci/caps).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace

from corten.engine.mounts import in_order
from corten.engine.options import security_options
from corten.engine.records import ContainerRecord
from corten.errors import Invalid
from corten.linux.capabilities import NAMES as ALL_CAPABILITIES
from corten.runtime.sandbox import GROUPS_ANNOTATION, REAPER_ANNOTATION, USER_ANNOTATION
from corten.spec import runtime as oci
from corten.spec.engine import HostConfig, ThrottleDevice
from corten.spec.runtime import Mount
from corten.spec.security import DEFAULT_CAPABILITIES, MASKED_PATHS, READONLY_PATHS, default_seccomp_json

DEFAULT_SHM = 64 << 20
DEFAULT_ENV = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT_PATH = "/sbin/docker-init"
_PERIOD = 100_000


@dataclass(frozen=True)
class HostFacts:
    """What the host is like, so that this module need not look."""

    machine: str
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
    if settings.init:
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
            cgroups_path=f"{settings.cgroup_parent or around.cgroup_parent}/{record.id}",
            resources=replace(make_resources(settings, host.devices), devices=_device_rules(settings, host)),
            devices=_devices(settings, host),
            seccomp=_seccomp(settings, capabilities, host),
            sysctl=settings.sysctls,
            masked_paths=_paths(settings, settings.masked_paths, MASKED_PATHS),
            readonly_paths=_paths(settings, settings.readonly_paths, READONLY_PATHS),
        ),
    )


def _paths(settings: HostConfig, asked: list[str] | None, default: tuple[str, ...]) -> list[str]:
    if asked is not None:
        return asked
    open_paths = ("systempaths", "unconfined") in security_options(settings)
    return [] if settings.privileged or open_paths else list(default)


def wanted_capabilities(settings: HostConfig, host: tuple[str, ...]) -> list[str]:
    """Docker's rule: the default set, or all with `privileged` or ALL, minus drops, plus adds."""

    def normal(name: str) -> str:
        upper = name.upper()
        full = upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"
        if full != "ALL" and full not in ALL_CAPABILITIES:
            raise Invalid(f'invalid capability: "{name}"')
        return full

    adds, drops = [normal(name) for name in settings.cap_add or []], [normal(name) for name in settings.cap_drop or []]
    if settings.privileged:
        return list(host)
    base = list(host) if "ALL" in adds else [] if "ALL" in drops else list(DEFAULT_CAPABILITIES)
    kept = [name for name in base if name not in drops]
    return kept + [name for name in adds if name != "ALL" and name not in kept]


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


def no_new_privileges(settings: HostConfig) -> bool:
    return any(key == "no-new-privileges" and value in ("", "true") for key, value in security_options(settings))


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
    rows = [
        Mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
        Mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        Mount("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        Mount("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", writable]),
        Mount("/sys/fs/cgroup", "cgroup", "cgroup", [writable, "nosuid", "noexec", "nodev"]),
        Mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
    ]
    if settings.pid_mode == "host":
        rows[0] = Mount("/proc", "bind", "/proc", ["rbind", "nosuid", "noexec", "nodev"])
    rows += _shared_memory(settings, around)
    files = [Mount(inside, "bind", outside, ["rbind", "rprivate"]) for inside, outside in around.files.items()]
    if settings.init:
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


def _devices(settings: HostConfig, host: HostFacts) -> list[oci.Device]:
    found = [_device(device.path_in_container or device.path_on_host, host.devices[device.path_on_host])
             for device in settings.devices or []]  # fmt: skip
    if settings.privileged:
        found += [_device(path, status) for path, status in host.devices.items()
                  if path not in {device.path_on_host for device in settings.devices or []}]  # fmt: skip
    return found


def _device(path: str, status: os.stat_result) -> oci.Device:
    kind = "b" if stat.S_ISBLK(status.st_mode) else "c"
    return oci.Device(path, kind, os.major(status.st_rdev), os.minor(status.st_rdev), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def _device_rules(settings: HostConfig, host: HostFacts) -> list[oci.DeviceRule]:
    if settings.privileged:
        return [oci.DeviceRule(True, "rwm")]
    rules = [oci.DeviceRule(False, "rwm")]
    for device in settings.devices or []:
        made = _device(device.path_in_container, host.devices[device.path_on_host])
        rules.append(oci.DeviceRule(True, device.cgroup_permissions or "rwm", made.type, made.major, made.minor))
    for text in settings.device_cgroup_rules or []:
        rules.append(parse_device_rule(text))
    return rules


def parse_device_rule(text: str) -> oci.DeviceRule:
    """`c 1:3 rwm`, with `*` for any number. Raises Invalid."""
    words = text.split()
    numbers = words[1].split(":") if len(words) == 3 else []
    valid = len(numbers) == 2 and words[0] in ("a", "b", "c") and set(words[2]) <= set("rwm")
    if not valid or not all(number == "*" or number.isdigit() for number in numbers):
        raise Invalid(f"invalid device cgroup rule format: '{text}'")
    major, minor = (None if number == "*" else int(number) for number in numbers)
    return oci.DeviceRule(True, words[2], words[0], major, minor)


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
    for key, value in security_options(settings):
        if key == "seccomp":
            if value == "unconfined":
                return oci.NO_SECCOMP
            if value != "builtin":
                return msgspec.Raw(msgspec.json.encode(translate_profile(value, capabilities, host.machine)))
    if settings.privileged:
        return oci.NO_SECCOMP
    return msgspec.Raw(default_seccomp_json(frozenset(capabilities), host.machine))


_GO_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def translate_profile(text: str, capabilities: list[str], machine: str) -> oci.Seccomp:
    """A profile in Docker's JSON format (the CLI sends the file's text). Raises Invalid."""
    try:
        profile: dict[str, Any] = msgspec.json.decode(text)
        rules: list[oci.SyscallRule] = []
        for rule in profile.get("syscalls") or []:
            if _applies(rule.get("includes") or {}, capabilities, machine, missing=True) and not _applies(
                rule.get("excludes") or {}, capabilities, machine, missing=False
            ):
                names = rule.get("names") or [rule["name"]]
                args = msgspec.convert(rule.get("args") or [], list[oci.SeccompArg])
                rules.append(oci.SyscallRule(names, rule["action"], rule.get("errnoRet"), args or None))
        architectures = profile.get("architectures")
        for row in profile.get("archMap") or []:
            if row["architecture"].lower() == f"scmp_arch_{machine}":
                architectures = [row["architecture"], *(row.get("subArchitectures") or [])]
        return oci.Seccomp(profile["defaultAction"], profile.get("defaultErrnoRet"), architectures, profile.get("flags"), rules)
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise Invalid(f"Decoding seccomp profile failed: {error}") from None


def _applies(condition: dict[str, Any], capabilities: list[str], machine: str, *, missing: bool) -> bool:
    arches, caps = condition.get("arches"), condition.get("caps")
    if not arches and not caps:
        return missing
    by_arch = not arches or _GO_MACHINES.get(machine, machine) in arches
    by_caps = not caps or (all if missing else any)(name in capabilities for name in caps)
    return by_arch and by_caps if missing else bool((arches and by_arch) or (caps and by_caps))
