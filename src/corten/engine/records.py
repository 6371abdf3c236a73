"""What is stored of a container: frozen values, one row each. Live handles are elsewhere and never stored."""

from __future__ import annotations

import msgspec

from corten.spec.engine import Config, EndpointSettings, HostConfig
from corten.spec.timestamps import ZERO


class Probe(msgspec.Struct, frozen=True):
    """One run of a health check. `exit_code` is -1 if it could not be run or took too long."""

    start: str
    end: str
    exit_code: int
    output: str


class Health(msgspec.Struct, frozen=True):
    """`status` is starting, healthy or unhealthy. `restarts` are those for being unhealthy, in a row; `reason` is the last one's."""

    status: str = "starting"
    failing_streak: int = 0
    log: list[Probe] = []
    restarts: int = 0
    restarted_at: str = ""
    reason: str = ""


class State(msgspec.Struct, frozen=True):
    """`status` is one of states.STATUSES. Times are RFC 3339 with nanoseconds, ZERO for never."""

    status: str = "created"
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = ZERO
    finished_at: str = ZERO
    health: Health | None = None


class Restarts(msgspec.Struct, frozen=True):
    """What the restart policy goes by (restarts.py). `delay` is the last wait in milliseconds, 0 before the first.

    `by_hand`: a client has stopped or signalled it since its last start. `cancelled`: this run is the last one.
    """

    count: int = 0
    delay: int = 0
    by_hand: bool = False
    cancelled: bool = False


class PublishedPort(msgspec.Struct, frozen=True):
    protocol: str
    container_port: int
    host_ip: str
    host_port: int


class EndpointRecord(msgspec.Struct, frozen=True):
    """A container's place on one network: what was asked for, and from `network_id` on what holds while it runs.

    `network` is the network's name; addresses have their prefix (172.17.0.2/16), `interface` is the name inside.
    """

    network: str
    settings: EndpointSettings = EndpointSettings()
    network_id: str = ""
    id: str = ""
    address: str = ""
    gateway: str = ""
    address6: str = ""
    gateway6: str = ""
    mac: str = ""
    veth: str = ""
    interface: str = "eth0"

    @property
    def active(self) -> bool:
        return bool(self.id)

    @property
    def ip(self) -> str:
        """The IPv4 address without its prefix."""
        return self.address.partition("/")[0]

    def ended(self) -> EndpointRecord:
        return EndpointRecord(self.network, self.settings)


class MountRecord(msgspec.Struct, frozen=True):
    """One mount that the client or the image asked for, decided at creation. `type`: bind, volume, tmpfs, image, and
    container: a read-only view of a stopped container's root, which no client can ask for (tool_shell.py).

    `source` is a bind's path or an image's id; a volume is known by `name`. `mode` and `propagation` are as Docker shows
    them. `named` tells a volume that the client chose from one that goes with `rm -v`. `options` are a tmpfs's; `idmap` is the option as given.
    """

    type: str
    destination: str
    source: str = ""
    name: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    named: bool = False
    subpath: str = ""
    options: str = ""
    create_source: bool = False
    non_recursive: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    idmap: str = ""
    diff_ids: list[str] = []


class ContainerRecord(msgspec.Struct, frozen=True):
    """`image` is an image id, `diff_ids` its layers (kept, so that the layers outlive a removed image)."""

    id: str
    name: str
    created: str
    image: str
    diff_ids: list[str]
    config: Config
    host_config: HostConfig
    endpoints: list[EndpointRecord] = []  # the first is the one of NetworkMode
    ports: list[PublishedPort] = []
    state: State = State()
    restarts: Restarts = Restarts()
    mounts: list[MountRecord] = []

    @property
    def argv(self) -> list[str]:
        return [*_words(self.config.entrypoint), *_words(self.config.cmd)]

    @property
    def active_endpoints(self) -> list[EndpointRecord]:
        return [endpoint for endpoint in self.endpoints if endpoint.active]

    @property
    def gateway(self) -> EndpointRecord | None:
        """The endpoint that its published ports lead to and its default route leaves by: highest priority, then the first name."""
        candidates = [endpoint for endpoint in self.endpoints if endpoint.gateway]
        return min(candidates, key=lambda endpoint: (-endpoint.settings.gw_priority, endpoint.network), default=None)

    @property
    def gateway6(self) -> EndpointRecord | None:
        """As `gateway`, for IPv6."""
        candidates = [endpoint for endpoint in self.endpoints if endpoint.gateway6]
        return min(candidates, key=lambda endpoint: (-endpoint.settings.gw_priority, endpoint.network), default=None)

    def names_on(self, endpoint: EndpointRecord) -> list[str] | None:
        """What it is called on a user-defined network; None on the others, which have no names."""
        if endpoint.network in ("bridge", "host", "none"):
            return None
        hostname = [self.config.hostname] if self.config.hostname else []
        return list(dict.fromkeys([self.name, *(endpoint.settings.aliases or []), self.short_id, *hostname]))

    @property
    def has_names(self) -> bool:
        """Whether it is on a user-defined network, and so has a name service."""
        return any(endpoint.address or endpoint.address6 for endpoint in self.endpoints if self.names_on(endpoint) is not None)

    def without_leases(self) -> ContainerRecord:
        """As it is once it has ended: what was asked for stays."""
        return msgspec.structs.replace(self, endpoints=[endpoint.ended() for endpoint in self.endpoints], ports=[])

    def endpoint_on(self, network_id: str, name: str) -> EndpointRecord | None:
        """Its place on a network, running or not."""
        for endpoint in self.endpoints:
            if endpoint.network_id == network_id or endpoint.network in (name, network_id):
                return endpoint
        return None

    @property
    def layers(self) -> list[str]:
        """Diff ids of all that it needs: its own image's and those that it mounts."""
        return [*self.diff_ids, *(diff_id for mount in self.mounts for diff_id in mount.diff_ids)]

    @property
    def short_id(self) -> str:
        return self.id[:12]


def _words(value: list[str] | str | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


class VolumeRecord(msgspec.Struct, frozen=True):
    """A volume. `options` are the driver's. `made_for` is the container whose creation it is part of, until that is
    stored; `moved_from` the name that its folder may still have.
    """

    name: str
    driver: str
    created: str
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    made_for: str = ""
    moved_from: str = ""


decode_volume = msgspec.json.Decoder(VolumeRecord).decode


class _OldEndpoint(msgspec.Struct, frozen=True):
    id: str
    address: str
    gateway: str
    mac: str
    veth: str
    ports: list[PublishedPort]


class _OldRow(msgspec.Struct, frozen=True):
    """What rows of version 0.1.0 have instead of `endpoints` and `ports`."""

    endpoints: list[EndpointRecord] | None = None
    endpoint: _OldEndpoint | None = None
    network_id: str = ""
    mac_address: str = ""


_decoder, _old_decoder = msgspec.json.Decoder(ContainerRecord), msgspec.json.Decoder(_OldRow)


def decode_record(row: bytes) -> ContainerRecord:
    record, old = _decoder.decode(row), _old_decoder.decode(row)
    mode = record.host_config.network_mode
    if old.endpoints is not None or mode.startswith("container:"):
        return record
    place = EndpointRecord(mode, EndpointSettings(mac_address=old.mac_address))
    ports: list[PublishedPort] = []
    if old.endpoint:
        ports = old.endpoint.ports
        place = msgspec.structs.replace(
            place, network_id=old.network_id, id=old.endpoint.id, address=old.endpoint.address, gateway=old.endpoint.gateway,
            mac=old.endpoint.mac, veth=old.endpoint.veth,
        )  # fmt: skip
    return msgspec.structs.replace(record, endpoints=[place], ports=ports)


encode_record = msgspec.json.Encoder().encode
