"""Other programs' nftables as values: the chains of one hook with all that they lead to, their rules as expressions, their sets with elements.

Reads only, and judges nothing: expressions and elements stay as the kernel packs them. Source: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from corten.linux.netlink import Netlink, Request, attributes, parse_attributes, text

_SUBSYSTEM = 10 << 8
_NEWTABLE, _NEWCHAIN = 0, 3
_GETTABLE, _GETCHAIN, _GETRULE, _GETSET, _GETSETELEM = 1, 4, 7, 10, 13
FAMILIES = {"ip": 2, "ip6": 10, "inet": 1}
_NAMES = {number: name for name, number in FAMILIES.items()}
_DORMANT = 1  # a table's flag: none of its chains is asked
_COMMENT = 0  # the kind of a comment in a rule's user data
_DROP = 0
_COUNTING = ("counter", "last")  # what they have counted is not of the rule
INPUT = 1


@dataclass(frozen=True)
class Expression:
    """`body`: its attributes, packed."""

    name: str
    body: bytes = b""


@dataclass(frozen=True)
class ForeignRule:
    """`handle` is what `nft -a list` shows."""

    handle: int
    expressions: tuple[Expression, ...]
    comment: str = ""


@dataclass(frozen=True)
class HostChain:
    """`base`: it hangs on the hook; then `drops` is whether its policy does, and packets meet it in the order of `priority`."""

    name: str
    rules: tuple[ForeignRule, ...]
    base: bool = False
    priority: int = 0
    drops: bool = False


@dataclass(frozen=True)
class HostSet:
    """`body`: the attributes that describe it, without names, flags and handle; `elements`: each one's attributes."""

    name: str
    flags: int
    body: bytes
    elements: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class HostTable:
    """A table with a base chain at the hook: only the chains and the sets that such a chain leads to."""

    family: str
    name: str
    chains: tuple[HostChain, ...]
    sets: tuple[HostSet, ...]

    def __str__(self) -> str:
        return f"table {self.family} {self.name}"


def string(values: dict[int, bytes], kind: int) -> str:
    return values.get(kind, b"").rstrip(b"\0").decode("utf-8", "replace")


def number(values: dict[int, bytes], kind: int) -> int:
    """A big-endian unsigned of 32 bits; 0 if it is not there."""
    return int.from_bytes(values.get(kind, b"")[:4], "big")


def verdict_of(data: bytes) -> tuple[int, str] | None:
    """(code, chain) of packed data that is a verdict."""
    found = parse_attributes(data).get(2)
    if found is None:
        return None
    values = parse_attributes(found)
    return struct.unpack(">i", values.get(1, bytes(4)))[0], string(values, 2)


def chains_led_to(rule: ForeignRule) -> Iterator[str]:
    for expression in rule.expressions:
        if expression.name == "immediate":
            verdict = verdict_of(parse_attributes(expression.body).get(2, b""))
            if verdict and verdict[1]:
                yield verdict[1]


def sets_of(rule: ForeignRule) -> Iterator[str]:
    for expression in rule.expressions:
        if expression.name == "lookup":
            yield string(parse_attributes(expression.body), 1)


def element_verdict(element: bytes) -> tuple[int, str] | None:
    return verdict_of(parse_attributes(element).get(2, b""))


def read_hook(netlink: Netlink, own_table: str, hook: int = INPUT) -> list[HostTable]:
    """Every table but our own that has a filter chain at the hook. Raises OSError."""
    awake = set(_tables(netlink))
    found: dict[tuple[str, str], dict[str, HostChain]] = {}
    for _, body in netlink.dump(_request(_GETCHAIN, 0, "chains")):
        values = parse_attributes(body[4:])
        place = (_NAMES.get(body[0], ""), string(values, 1))
        if place in awake and place != ("inet", own_table):
            chain = _chain(values, hook)
            found.setdefault(place, {})[chain.name] = chain
    busy = {place: chains for place, chains in found.items() if any(chain.base for chain in chains.values())}
    return [_read_table(netlink, family, name, chains) for (family, name), chains in sorted(busy.items())]


def concern_hook(messages: Iterable[tuple[int, int, bytes]], read: Collection[tuple[str, str]], own_port: int, hook: int = INPUT) -> bool:
    """Whether notifications (kind, sender, body) say that somebody has changed what `read_hook` gave, or would give now. `read`: its tables
    (family, name). What happens in other tables, which may be much, is told by the kind alone: a table has come or woken, or a chain of the hook.
    """
    for kind, sender, body in messages:
        if kind >> 8 != _SUBSYSTEM >> 8 or sender == own_port or body[0] not in _NAMES:
            continue
        values = parse_attributes(body[4:])
        if (_NAMES[body[0]], string(values, 1)) in read or kind & 0xFF == _NEWTABLE:
            return True
        if kind & 0xFF == _NEWCHAIN and 4 in values and number(parse_attributes(values[4]), 1) == hook:
            return True
    return False


def _request(kind: int, family: int, what: str, *parts: bytes) -> Request:
    return Request(_SUBSYSTEM | kind, 0, struct.pack(">BBH", family, 0, 0) + b"".join(parts), what)


def _tables(netlink: Netlink) -> Iterator[tuple[str, str]]:
    for _, body in netlink.dump(_request(_GETTABLE, 0, "tables")):
        values = parse_attributes(body[4:])
        if body[0] in _NAMES and not number(values, 2) & _DORMANT:
            yield _NAMES[body[0]], string(values, 1)


def _chain(values: dict[int, bytes], hook: int) -> HostChain:
    place = parse_attributes(values.get(4, b""))
    base = 4 in values and number(place, 1) == hook and string(values, 7) == "filter"
    priority = struct.unpack(">i", place[2])[0] if base else 0
    return HostChain(string(values, 3), (), base, priority, base and values.get(5) == struct.pack(">I", _DROP))


def _read_table(netlink: Netlink, family: str, name: str, chains: dict[str, HostChain]) -> HostTable:
    rules: dict[str, list[ForeignRule]] = {}
    for _, body in netlink.dump(_request(_GETRULE, FAMILIES[family], f"rules of {name}", text(1, name))):
        values = parse_attributes(body[4:])
        if string(values, 1) == name:
            rules.setdefault(string(values, 2), []).append(_rule(values))
    sets = {found.name: found for found in _sets(netlink, family, name)}
    reached: dict[str, HostChain] = {}
    looked_up: dict[str, HostSet] = {}
    waiting = [chain.name for chain in chains.values() if chain.base]
    while waiting:
        current = waiting.pop()
        if current in reached or current not in chains:
            continue
        chain = chains[current]
        reached[current] = HostChain(current, tuple(rules.get(current, ())), chain.base, chain.priority, chain.drops)
        for rule in reached[current].rules:
            waiting += chains_led_to(rule)
            for wanted in sets_of(rule):
                if wanted in sets and wanted not in looked_up:
                    looked_up[wanted] = _with_elements(netlink, family, name, sets[wanted])
                    waiting += [verdict[1] for element in looked_up[wanted].elements if (verdict := element_verdict(element)) and verdict[1]]
    return HostTable(family, name, tuple(sorted(reached.values(), key=lambda chain: chain.name)), tuple(looked_up.values()))


def _rule(values: dict[int, bytes]) -> ForeignRule:
    expressions = []
    for _, body in attributes(values.get(4, b"")):
        row = parse_attributes(body)
        name = string(row, 1)
        expressions.append(Expression(name, b"" if name in _COUNTING else row.get(2, b"")))
    return ForeignRule(int.from_bytes(values[3], "big"), tuple(expressions), _comment(values.get(7, b"")))


def _comment(user_data: bytes) -> str:
    """User data is a row of kind, length, value."""
    offset = 0
    while offset + 2 <= len(user_data):
        kind, length = user_data[offset], user_data[offset + 1]
        if kind == _COMMENT:
            return user_data[offset + 2 : offset + 2 + length].rstrip(b"\0").decode("utf-8", "replace")
        offset += 2 + length
    return ""


# What describes a set: types and lengths of key and data, policy, description, time limits, user data, kind of object. Not its expressions.
_DESCRIPTION = (4, 5, 6, 7, 8, 9, 11, 12, 13, 15)


def _sets(netlink: Netlink, family: str, table: str) -> Iterator[HostSet]:
    for _, body in netlink.dump(_request(_GETSET, FAMILIES[family], f"sets of {table}", text(1, table))):
        values = parse_attributes(body[4:])
        if string(values, 1) == table:
            yield HostSet(string(values, 2), number(values, 3), _repack(body[4:], _DESCRIPTION))


def _repack(packed: bytes, kinds: Iterable[int]) -> bytes:
    """The attributes of these kinds, as they are."""
    found, offset = b"", 0
    while offset + 4 <= len(packed):
        length, kind = struct.unpack_from("=HH", packed, offset)
        if length < 4:
            break
        end = offset + length
        if kind & 0x3FFF in kinds:
            found += packed[offset:end] + bytes(-length % 4)
        offset = end + (-length % 4)
    return found


# Of an element: key, data, flags, time limits, end of the key
_OF_ELEMENT = (1, 2, 3, 4, 5, 10)


def _with_elements(netlink: Netlink, family: str, table: str, found: HostSet) -> HostSet:
    """In ascending order, which is how intervals have to be added: the kernel lists them from the last to the first."""
    elements: list[bytes] = []
    for _, body in netlink.dump(_request(_GETSETELEM, FAMILIES[family], f"elements of {found.name}", text(1, table), text(2, found.name))):
        elements += [_repack(row, _OF_ELEMENT) for _, row in attributes(parse_attributes(body[4:]).get(3, b""))]
    return HostSet(found.name, found.flags, found.body, tuple(reversed(elements)))
