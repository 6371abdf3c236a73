"""What is stored of a container: frozen values, one row each. Live handles are elsewhere and never stored."""

from __future__ import annotations

import msgspec

from corten.spec.engine import Config, HostConfig
from corten.spec.timestamps import ZERO


class State(msgspec.Struct, frozen=True):
    """`status` is one of states.STATUSES. Times are RFC 3339 with nanoseconds, ZERO for never."""

    status: str = "created"
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = ZERO
    finished_at: str = ZERO


class PublishedPort(msgspec.Struct, frozen=True):
    protocol: str
    container_port: int
    host_ip: str
    host_port: int


class EndpointRecord(msgspec.Struct, frozen=True):
    """A container's place on a bridge while it runs. `address` has its prefix (172.17.0.2/16)."""

    id: str
    address: str
    gateway: str
    mac: str
    veth: str
    ports: list[PublishedPort]


class ContainerRecord(msgspec.Struct, frozen=True):
    """`image` is an image id, `diff_ids` its layers (kept, so that the layers outlive a removed image)."""

    id: str
    name: str
    created: str
    image: str
    diff_ids: list[str]
    config: Config
    host_config: HostConfig
    mac_address: str = ""
    network_id: str = ""
    state: State = State()
    endpoint: EndpointRecord | None = None
    restart_count: int = 0

    @property
    def argv(self) -> list[str]:
        return [*_words(self.config.entrypoint), *_words(self.config.cmd)]

    @property
    def short_id(self) -> str:
        return self.id[:12]


def _words(value: list[str] | str | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


_decoder = msgspec.json.Decoder(ContainerRecord)
decode_record = _decoder.decode
encode_record = msgspec.json.Encoder().encode
