"""OCI runtime configuration (config.json) as frozen values. Pure: parse, serialise.

Source: OCI runtime-spec 1.2, config.md and config-linux.md. Only keys that Corten acts on are here.
The engine writes no others; unknown keys of a foreign bundle are ignored, as the spec asks.
"""

from __future__ import annotations

from typing import Any

import msgspec

OCI_VERSION = "1.2.0"
WRITTEN_VERSION = "1.0.2"  # of the configs that Corten makes: what every runtime of the last years takes


class _Spec(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Base: camelCase keys, defaults left out of the JSON."""


class Box(_Spec, frozen=True):
    height: int
    width: int


class User(_Spec, frozen=True):
    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: list[int] | None = None


class Capabilities(_Spec, frozen=True):
    bounding: list[str] | None = None
    effective: list[str] | None = None
    permitted: list[str] | None = None
    inheritable: list[str] | None = None
    ambient: list[str] | None = None


class Rlimit(_Spec, frozen=True):
    type: str
    soft: int
    hard: int


class Process(_Spec, frozen=True):
    args: list[str]
    cwd: str
    terminal: bool = False
    console_size: Box | None = None
    user: User = User()
    env: list[str] | None = None
    capabilities: Capabilities | None = None
    rlimits: list[Rlimit] | None = None
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    apparmor_profile: str = ""
    selinux_label: str = ""


class Root(_Spec, frozen=True):
    path: str
    readonly: bool = False


class Mount(_Spec, frozen=True):
    destination: str
    type: str = ""
    source: str = ""
    options: list[str] | None = None


class Hook(_Spec, frozen=True):
    path: str
    args: list[str] | None = None
    env: list[str] | None = None
    timeout: int | None = None


class Hooks(_Spec, frozen=True):
    prestart: list[Hook] | None = None
    create_runtime: list[Hook] | None = None
    create_container: list[Hook] | None = None
    start_container: list[Hook] | None = None
    poststart: list[Hook] | None = None
    poststop: list[Hook] | None = None


class Namespace(_Spec, frozen=True):
    type: str
    path: str = ""


class IdMapping(msgspec.Struct, frozen=True):
    containerID: int  # noqa: N815 - the spec's own spelling
    hostID: int  # noqa: N815
    size: int


class TimeOffset(_Spec, frozen=True):
    secs: int = 0
    nanosecs: int = 0


class Device(_Spec, frozen=True):
    path: str
    type: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int = 0
    gid: int = 0


class DeviceRule(_Spec, frozen=True):
    allow: bool
    access: str = ""  # as good as rwm; written out, because runc wants it so
    type: str = "a"
    major: int | None = None
    minor: int | None = None


class Memory(_Spec, frozen=True):
    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    swappiness: int | None = None
    disable_o_o_m_killer: bool | None = msgspec.field(default=None, name="disableOOMKiller")


class Cpu(_Spec, frozen=True):
    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""


class Pids(_Spec, frozen=True):
    limit: int


class WeightDevice(_Spec, frozen=True):
    major: int
    minor: int
    weight: int | None = None


class ThrottleDevice(_Spec, frozen=True):
    major: int
    minor: int
    rate: int


class BlockIO(_Spec, frozen=True):
    weight: int | None = None
    weight_device: list[WeightDevice] | None = None
    throttle_read_bps_device: list[ThrottleDevice] | None = None
    throttle_write_bps_device: list[ThrottleDevice] | None = None
    throttle_read_iops_device: list[ThrottleDevice] | None = msgspec.field(default=None, name="throttleReadIOPSDevice")
    throttle_write_iops_device: list[ThrottleDevice] | None = msgspec.field(default=None, name="throttleWriteIOPSDevice")


class Resources(_Spec, frozen=True):
    devices: list[DeviceRule] | None = None
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = msgspec.field(default=None, name="blockIO")
    unified: dict[str, str] | None = None


class SeccompArg(_Spec, frozen=True):
    index: int
    value: int
    op: str
    value_two: int | None = None


class SyscallRule(_Spec, frozen=True):
    names: list[str]
    action: str
    errno_ret: int | None = None
    args: list[SeccompArg] | None = None


class Seccomp(_Spec, frozen=True):
    default_action: str
    default_errno_ret: int | None = None
    architectures: list[str] | None = None
    flags: list[str] | None = None
    syscalls: list[SyscallRule] | None = None


NO_SECCOMP = msgspec.Raw()  # this very value, so that it is left out of the JSON


class Linux(_Spec, frozen=True):
    namespaces: list[Namespace] | None = None
    uid_mappings: list[IdMapping] | None = None
    gid_mappings: list[IdMapping] | None = None
    time_offsets: dict[str, TimeOffset] | None = None
    devices: list[Device] | None = None
    cgroups_path: str = ""
    resources: Resources | None = None
    rootfs_propagation: str = ""
    seccomp: msgspec.Raw = NO_SECCOMP  # kept raw (empty: none): its digest names the compiled filter, few starts parse it
    sysctl: dict[str, str] | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    mount_label: str = ""


class RuntimeConfig(_Spec, frozen=True):
    oci_version: str
    process: Process | None = None
    root: Root | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: list[Mount] | None = None
    hooks: Hooks | None = None
    annotations: dict[str, str] | None = None
    linux: Linux | None = None


_decoder = msgspec.json.Decoder(RuntimeConfig)
_process_decoder = msgspec.json.Decoder(Process)
_seccomp_decoder = msgspec.json.Decoder(Seccomp)


def parse_runtime_config(data: bytes) -> RuntimeConfig:
    """Raises msgspec.DecodeError, whose text names the key."""
    return _decoder.decode(data)


def parse_process(data: bytes) -> Process:
    return _process_decoder.decode(data)


def parse_seccomp(data: bytes | msgspec.Raw) -> Seccomp:
    return _seccomp_decoder.decode(data)


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)
