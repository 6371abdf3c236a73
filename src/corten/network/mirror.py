"""The host's own input rules, to be asked about published ports before they are translated: from what was read to chains and sets of our table. Pure.

A packet for a published port never gets to the input hook, where a host's firewall has its rules. So each of that hook's base chains has a
counterpart in the prerouting hook, entered only by what is for a published port, with copies of the rules and sets that it leads to; an
accept there ends that chain alone, a drop is final, as in the original. What a packet for a published port can never match is left out.
Copies do not set marks or add to sets. A rule that cannot be copied is left out and named, and so is one that the kernel refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from corten.linux.netlink import attribute, attributes, be32, nested, parse_attributes, text
from corten.linux.nft_copies import CopiedRule, CopiedSet
from corten.linux.nft_expressions import (
    DPORT,
    L4PROTO,
    Family,
    FirstDirection,
    In,
    Lead,
    LocalDestination,
    Match,
    Rule,
    Verdict,
)
from corten.linux.nft_foreign import (
    Expression,
    ForeignRule,
    HostChain,
    HostSet,
    HostTable,
    element_verdict,
    number,
    string,
    verdict_of,
)
from corten.linux.nftables import Chain
from corten.linux.xt_rules import Untranslatable, translate_match, translate_target

_PRIORITY = -110  # connections are known (-200), nothing is translated yet (-100)
_ANONYMOUS, _CONSTANT, _FILLED_BY_PACKETS, _OF_OBJECTS = 1, 2, 32, 64
_KEPT_FLAGS = 4 | 8 | 16 | 128  # interval, map, timeout, concatenation
_QUEUE = 3
_LONG = 100  # of a chain's or set's name: beyond, it goes by its number
_PUBLISHED = (FirstDirection(), In((L4PROTO, DPORT), "published"), LocalDestination())


@dataclass(frozen=True)
class Mirror:
    """`left_out`: rules that hold for the host's own programs and not for published ports, each with the reason."""

    chains: tuple[Chain, ...] = ()
    sets: tuple[CopiedSet, ...] = ()
    left_out: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()  # the base chains that were copied, in words


NO_MIRROR = Mirror()


def make_mirror(tables: list[HostTable], refused: Collection[str] = ()) -> Mirror:
    """`refused`: rules (as `left_out` names them, without the reason) that the kernel did not take."""
    parts = [_Copy(table, f"host{index}_", refused) for index, table in enumerate(tables, 1)]
    return Mirror(
        tuple(chain for part in parts for chain in part.chains()),
        tuple(copy for part in parts for copy in part.sets()),
        tuple(line for part in parts for line in part.left_out),
        tuple(f"chain {chain.name} of {table}" for table in tables for chain in table.chains if chain.base),
    )


class _LeftOut(Exception):
    """The reason."""


class _Copy:
    """One table's copy: every name gets the prefix."""

    def __init__(self, table: HostTable, prefix: str, refused: Collection[str]) -> None:
        self._table, self._prefix, self._refused = table, prefix, refused
        self._chain_names = {chain.name: self._name(chain.name, number) for number, chain in enumerate(table.chains)}
        self._set_names = {row.name: self._name(row.name, number) for number, row in enumerate(table.sets)}
        self._by_name = {row.name: row for row in table.sets}
        self.left_out: list[str] = []

    def _name(self, name: str, index: int) -> str:
        return self._prefix + (name if len(name) <= _LONG else str(index))

    def chains(self) -> Iterator[Chain]:
        for chain in self._table.chains:
            yield Chain(self._chain_names[chain.name], "", "", 0, tuple(self._rules(chain)))
        for chain in self._table.chains:
            if chain.base:
                yield from self._entry(chain)

    def _entry(self, chain: HostChain) -> Iterator[Chain]:
        """What is for a published port goes through the copy; what returns from it meets the policy."""
        copy = self._chain_names[chain.name]
        family: tuple[Match, ...] = () if self._table.family == "inet" else (Family("ipv4" if self._table.family == "ip" else "ipv6"),)
        if chain.drops:
            yield Chain(f"{copy}_policy", "", "", 0, (Rule((), Lead(copy)), Rule((), Verdict("drop"))))
        target = f"{copy}_policy" if chain.drops else copy
        yield Chain(f"{copy}_entry", "filter", "prerouting", _PRIORITY, (Rule((*family, *_PUBLISHED), Lead(target)),))

    def _rules(self, chain: HostChain) -> Iterator[CopiedRule]:
        for rule in chain.rules:
            name = f"rule {rule.handle}{f' ({rule.comment})' if rule.comment else ''} of chain {chain.name} of {self._table}"
            try:
                if name in self._refused:
                    raise _LeftOut("the kernel does not take it before the port is translated")
                alternatives = self._expressions(rule)
            except (_LeftOut, Untranslatable) as reason:
                self.left_out.append(f"{name} ({reason})")
                continue
            yield from (CopiedRule(name, tuple(row)) for row in alternatives if _decides(row))

    def _expressions(self, rule: ForeignRule) -> list[list[Expression]]:
        """Copies of a rule: one, none if it can never match, or several where its parts are alternatives."""
        rows: list[list[Expression]] = [[]]
        for part in rule.expressions:
            values = parse_attributes(part.body)
            if part.name == "match":
                choices = translate_match(string(values, 1), number(values, 2), values.get(3, b""))
            elif part.name == "target":
                choices = [translate_target(string(values, 1), values.get(3, b""), self._table.family)]
            else:
                choices = [self._expression(part, values)]
            rows = [[*row, *choice] for row in rows for choice in choices]
        return rows

    def _expression(self, part: Expression, values: dict[int, bytes]) -> list[Expression]:
        if part.name in _WITHOUT_EFFECT:
            return []
        if part.name == "lookup":
            return [self._lookup(part, values)]
        if part.name == "immediate":
            return [self._immediate(part, values)]
        check = _COPIED.get(part.name)
        if check is None or not check(values, self._table.family):
            raise _LeftOut(_WORDS.get(part.name, part.name))
        return [part]

    def _lookup(self, part: Expression, values: dict[int, bytes]) -> Expression:
        name = string(values, 1)
        row = self._by_name.get(name)
        if row is None or row.flags & (_FILLED_BY_PACKETS | _OF_OBJECTS):
            raise _LeftOut(f"set {name} is filled by packets" if row else f"set {name}")
        if any(verdict and verdict[0] & 0xFF == _QUEUE and verdict[0] > 0 for verdict in map(element_verdict, row.elements)):
            raise _LeftOut("queue")
        rest = b"".join(attribute(kind, body) for kind, body in attributes(part.body) if kind in (2, 3, 5))
        return Expression("lookup", text(1, self._set_names[name]) + rest)

    def _immediate(self, part: Expression, values: dict[int, bytes]) -> Expression:
        verdict = verdict_of(values.get(2, b""))
        if verdict is None:
            return part
        if verdict[0] > 0 and verdict[0] & 0xFF == _QUEUE:
            raise _LeftOut("queue")
        return Expression("immediate", be32(1, 0) + nested(2, self._verdict(*verdict)))

    def _verdict(self, code: int, chain: str) -> bytes:
        return nested(2, be32(1, code & 0xFFFFFFFF), *([text(2, self._chain_names[chain])] if chain else []))

    def sets(self) -> Iterator[CopiedSet]:
        for row in self._table.sets:
            if not row.flags & (_FILLED_BY_PACKETS | _OF_OBJECTS):
                yield CopiedSet(self._set_names[row.name], row.flags & _KEPT_FLAGS, row.body, tuple(self._elements(row)))

    def _elements(self, row: HostSet) -> Iterator[bytes]:
        """As they are, but that a verdict leads to the copy of its chain."""
        for element in row.elements:
            verdict = element_verdict(element)
            if verdict and verdict[1]:
                parts = ((kind, nested(2, self._verdict(*verdict))) if kind == 2 else (kind, attribute(kind, body)) for kind, body in attributes(element))
                yield b"".join(body for _, body in parts)
            else:
                yield element


def _decides(row: list[Expression]) -> bool:
    """Whether a copy has a verdict at its end; one that only counted or wrote a log is not needed."""
    last = row[-1] if row else None
    if last is None:
        return False
    values = parse_attributes(last.body)
    return (
        last.name == "reject"
        or (last.name == "immediate" and verdict_of(values.get(2, b"")) is not None)
        or (last.name == "lookup" and 3 in values and number(values, 3) == 0)
    )


_WITHOUT_EFFECT = ("counter", "log", "notrack", "last")
_WORDS = {"dynset": "a set that packets fill", "objref": "a named object", "meta": "meta that is set, or is a socket's", "connlimit": "ct count"}
_SOCKET_META = (10, 11, 13, 23)  # skuid, skgid, rtclassid, cgroup: there is no socket or route yet
_CT_OF_FAMILY = (8, 9)  # source and destination in the old form, whose size depends on the table's family


def _always(_values: dict[int, bytes], _family: str) -> bool:
    return True


def _loads(values: dict[int, bytes], _family: str) -> bool:
    """It reads into a register, and changes nothing."""
    return 1 in values


def _meta(values: dict[int, bytes], _family: str) -> bool:
    return 1 in values and number(values, 2) not in _SOCKET_META


def _ct(values: dict[int, bytes], family: str) -> bool:
    return 1 in values and (family == "inet" or number(values, 2) not in _CT_OF_FAMILY)


# expression -> whether it means the same in the copy
_COPIED: dict[str, Callable[[dict[int, bytes], str], bool]] = {
    "payload": _loads, "exthdr": _loads, "meta": _meta, "ct": _ct, "fib": _loads,
    "cmp": _always, "range": _always, "bitwise": _always, "byteorder": _always,
    "hash": _always, "numgen": _always, "limit": _always, "reject": _always,
}  # fmt: skip
