"""What EXPOSE takes: `port[-end][/protocol]`, and in front of it an address and a host's port that mean nothing. Pure.

Source: BuildKit's frontend/dockerfile/dockerfile2llb/convert_expose.go, for the texts too.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from corten.errors import Invalid

PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(frozen=True)
class Exposed:
    """`names` are `80/tcp` each. `mapped`: an address or a host's port was there; `cased`: the protocol was not in lower case."""

    names: tuple[str, ...]
    mapped: bool
    cased: bool


def read_port(text: str) -> Exposed:
    """Raises Invalid."""
    *before, container = text.split(":")
    address, host = ":".join(before[:-1]), before[-1] if before else ""
    ports, _, protocol = container.partition("/")
    if not ports:
        raise Invalid(f'invalid port: "{text}": no port specified')
    if protocol.lower() not in ("", *PROTOCOLS):
        raise Invalid(f'invalid port: "{text}": invalid proto: {protocol}')
    _check_address(address)
    first, last = _range(ports, "containerPort")
    if host:
        low, high = _range(host, "hostPort")
        if last - first != high - low and first != last:
            raise Invalid(f"invalid ranges specified for container and host Ports: {ports} and {host}")
    names = tuple(f"{port}/{protocol.lower() or 'tcp'}" for port in range(first, last + 1))
    return Exposed(names, mapped=bool(before), cased=protocol != protocol.lower())


def _check_address(text: str) -> None:
    if not text:
        return
    try:
        ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise Invalid(f"invalid IP address: {text}") from None


def _range(text: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    limits = [first, last if dash else first]
    if not all(re.fullmatch(r"[0-9]{1,5}", limit) and int(limit) <= 65535 for limit in limits) or int(limits[1]) < int(
        limits[0]
    ):
        raise Invalid(f"invalid {what}: {text}")
    return int(limits[0]), int(limits[1])
