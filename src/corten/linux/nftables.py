"""nftables tables by netlink: replacing a whole `inet` table atomically, and changing the elements of its sets.

Rules are nft_expressions.py's, sets nft_sets.py's. Source: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from corten.linux.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    Netlink,
    Request,
    attribute,
    be32,
    nested,
    parse_attributes,
    text,
)
from corten.linux.nft_copies import CopiedRule, CopiedSet
from corten.linux.nft_expressions import Rule
from corten.linux.nft_sets import Element, Set, element_bodies

_SUBSYSTEM = 10 << 8
_NEWTABLE, _DELTABLE, _NEWCHAIN, _DELCHAIN, _NEWRULE, _DELRULE = 0, 2, 3, 5, 6, 8
_NEWSET, _DELSET, _NEWSETELEM, _DELSETELEM = 9, 11, 12, 14
_BATCH_BEGIN, _BATCH_END = 16, 17
_INET, _BRIDGE = 1, 7
_FAMILIES = {"inet": _INET, "bridge": _BRIDGE}
_HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
_ACCEPT = 1
_CHUNK = 400  # elements in one message: an attribute is at most 64 KiB
_DELETIONS = frozenset(_SUBSYSTEM | kind for kind in (_DELTABLE, _DELCHAIN, _DELRULE, _DELSET, _DELSETELEM))
NOTIFICATIONS = 1 << 6  # the multicast group NFNLGRP_NFTABLES, as a mask for Netlink


@dataclass(frozen=True)
class Chain:
    """A base chain: `type` filter or nat, on `hook` at `priority`, policy accept; without a type one that rules lead to."""

    name: str
    type: str
    hook: str
    priority: int
    rules: tuple[Rule | CopiedRule, ...]


@dataclass(frozen=True)
class Table:
    """A whole table without the elements of its sets."""

    name: str
    sets: tuple[Set, ...]
    chains: tuple[Chain, ...]
    copies: tuple[CopiedSet, ...] = ()  # with their elements, which nobody changes but with the whole table
    family: str = "inet"  # or bridge

    @property
    def set_names(self) -> frozenset[str]:
        return frozenset(row.name for row in self.sets)

    def __str__(self) -> str:
        return self.render(())

    def render(self, elements: Iterable[Element]) -> str:
        """As `nft list table` shows it."""
        rows = sorted(elements, key=str)
        lines = [f"table {self.family} {self.name} {{"]
        for row in self.sets:
            inside = ", ".join(str(element) for element in rows if element.set == row.name)
            lines.append(f"\t{row}".removesuffix(" }") + (f" elements = {{ {inside} }}" if inside else "") + " }")
        lines += [f"\t{copy}" for copy in self.copies]
        for chain in self.chains:
            lines.append(f"\tchain {chain.name} {{")
            if chain.type:
                lines.append(f"\t\ttype {chain.type} hook {chain.hook} priority {chain.priority}; policy accept;")
            lines += [f"\t\t{rule}" for rule in chain.rules]
            lines.append("\t}")
        return "\n".join([*lines, "}"])


def _message(kind: int, flags: int, what: str, table: Table, *attributes: bytes) -> Request:
    """`attributes` after the table's name, which is attribute 1 of every message."""
    header = struct.pack(">BBH", _FAMILIES[table.family], 0, 0) + text(1, table.name)
    return Request(_SUBSYSTEM | kind, flags, header + b"".join(attributes), what, acknowledged=False)


def _batch(*requests: Request) -> list[Request]:
    """One transaction. The last one's acknowledgement is everyone's: thousands of them would not fit into the receive buffer."""
    begin, end = (Request(kind, 0, struct.pack(">BBH", 0, 0, 10), "batch", acknowledged=False) for kind in (_BATCH_BEGIN, _BATCH_END))
    return [begin, *requests[:-1], replace(requests[-1], acknowledged=True), end]


def _chain_request(table: Table, chain: Chain) -> Request:
    if not chain.type:
        return _message(_NEWCHAIN, NLM_F_CREATE, f"chain {chain.name}", table, text(3, chain.name))
    hook = nested(4, be32(1, _HOOKS[chain.hook]), be32(2, chain.priority & 0xFFFFFFFF))
    return _message(_NEWCHAIN, NLM_F_CREATE, f"chain {chain.name}", table, text(3, chain.name), hook, be32(5, _ACCEPT), text(7, chain.type))


def _rule_request(table: Table, chain: Chain, rule: Rule | CopiedRule) -> Request:
    body = text(2, chain.name) + nested(4, rule.encode())
    if isinstance(rule, CopiedRule):
        return _message(_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, rule.origin, table, body, attribute(7, rule.user_data))
    return _message(_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, f"rule {rule}", table, body)


def _copy_requests(table: Table) -> list[Request]:
    requests: list[Request] = []
    for row in table.copies:
        for start in range(0, len(row.elements), _CHUNK):
            packed = [nested(1, element) for element in row.elements[start : start + _CHUNK]]
            requests.append(_message(_NEWSETELEM, NLM_F_CREATE, f"elements of {row.name}", table, text(2, row.name), nested(3, *packed)))
    return requests


def _element_requests(table: Table, kind: int, elements: Iterable[Element]) -> list[Request]:
    flags = NLM_F_CREATE if kind == _NEWSETELEM else 0
    own = [element for element in elements if element.set in table.set_names]
    return [_message(kind, flags, f"elements of {name}", table, body) for name, body in element_bodies(table.sets, own)]


def _remove_requests(table: Table) -> list[Request]:
    # Adding it first makes removing it succeed whether it was there or not.
    what = f"table {table.name}"
    return [_message(_NEWTABLE, NLM_F_CREATE, what, table), _message(_DELTABLE, 0, what, table)]


def replace_tables(netlink: Netlink, tables: Iterable[Table], elements: Collection[Element] = ()) -> None:
    """Put these tables in the place of those of their names, in one transaction: no packet sees half of it. Each takes the elements of its sets."""
    netlink.execute(_batch(*(request for table in tables for request in (*_remove_requests(table), *_add_requests(table, elements)))))


def add_table(netlink: Netlink, table: Table) -> None:
    """Where there is none of its name. Much faster than replacing: a socket that has removed something is not closed before the
    kernel has let go of it (7 to 15 ms, measured).
    """
    netlink.execute(_batch(*_add_requests(table, ())))


def _add_requests(table: Table, elements: Collection[Element]) -> list[Request]:
    requests = [_message(_NEWTABLE, NLM_F_CREATE, f"table {table.name}", table)]
    sets: tuple[Set | CopiedSet, ...] = (*table.sets, *table.copies)
    requests += [_message(_NEWSET, NLM_F_CREATE, str(row), table, row.encode(number)) for number, row in enumerate(sets, 1)]
    requests += [_chain_request(table, chain) for chain in table.chains]  # before what may lead to them
    requests += [*_element_requests(table, _NEWSETELEM, elements), *_copy_requests(table)]
    return requests + [_rule_request(table, chain, rule) for chain in table.chains for rule in chain.rules]


def change_elements(netlink: Netlink, tables: Iterable[Table], removed: Collection[Element], added: Collection[Element]) -> None:
    """One transaction. Raises OSError if the tables are not as this says; then nothing has changed."""
    requests = [
        request
        for table in tables
        for request in (*_element_requests(table, _DELSETELEM, removed), *_element_requests(table, _NEWSETELEM, added))
    ]
    if requests:
        netlink.execute(_batch(*requests))


def delete_table(netlink: Netlink, table: Table) -> None:
    """Idempotent."""
    netlink.execute(_batch(*_remove_requests(table)))


def _place(body: bytes) -> tuple[int, str]:
    """Family and name of the table that a notification is about: attribute 1 of each of these."""
    return body[0], parse_attributes(body[4:]).get(1, b"").rstrip(b"\0").decode("utf-8", "replace")


def taken_from(messages: Iterable[tuple[int, int, bytes]], table: str, own_port: int) -> bool:
    """Whether notifications (kind, sender, body) say that somebody else has taken something away from a table of ours of this name."""
    ours = ((_INET, table), (_BRIDGE, table))
    return any(kind in _DELETIONS and sender != own_port and _place(body) in ours for kind, sender, body in messages)
