"""Engine API objects that clients send: Config, HostConfig and what hangs on them. Frozen values; pure.

Source: Docker Engine API 1.51 (moby api/swagger.yaml, ContainerConfig, HostConfig, EndpointSettings, Mount). Go's JSON
takes null for anything, so do these; unknown keys are ignored, as Docker ignores them.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class _Api(msgspec.Struct, frozen=True, rename="pascal"):
    """Base: Docker's PascalCase keys."""


class LogConfig(_Api, frozen=True):
    """An empty type is the engine's default."""

    type: str = ""
    config: dict[str, str] | None = msgspec.field(default_factory=dict)


class RestartPolicy(_Api, frozen=True):
    name: str = "no"
    maximum_retry_count: int = 0


class PortBinding(_Api, frozen=True):
    host_ip: str = ""
    host_port: str = ""


class DeviceMapping(_Api, frozen=True):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


class DeviceRequest(_Api, frozen=True):
    """`device_i_ds` are CDI names for the driver `cdi`; `capabilities` an OR of ANDs."""

    driver: str = ""
    count: int = 0
    device_i_ds: list[str] | None = msgspec.field(default=None, name="DeviceIDs")
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


class WeightDevice(_Api, frozen=True):
    path: str
    weight: int


class ThrottleDevice(_Api, frozen=True):
    path: str
    rate: int


class Ulimit(_Api, frozen=True):
    name: str
    soft: int
    hard: int


class BindOptions(_Api, frozen=True, omit_defaults=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeDriverConfig(_Api, frozen=True, omit_defaults=True):
    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(_Api, frozen=True, omit_defaults=True):
    no_copy: bool = False
    labels: dict[str, str] | None = None
    subpath: str = ""
    driver_config: VolumeDriverConfig | None = None


class ImageOptions(_Api, frozen=True, omit_defaults=True):
    subpath: str = ""


class TmpfsOptions(_Api, frozen=True, omit_defaults=True):
    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class MountPoint(_Api, frozen=True, omit_defaults=True):
    type: str = ""
    target: str = ""
    source: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None


class HostConfig(_Api, frozen=True):
    binds: list[str] | None = None
    container_i_d_file: str = msgspec.field(default="", name="ContainerIDFile")
    log_config: LogConfig = msgspec.field(default_factory=LogConfig)
    network_mode: str = "default"
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    console_size: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = msgspec.field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = msgspec.field(default=None, name="BlkioDeviceReadIOps")
    blkio_device_write_iops: list[ThrottleDevice] | None = msgspec.field(default=None, name="BlkioDeviceWriteIOps")
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = msgspec.field(default=0, name="IOMaximumIOps")
    io_maximum_bandwidth: int = msgspec.field(default=0, name="IOMaximumBandwidth")
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    init: bool | None = None
    mounts: list[MountPoint] | None = None


class Healthcheck(_Api, frozen=True, omit_defaults=True):
    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class Config(_Api, frozen=True):
    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, Any]] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class EndpointAddresses(_Api, frozen=True, omit_defaults=True):
    """Fixed addresses that were asked for."""

    ipv4: str = msgspec.field(default="", name="IPv4Address")
    ipv6: str = msgspec.field(default="", name="IPv6Address")
    link_local: list[str] | None = msgspec.field(default=None, name="LinkLocalIPs")


class EndpointSettings(_Api, frozen=True):
    """What a client asks of a container's place on one network."""

    ipam: EndpointAddresses | None = msgspec.field(default=None, name="IPAMConfig")
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0


class NetworkingConfig(_Api, frozen=True):
    endpoints_config: dict[str, EndpointSettings | None] | None = None


class CreateRequest(Config, frozen=True):
    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None


class VolumeRequest(_Api, frozen=True):
    """What `POST /volumes/create` takes. An empty name asks for an anonymous volume."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, Any] | None = None


class PolicyChange(_Api, frozen=True):
    """An empty name changes nothing."""

    name: str = ""
    maximum_retry_count: int = 0


class UpdateRequest(_Api, frozen=True):
    """The keys of HostConfig that an update changes; Docker takes the others and does nothing with them."""

    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    blkio_weight: int = 0
    pids_limit: int | None = None
    restart_policy: PolicyChange | None = None


class ExecConfig(_Api, frozen=True):
    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: list[int] | None = None
    attach_stdin: bool = False
    attach_stderr: bool = False
    attach_stdout: bool = False
    detach_keys: str = ""
    env: list[str] | None = None
    working_dir: str = ""
    cmd: list[str] | None = None


class EditRequest(_Api, frozen=True):
    """Corten's own: what of a container's configuration shall be otherwise. A key that is not sent (or null) stays as it is."""

    labels: dict[str, str | None] | msgspec.UnsetType = msgspec.UNSET
    healthcheck: Healthcheck | msgspec.UnsetType = msgspec.UNSET
    restart_policy: RestartPolicy | msgspec.UnsetType = msgspec.UNSET
    port_bindings: dict[str, list[PortBinding] | None] | msgspec.UnsetType = msgspec.UNSET
    env: list[str] | msgspec.UnsetType = msgspec.UNSET
    cmd: list[str] | msgspec.UnsetType = msgspec.UNSET
    entrypoint: list[str] | msgspec.UnsetType = msgspec.UNSET
    user: str | msgspec.UnsetType = msgspec.UNSET
    working_dir: str | msgspec.UnsetType = msgspec.UNSET
    log_config: LogConfig | msgspec.UnsetType = msgspec.UNSET
    binds: list[str] | msgspec.UnsetType = msgspec.UNSET
    mounts: list[MountPoint] | msgspec.UnsetType = msgspec.UNSET


class ToolsRequest(ExecConfig, frozen=True):
    """Corten's own: an exec with the files of `image` as its root."""

    image: str = ""


class ExecStart(_Api, frozen=True):
    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None
