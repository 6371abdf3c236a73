"""Engine API objects that the engine answers. Types only; api/views.py and the engine's services fill them.

They are what `/openapi.json` promises, and tests hold every answer to them. Objects that a client also sends (Config, HostConfig)
are in engine.py. Source: Docker Engine API 1.51 (moby api/swagger.yaml).
"""

from __future__ import annotations

from typing import Any

import msgspec

from corten.spec.engine import Config, HostConfig

Text = dict[str, str]


class _Answer(msgspec.Struct, frozen=True, rename="pascal"):
    """Base: Docker's PascalCase keys."""


class Id(_Answer, frozen=True):
    id: str


class Created(_Answer, frozen=True):
    id: str
    warnings: list[str] | None


class EditStep(_Answer, frozen=True):
    """One key that an edit changes; `how`: live, or swap (stop and start)."""

    key: str
    how: str
    before: Any
    after: Any


class Edited(_Answer, frozen=True):
    """The plan, and whether it was done."""

    done: bool
    steps: list[EditStep]


class Tools(_Answer, frozen=True):
    """An exec to be started (the container runs), or a helper container to be attached to and started; the other is empty."""

    exec_id: str
    container_id: str


class Named(_Answer, frozen=True):
    name: str


class Message(msgspec.Struct, frozen=True):
    """Every error."""

    message: str


# --- containers
class Change(_Answer, frozen=True):
    """`path` as seen in the container; `kind`: 0 modified, 1 added, 2 deleted."""

    path: str
    kind: int


class WaitError(_Answer, frozen=True):
    message: str


class Waited(_Answer, frozen=True):
    status_code: int
    error: WaitError | msgspec.UnsetType | None = msgspec.UNSET


class Updated(_Answer, frozen=True):
    warnings: list[str] | None


class PrunedContainers(_Answer, frozen=True):
    containers_deleted: list[str] | None
    space_reclaimed: int


class Port(_Answer, frozen=True):
    private_port: int
    type: str
    public_port: int | msgspec.UnsetType = msgspec.UNSET
    ip: str | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="IP")


class Mounted(_Answer, frozen=True):
    type: str
    source: str
    destination: str
    mode: str
    r_w: bool = msgspec.field(name="RW")
    propagation: str
    name: str | msgspec.UnsetType = msgspec.UNSET
    driver: str | msgspec.UnsetType = msgspec.UNSET


class Endpoint(_Answer, frozen=True):
    i_p_a_m_config: dict[str, Any] | None = msgspec.field(name="IPAMConfig")
    links: list[str] | None
    aliases: list[str] | None
    mac_address: str
    driver_opts: Text | None
    gw_priority: int
    network_i_d: str = msgspec.field(name="NetworkID")
    endpoint_i_d: str = msgspec.field(name="EndpointID")
    gateway: str
    ip_address: str = msgspec.field(name="IPAddress")
    ip_prefix_len: int = msgspec.field(name="IPPrefixLen")
    ipv6_gateway: str = msgspec.field(name="IPv6Gateway")
    global_ipv6_address: str = msgspec.field(name="GlobalIPv6Address")
    global_ipv6_prefix_len: int = msgspec.field(name="GlobalIPv6PrefixLen")
    d_n_s_names: list[str] | None = msgspec.field(name="DNSNames")


class SummaryHost(_Answer, frozen=True):
    network_mode: str
    annotations: Text | msgspec.UnsetType = msgspec.UNSET


class SummaryNetworks(_Answer, frozen=True):
    networks: dict[str, Endpoint]


class ContainerSummary(_Answer, frozen=True):
    id: str
    names: list[str] | None
    image: str
    image_i_d: str = msgspec.field(name="ImageID")
    command: str
    created: int
    ports: list[Port]
    labels: Text
    state: str
    status: str
    host_config: SummaryHost
    network_settings: SummaryNetworks
    mounts: list[Mounted]
    size_rw: int | msgspec.UnsetType = msgspec.UNSET
    size_root_fs: int | msgspec.UnsetType = msgspec.UNSET


class State(_Answer, frozen=True):
    status: str
    running: bool
    paused: bool
    restarting: bool
    o_o_m_killed: bool = msgspec.field(name="OOMKilled")
    dead: bool
    pid: int
    exit_code: int
    error: str
    started_at: str
    finished_at: str
    health: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET


class GraphDriver(_Answer, frozen=True):
    name: str
    data: Text | None


class NetworkSettings(_Answer, frozen=True):
    sandbox_i_d: str = msgspec.field(name="SandboxID")
    sandbox_key: str
    ports: dict[str, list[Text] | None]
    networks: dict[str, Endpoint]


class Container(_Answer, frozen=True):
    id: str
    created: str
    path: str
    args: list[str]
    state: State
    image: str
    resolv_conf_path: str
    hostname_path: str
    hosts_path: str
    log_path: str
    name: str
    restart_count: int
    driver: str
    platform: str
    mount_label: str
    process_label: str
    app_armor_profile: str
    exec_i_ds: list[str] | None = msgspec.field(name="ExecIDs")
    host_config: HostConfig
    graph_driver: GraphDriver
    mounts: list[Mounted]
    config: Config
    network_settings: NetworkSettings
    size_rw: int | msgspec.UnsetType = msgspec.UNSET
    size_root_fs: int | msgspec.UnsetType = msgspec.UNSET


class Top(_Answer, frozen=True):
    titles: list[str]
    processes: list[list[str]] | None


class Exec(_Answer, frozen=True):
    i_d: str = msgspec.field(name="ID")
    running: bool
    exit_code: int | None
    process_config: dict[str, Any]
    open_stdin: bool
    open_stdout: bool
    open_stderr: bool
    can_remove: bool
    container_i_d: str = msgspec.field(name="ContainerID")
    detach_keys: str | None
    pid: int


# --- images
class ManifestSize(_Answer, frozen=True):
    total: int
    content: int


class UnpackedSize(_Answer, frozen=True):
    unpacked: int


class PlatformImage(_Answer, frozen=True):
    platform: dict[str, Any]
    size: UnpackedSize
    containers: list[str]


class ManifestRow(_Answer, frozen=True):
    """An entry of an index; `kind`: image or attestation, with the data of its kind."""

    i_d: str = msgspec.field(name="ID")
    descriptor: dict[str, Any]
    available: bool
    size: ManifestSize
    kind: str
    image_data: PlatformImage | msgspec.UnsetType = msgspec.UNSET
    attestation_data: Text | msgspec.UnsetType = msgspec.UNSET


class ImageSummary(_Answer, frozen=True):
    id: str
    parent_id: str
    repo_tags: list[str] | None
    repo_digests: list[str] | None
    created: int
    size: int
    shared_size: int
    containers: int
    labels: Text | None
    descriptor: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    manifests: list[ManifestRow] | msgspec.UnsetType = msgspec.UNSET


class RootFilesystem(_Answer, frozen=True):
    type: str
    layers: list[str]


class Image(_Answer, frozen=True):
    id: str
    repo_tags: list[str]
    repo_digests: list[str]
    parent: str
    comment: str
    created: str
    author: str
    architecture: str
    os: str
    size: int
    graph_driver: GraphDriver
    root_f_s: RootFilesystem = msgspec.field(name="RootFS")
    metadata: Text
    config: dict[str, Any]
    docker_version: str = ""
    variant: str = ""
    descriptor: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    manifests: list[ManifestRow] | msgspec.UnsetType = msgspec.UNSET


class HistoryRow(_Answer, frozen=True):
    id: str
    created: int
    created_by: str
    tags: list[str] | None
    size: int
    comment: str


class LayerPaths(_Answer, frozen=True):
    added: list[str]
    changed: list[str]
    removed: list[str]


class LayerInsight(_Answer, frozen=True):
    """Corten's own. Counts are of files; `wasted` are bytes of this layer that a later one hides."""

    diff_id: str = msgspec.field(name="DiffID")
    instruction: str
    size: int
    added: int
    changed: int
    removed: int
    wasted: int
    paths: LayerPaths | msgspec.UnsetType = msgspec.UNSET


class ImageDifferences(_Answer, frozen=True):
    """Corten's own. `changes` lead from a to b; `config` has each differing key with its two values."""

    a: str
    b: str
    changes: list[Change]
    config: dict[str, dict[str, Any]]


class Removed(_Answer, frozen=True):
    untagged: str | msgspec.UnsetType = msgspec.UNSET
    deleted: str | msgspec.UnsetType = msgspec.UNSET


class PrunedImages(_Answer, frozen=True):
    images_deleted: list[Removed] | None
    space_reclaimed: int


class Distribution(_Answer, frozen=True):
    descriptor: dict[str, Any]
    platforms: list[dict[str, Any]]


# --- volumes
class Volume(_Answer, frozen=True):
    name: str
    driver: str
    mountpoint: str
    created_at: str
    labels: Text | None
    scope: str
    options: Text | None


class Volumes(_Answer, frozen=True):
    volumes: list[Volume]
    warnings: list[str] | None


class VolumeUse(_Answer, frozen=True):
    container: str
    name: str
    image: str
    destination: str
    rw: bool = msgspec.field(name="RW")
    begun: str = msgspec.field(name="From")
    ended: str = msgspec.field(name="To")


class VolumeSize(_Answer, frozen=True):
    at: str
    size: int


class VolumeHistory(_Answer, frozen=True):
    name: str
    created_at: str
    uses: list[VolumeUse]
    sizes: list[VolumeSize]


class PrunedBuildCache(_Answer, frozen=True):
    caches_deleted: list[str] | None
    space_reclaimed: int


class PrunedVolumes(_Answer, frozen=True):
    volumes_deleted: list[str] | None
    space_reclaimed: int


# --- networks
class Network(_Answer, frozen=True):
    name: str
    id: str
    created: str
    scope: str
    driver: str
    enable_ipv4: bool = msgspec.field(name="EnableIPv4")
    enable_ipv6: bool = msgspec.field(name="EnableIPv6")
    i_p_a_m: dict[str, Any] = msgspec.field(name="IPAM")
    internal: bool
    attachable: bool
    ingress: bool
    config_from: Text
    config_only: bool
    containers: dict[str, Text]
    options: Text | None
    labels: Text | None


class CreatedNetwork(_Answer, frozen=True):
    id: str
    warning: str


class MappedContainer(_Answer, frozen=True):
    """`link_there`: its veth is in the kernel, as it should be."""

    name: str
    id: str
    addresses: list[str]
    mac_address: str
    interface: str
    link: str
    link_there: bool


class MappedNetwork(_Answer, frozen=True):
    name: str
    id: str
    driver: str
    link: str
    link_there: bool
    subnets: list[str]
    gateways: list[str]
    internal: bool
    containers: list[MappedContainer]


class MappedPort(_Answer, frozen=True):
    host_ip: str
    host_port: int
    protocol: str
    container: str
    container_port: int


class MappedRules(_Answer, frozen=True):
    """`whole`: the kernel has every rule; `obeyed`: the host's chains that published ports obey; `left_out`: rules that cannot be."""

    table: str
    whole: bool
    obeyed: list[str]
    left_out: list[str]


class NetworkMap(_Answer, frozen=True):
    networks: list[MappedNetwork]
    ports: list[MappedPort]
    rules: MappedRules


class TraceStep(_Answer, frozen=True):
    owner: str
    where: str
    rule: str
    verdict: str


class PacketTrace(_Answer, frozen=True):
    source: str
    destination: str
    outcome: str
    steps: list[TraceStep]
    dropped_by: TraceStep | None
    conclusion: str


class TornDown(_Answer, frozen=True):
    links: list[str]
    table: str
    sysctls: dict[str, str]


class PrunedNetworks(_Answer, frozen=True):
    networks_deleted: list[str] | None


# --- the engine
class LoggedIn(_Answer, frozen=True):
    status: str
    identity_token: str


class UsageData(_Answer, frozen=True):
    ref_count: int
    size: int


class UsedVolume(Volume, frozen=True, kw_only=True):
    usage_data: UsageData


class DiskUsage(_Answer, frozen=True):
    layers_size: int
    images: list[ImageSummary] | None
    containers: list[ContainerSummary] | None
    volumes: list[UsedVolume] | None
    build_cache: list[dict[str, Any]] | None


class Component(_Answer, frozen=True):
    name: str
    version: str
    details: Text | None


class Version(_Answer, frozen=True):
    platform: Named
    components: list[Component]
    version: str
    api_version: str
    min_a_p_i_version: str = msgspec.field(name="MinAPIVersion")
    git_commit: str
    go_version: str
    os: str
    arch: str
    kernel_version: str
    build_time: str


class Commit(_Answer, frozen=True):
    i_d: str = msgspec.field(name="ID")


class Info(_Answer, frozen=True):
    i_d: str = msgspec.field(name="ID")
    containers: int
    containers_running: int
    containers_paused: int
    containers_stopped: int
    images: int
    driver: str
    driver_status: list[list[str]]
    plugins: dict[str, list[str] | None]
    memory_limit: bool
    swap_limit: bool
    kernel_memory_t_c_p: bool = msgspec.field(name="KernelMemoryTCP")
    cpu_cfs_period: bool
    cpu_cfs_quota: bool
    cpu_shares: bool = msgspec.field(name="CPUShares")
    cpu_set: bool = msgspec.field(name="CPUSet")
    pids_limit: bool
    ipv4_forwarding: bool = msgspec.field(name="IPv4Forwarding")
    debug: bool
    n_fd: int
    oom_kill_disable: bool
    n_goroutines: int
    system_time: str
    logging_driver: str
    cgroup_driver: str
    cgroup_version: str
    n_events_listener: int
    kernel_version: str
    operating_system: str
    os_version: str = msgspec.field(name="OSVersion")
    os_type: str = msgspec.field(name="OSType")
    architecture: str
    index_server_address: str
    registry_config: dict[str, Any]
    ncpu: int = msgspec.field(name="NCPU")
    mem_total: int
    generic_resources: list[Any] | None
    docker_root_dir: str
    http_proxy: str
    https_proxy: str
    no_proxy: str
    name: str
    labels: list[str]
    experimental_build: bool
    server_version: str
    runtimes: dict[str, dict[str, Any]]
    default_runtime: str
    swarm: dict[str, Any]
    live_restore_enabled: bool
    isolation: str
    init_binary: str
    containerd_commit: Commit
    runc_commit: Commit
    init_commit: Commit
    security_options: list[str]
    firewall_backend: dict[str, Any]
    c_d_i_spec_dirs: list[str] = msgspec.field(name="CDISpecDirs")
    warnings: list[str] | None
