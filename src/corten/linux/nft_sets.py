"""Sets and maps of nftables: their types, their elements, and the messages that make and change them.

A change of elements costs the same whatever the table holds, which is why everything that comes and goes (networks, ports) is
an element and not a rule. Sources: include/uapi/linux/netfilter/nf_tables.h, nft(8) SETS, MAPS.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import groupby

from corten.linux.netlink import attribute, be32, nested, text

# nft's name of a type -> its number for userland, and its size in bytes
TYPES = {"ipv4_addr": (7, 4), "ipv6_addr": (8, 16), "inet_proto": (12, 1), "inet_service": (13, 2), "ifname": (41, 16)}
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_NAMES = {number: name for name, number in PROTOCOLS.items()}
_INTERVAL, _MAP, _CONCAT = 4, 8, 128
_CHUNK = 400  # elements in one message: an attribute is at most 64 KiB
Value = str | int | IPv4Address | IPv6Address | IPv4Network | IPv6Network


@dataclass(frozen=True)
class Set:
    """`key` and `data` are type names; a set with data is a map. With `interval`, the first field is a network."""

    name: str
    key: tuple[str, ...]
    data: tuple[str, ...] = ()
    interval: bool = False

    def __str__(self) -> str:
        kind = " . ".join(self.key) + (" : " + " . ".join(self.data) if self.data else "")
        return f"{'map' if self.data else 'set'} {self.name} {{ type {kind};{' flags interval;' if self.interval else ''} }}"

    def encode(self, number: int) -> bytes:
        """Attributes after the table's name."""
        flags = (_INTERVAL | _CONCAT if self.interval else 0) | (_MAP if self.data else 0)
        body = text(2, self.name) + be32(3, flags) + be32(4, _type(self.key)) + be32(5, _width(self.key))
        if self.data:
            body += be32(6, _type(self.data)) + be32(7, _width(self.data))
        if self.interval:
            lengths = [nested(1, be32(1, TYPES[name][1])) for name in self.key]
            body += nested(9, nested(2, *lengths))
        return body + be32(10, number)


@dataclass(frozen=True)
class Element:
    """One element of the set of the name: its key and, in a map, its data. Protocols are names here."""

    set: str
    key: tuple[Value, ...]
    data: tuple[Value, ...] = ()

    def __str__(self) -> str:
        return " . ".join(map(str, self.key)) + (" : " + " . ".join(map(str, self.data)) if self.data else "")


def _type(names: tuple[str, ...]) -> int:
    number = 0
    for name in names:
        number = number << 6 | TYPES[name][0]
    return number


def _width(names: tuple[str, ...]) -> int:
    if len(names) == 1:
        return TYPES[names[0]][1]
    return sum(TYPES[name][1] + 3 & ~3 for name in names)


def _encode(name: str, value: Value, *, end: bool) -> bytes:
    if isinstance(value, IPv4Network | IPv6Network):
        value = value.broadcast_address if end else value.network_address
    if isinstance(value, IPv4Address | IPv6Address):
        return value.packed
    if name == "inet_proto":
        return bytes([PROTOCOLS[str(value)]])
    if name == "inet_service":
        return struct.pack(">H", value)
    return str(value).encode().ljust(16, b"\0")


def _joined(names: tuple[str, ...], values: tuple[Value, ...], *, end: bool = False) -> bytes:
    parts = [_encode(name, value, end=end) for name, value in zip(names, values, strict=True)]
    if len(parts) == 1:
        return parts[0]
    return b"".join(part + bytes(-len(part) % 4) for part in parts)


def _element(kind: Set, element: Element) -> bytes:
    body = nested(1, attribute(1, _joined(kind.key, element.key)))
    if element.data:
        body += nested(2, attribute(1, _joined(kind.data, element.data)))
    if kind.interval:
        body += nested(10, attribute(1, _joined(kind.key, element.key, end=True)))
    return nested(1, body)


def element_bodies(sets: Iterable[Set], elements: Iterable[Element]) -> Iterator[tuple[str, bytes]]:
    """(set's name, attributes after the table's name) pairs that carry all elements, some hundreds in each."""
    by_name = {row.name: row for row in sets}
    for name, group in groupby(sorted(elements, key=lambda element: element.set), key=lambda element: element.set):
        rows = [_element(by_name[name], element) for element in group]
        for start in range(0, len(rows), _CHUNK):
            yield name, text(2, name) + nested(3, *rows[start : start + _CHUNK])
