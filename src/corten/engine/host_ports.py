"""Host ports of published container ports: which are wanted, and holding them while the container runs.

A held port is a bound socket at which nothing ever arrives: nobody else can take it, and a second container is told so.
"""

from __future__ import annotations

import errno
import itertools
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from corten.engine.options import parse_port
from corten.engine.records import ContainerRecord, PublishedPort
from corten.errors import Invalid, PortInUse
from corten.spec.engine import HostConfig

_ATTEMPTS = 16  # to find a port that is free in both families
_TYPES = {"tcp": (socket.SOCK_STREAM, 0), "udp": (socket.SOCK_DGRAM, 0), "sctp": (socket.SOCK_STREAM, 132)}


@dataclass(frozen=True)
class Wanted:
    """`host_ips` are published under one number; range(1) asks for any free one."""

    container_port: int
    protocol: str
    host_ips: tuple[str, ...]
    numbers: range


def wanted_ports(host: HostConfig, exposed: Mapping[str, object], default_ips: Sequence[str]) -> list[Wanted]:
    """Pure. `default_ips`: where a port is published that names no address."""
    found: list[Wanted] = []
    for text, bindings in (host.port_bindings or {}).items():
        number, protocol = parse_port(text)
        for binding in bindings or []:
            low, _, high = binding.host_port.partition("-")
            first = int(low or 0)
            addresses = (binding.host_ip,) if binding.host_ip else tuple(default_ips)
            found.append(Wanted(number, protocol, addresses, range(first, int(high or first) + 1)))
    if host.publish_all_ports:
        published = {(row.container_port, row.protocol) for row in found}
        for text in exposed:
            lowest, highest, protocol = _port_range(text)
            for number in range(lowest, highest + 1):
                if (number, protocol) not in published:
                    found.append(Wanted(number, protocol, tuple(default_ips), range(1)))
    return found


def _port_range(text: str) -> tuple[int, int, str]:
    match = re.fullmatch(r"(\d+)-(\d+)(/\w+)?", text)
    if not match:
        number, protocol = parse_port(text)
        return number, number, protocol
    low, protocol = parse_port(match[1] + (match[3] or ""))
    return low, int(match[2]), protocol


class HostPorts:
    def __init__(self) -> None:
        self._held: dict[str, dict[PublishedPort, socket.socket | None]] = {}

    def hold(self, record: ContainerRecord, endpoint_id: str, wanted: Iterable[Wanted]) -> list[PublishedPort]:
        """Hold all of them, beside what the container holds already. Raises PortInUse or Invalid; then nothing new is held."""
        ports: list[PublishedPort] = []
        try:
            for row in wanted:
                ports += self._hold_one(record, endpoint_id, row)
        except BaseException:
            self.let_go(record.id, ports)
            raise
        return ports

    def _hold_one(self, record: ContainerRecord, endpoint_id: str, row: Wanted) -> list[PublishedPort]:
        candidates: Iterable[int] = row.numbers if row.numbers != range(1) else itertools.repeat(0, _ATTEMPTS)
        for number in candidates:
            try:
                return self._bind_all(record.id, row, number)
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    raise Invalid(f"cannot publish on {row.host_ips[0]}: this host does not have the address") from None
                if error.errno != errno.EADDRINUSE:
                    raise
        raise PortInUse(name=record.name, endpoint=endpoint_id, address=row.host_ips[0], port=row.numbers[0], protocol=row.protocol)

    def _bind_all(self, container_id: str, row: Wanted, number: int) -> list[PublishedPort]:
        """One number on all of the addresses; 0 is any. Raises OSError; then none of them is held."""
        ports: list[PublishedPort] = []
        try:
            for host_ip in row.host_ips:
                bound, number = self._bind(row.protocol, host_ip, number)
                port = PublishedPort(row.protocol, row.container_port, host_ip, number)
                self._held.setdefault(container_id, {})[port] = bound
                ports.append(port)
        except OSError:
            self.let_go(container_id, ports)
            raise
        return ports

    def _bind(self, protocol: str, host_ip: str, number: int) -> tuple[socket.socket | None, int]:
        try:
            bound = _bind(protocol, host_ip, number)
        except OSError as error:
            if protocol != "sctp" or error.errno != errno.EPROTONOSUPPORT:
                raise
            # Nobody on a kernel without SCTP sockets can take the port but another container.
            taken = {(port.protocol, port.host_ip, port.host_port) for held in self._held.values() for port in held}
            free = (port for port in ([number] if number else range(32768, 61000)) if (protocol, host_ip, port) not in taken)
            found = next(free, 0)
            if not found:
                raise OSError(errno.EADDRINUSE, "address already in use") from None
            return None, found
        return bound, bound.getsockname()[1]

    def restore(self, record: ContainerRecord) -> None:
        """Start-up: hold what a running container has published. What somebody took meanwhile is theirs; the rules still lead here."""
        for port in record.ports:
            held = self._held.setdefault(record.id, {})
            held[port] = None
            with suppress(OSError):
                held[port] = _bind(port.protocol, port.host_ip, port.host_port)

    def let_go(self, container_id: str, ports: Iterable[PublishedPort]) -> None:
        """Idempotent."""
        held = self._held.get(container_id, {})
        for port in ports:
            bound = held.pop(port, None)
            if bound:
                bound.close()
        if not held:
            self._held.pop(container_id, None)

    def close(self) -> None:
        for container_id, held in list(self._held.items()):
            self.let_go(container_id, list(held))


def _bind(protocol: str, host_ip: str, number: int) -> socket.socket:
    version = ip_address(host_ip).version
    kind, protocol_number = _TYPES[protocol]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    bound = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol_number)
    try:
        if version == 6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host_ip, number))
    except OSError:
        bound.close()
        raise
    return bound
