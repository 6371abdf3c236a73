"""Other programs' nftables: which chains there are, and rules of ours that are guests in one of them, told by their comment.

Nothing here changes or removes a rule that is not ours. Guest rules are written exactly as iptables-nft(8) writes `-i NAME -j ACCEPT`, so that
the chain's owner can go on reading it. Source: include/uapi/linux/netfilter/nf_tables.h; `nft --debug=netlink` on iptables-nft's rules.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from corten.linux.netlink import (
    NLM_F_CREATE,
    Netlink,
    Request,
    attribute,
    attributes,
    be32,
    nested,
    parse_attributes,
    text,
)

_SUBSYSTEM = 10 << 8
_GETCHAIN, _NEWCHAIN, _NEWRULE, _GETRULE, _DELRULE, _DELTABLE = 4, 3, 6, 7, 8, 2
_BATCH_BEGIN, _BATCH_END = 16, 17
FAMILIES = {"ip": 2, "ip6": 10, "inet": 1}
_NAMES = {number: name for name, number in FAMILIES.items()}
_FORWARD, _DROP = 2, 0
_INTERFACES = {"iifname": 6, "oifname": 7}
_COMMENT = 0  # the kind of a comment in a rule's user data


@dataclass(frozen=True)
class ForeignChain:
    """`drops`: it is a base chain of the forward hook and drops what no rule of it accepts."""

    family: str
    table: str
    name: str
    drops: bool


@dataclass(frozen=True)
class Guest:
    """`iifname NAME counter accept comment COMMENT` (or oifname)."""

    side: str
    interface: str

    def __str__(self) -> str:
        return f'{self.side} "{self.interface}" accept'


def _header(family: int) -> bytes:
    return struct.pack(">BBH", family, 0, 0)


def _string(values: dict[int, bytes], kind: int) -> str:
    return values.get(kind, b"").rstrip(b"\0").decode("utf-8", "replace")


def chains(netlink: Netlink) -> list[ForeignChain]:
    """Every chain of the IP families."""
    found: list[ForeignChain] = []
    for _, body in netlink.dump(Request(_SUBSYSTEM | _GETCHAIN, 0, _header(0), "chains")):
        values = parse_attributes(body[4:])
        if body[0] in _NAMES:
            hook = parse_attributes(values[4]).get(1) if 4 in values else None
            policy = values.get(5)
            drops = hook == struct.pack(">I", _FORWARD) and policy == struct.pack(">I", _DROP)
            found.append(ForeignChain(_NAMES[body[0]], _string(values, 1), _string(values, 3), drops))
    return found


def guests(netlink: Netlink, chain: ForeignChain, comment: str) -> dict[Guest, bytes]:
    """Our rules in a chain (rule -> handle as the kernel packs it). One that is there twice is there once."""
    where = text(1, chain.table) + text(2, chain.name)
    request = Request(_SUBSYSTEM | _GETRULE, 0, _header(FAMILIES[chain.family]) + where, f"rules of {chain.name}")
    found: dict[Guest, bytes] = {}
    for _, body in netlink.dump(request):
        values = parse_attributes(body[4:])
        if _string(values, 2) == chain.name and _string(values, 1) == chain.table and values.get(7) == _user_data(comment):
            guest = _decode(values.get(4, b""))
            found[guest or Guest("", values[3].hex())] = values[3]  # what cannot be read is wanted by nobody
    return found


def _decode(expressions: bytes) -> Guest | None:
    """A rule of ours: its first expressions load and compare an interface's name."""
    parts = {_string(row, 1): parse_attributes(row.get(2, b"")) for _, body in attributes(expressions) if (row := parse_attributes(body))}
    loaded, compared = parts.get("meta", {}).get(2), parse_attributes(parts.get("cmp", {}).get(3, b""))
    for side, key in _INTERFACES.items():
        if loaded == struct.pack(">I", key):
            return Guest(side, _string(compared, 1))
    return None


def _user_data(comment: str) -> bytes:
    value = comment.encode() + b"\0"
    return struct.pack("BB", _COMMENT, len(value)) + value


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *parts))


def _encode(guest: Guest) -> bytes:
    name = guest.interface.encode() + b"\0"
    compare = _expression("cmp", be32(1, 1), be32(2, 0), nested(3, attribute(1, name)))
    counter = _expression("counter", attribute(1, bytes(8)), attribute(2, bytes(8)))
    accept = _expression("immediate", be32(1, 0), nested(2, nested(2, be32(1, 1))))
    load = _expression("meta", be32(2, _INTERFACES[guest.side]), be32(1, 1))
    return load + compare + counter + accept


def change(netlink: Netlink, chain: ForeignChain, comment: str, added: Iterable[Guest], removed: Iterable[bytes]) -> None:
    """One transaction: guests at the head of the chain, and others (handles) out of it. Raises OSError; then nothing has changed."""
    where = text(1, chain.table) + text(2, chain.name)
    family = FAMILIES[chain.family]
    requests = [Request(_SUBSYSTEM | _DELRULE, 0, _header(family) + where + attribute(3, handle), "guest rule") for handle in removed]
    requests += [
        Request(_SUBSYSTEM | _NEWRULE, NLM_F_CREATE, _header(family) + where + nested(4, _encode(guest)) + attribute(7, _user_data(comment)), str(guest))
        for guest in added
    ]
    if requests:
        begin, end = (Request(kind, 0, struct.pack(">BBH", 0, 0, 10), "batch", acknowledged=False) for kind in (_BATCH_BEGIN, _BATCH_END))
        netlink.execute([begin, *requests, end])


def concerns(messages: Iterable[tuple[int, int, bytes]], chain: str, own_port: int) -> bool:
    """Whether notifications say that somebody else has made a chain of the name, or taken something out of it or with it."""
    for kind, sender, body in messages:
        if sender == own_port:
            continue
        values = parse_attributes(body[4:])
        if kind == _SUBSYSTEM | _NEWCHAIN and _string(values, 3) == chain:
            return True
        if kind == _SUBSYSTEM | _DELRULE and _string(values, 2) == chain:
            return True
        if kind == _SUBSYSTEM | _DELTABLE:
            return True
    return False
