"""Legacy links (`--link` on the default bridge): what is stored of them, and what the linking container sees of its neighbour.

On a user-defined network a link is an alias that only its container has (name_directory.py). Source: Docker Engine 28.5 (moby
daemon/links, daemon/container_operations).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from corten.engine import states
from corten.engine.records import ContainerRecord, EndpointRecord
from corten.errors import CortenError, Invalid
from corten.spec.engine import EndpointSettings, HostConfig

_NOT_PASSED_ON = ("HOME", "PATH")
Find = Callable[[str], ContainerRecord]


class LinkedNotRunning(CortenError):
    """Docker answers 500 here; the text is what matters."""

    template = "Cannot link to a non running container: {target} AS {link}"


@dataclass(frozen=True)
class Link:
    """As it is stored: `target` is a name with its slash, `path` is /CONTAINER/ALIAS."""

    target: str
    path: str

    @property
    def alias(self) -> str:
        return self.path.rpartition("/")[2]


def parse(text: str) -> tuple[str, str]:
    """`NAME[:ALIAS]` -> both. Raises Invalid."""
    target, colon, alias = text.partition(":")
    if not target or (colon and not alias) or ":" in alias:
        raise Invalid(f"bad format for links: {text}")
    return target, alias or target


def kept(host: HostConfig, endpoints: list[EndpointRecord]) -> list[str] | None:
    """Pure: HostConfig.Links of a container on the default bridge; elsewhere they are the endpoint's."""
    return host.links if endpoints and endpoints[0].network == "bridge" else None


def of_endpoint(host: HostConfig, network: str, settings: EndpointSettings) -> EndpointSettings:
    """Pure: the first endpoint's settings, with the links that were asked for beside them. Raises Invalid."""
    for text in host.links or ():
        parse(text)
    if network == "bridge" or settings.links or not host.links:
        return settings
    return replace(settings, links=host.links)


def stored(wanted: list[str] | None, name: str, find: Find) -> list[str] | None:
    """HostConfig.Links of a new container `name` on the default bridge. Raises Invalid for a container that is not there."""
    found: list[str] = []
    for text in wanted or ():
        target, alias = parse(text)
        try:
            other = find(target)
        except CortenError as error:
            raise Invalid(f"could not get container for {target}: {error.message}") from None
        found.append(f"/{other.name}:/{name}/{alias.rpartition('/')[2]}")
    return found or None


def resolve(record: ContainerRecord, find: Find) -> Iterator[tuple[Link, ContainerRecord]]:
    """The links of a container that starts, with whom they lead to. Raises LinkedNotRunning."""
    for text in record.host_config.links or ():
        target, _, path = text.partition(":")
        link = Link(target, path)
        other = find(target)
        if not states.is_running(other) or not _address(other):
            raise LinkedNotRunning(target=target, link=path)
        yield link, other


def _address(record: ContainerRecord) -> str:
    place = record.endpoint_on("bridge", "bridge")
    return place.ip if place else ""


def host_row(link: Link, other: ContainerRecord) -> tuple[str, str]:
    """(names, address) for the hosts file."""
    names = dict.fromkeys([link.alias, other.config.hostname, other.name])
    return " ".join(filter(None, names)), _address(other)


def environment(link: Link, other: ContainerRecord) -> list[str]:
    """Docker's variables: where the neighbour's ports are, its name here, its own environment."""
    prefix, address = link.alias.replace("-", "_").upper(), _address(other)
    ports = sorted(_split(text) for text in other.config.exposed_ports or {})
    env = [f"{prefix}_PORT={ports[0][1]}://{address}:{ports[0][0]}"] if ports else []
    for number, protocol in ports:
        name = f"{prefix}_PORT_{number}_{protocol.upper()}"
        env += [f"{name}={protocol}://{address}:{number}", f"{name}_ADDR={address}", f"{name}_PORT={number}", f"{name}_PROTO={protocol}"]
    env.append(f"{prefix}_NAME={link.path}")
    for entry in other.config.env or ():
        key, equals, value = entry.partition("=")
        if equals and key not in _NOT_PASSED_ON:
            env.append(f"{prefix}_ENV_{key}={value}")
    return env


def _split(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    return int(number.partition("-")[0]), protocol or "tcp"
