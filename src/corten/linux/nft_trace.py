"""Following one packet through every rule of this network namespace: `meta nftrace`, and the kernel's messages about it.

Source: include/uapi/linux/netfilter/nf_tables.h (NFTA_TRACE_*), nft(8) monitor trace.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from corten.linux.netlink import Netlink, Request, parse_attributes, text
from corten.linux.nft_expressions import Address, Port, Rule, Traced
from corten.linux.nft_foreign import number, string
from corten.linux.nftables import Chain, Table

TRACES = 1 << 8  # the multicast group NFNLGRP_NFTRACE, as a mask for Netlink
_SUBSYSTEM, _MSG_TRACE, _GETRULE = 10 << 8, 17, 7
_EARLY = -500  # before anything else is asked
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6", 7: "bridge", 5: "netdev"}
_VERDICTS = {0: "drop", 1: "accept", 3: "queue", -1: "continue", -3: "jump", -4: "goto", -5: "return"}
_POLICY, _RULE = 1, 3
_TABLE, _CHAIN, _HANDLE, _TYPE, _VERDICT, _POLICY_VERDICT = 1, 2, 3, 4, 5, 16
_INET = 1


@dataclass(frozen=True)
class Met:
    """A packet has met a rule (its `handle`), or a chain's policy (0)."""

    family: str
    table: str
    chain: str
    handle: int
    verdict: str

    @property
    def where(self) -> str:
        what = f"rule {self.handle}" if self.handle else "policy"
        return f"{what} of chain {self.chain} of table {self.family} {self.table}"


def trace_table(name: str, source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address, protocol: str, port: int) -> Table:
    """What marks the packets to be followed."""
    networks = [IPv4Network(address) if isinstance(address, IPv4Address) else IPv6Network(address) for address in (source, destination)]
    rule = Rule((Address("saddr", networks[0]), Address("daddr", networks[1]), Port(protocol, port)), Traced())
    return Table(name, (), tuple(Chain(hook, "filter", hook, _EARLY, (rule,)) for hook in ("prerouting", "output")))


def parse(messages: Iterable[tuple[int, int, bytes]], own_table: str) -> list[Met]:
    """Of notifications (kind, sender, body), in their order. What has only begun to be followed (`own_table`) is left out."""
    found: list[Met] = []
    for kind, _, body in messages:
        if kind != _SUBSYSTEM | _MSG_TRACE:
            continue
        values = parse_attributes(body[4:])
        what, table = number(values, _TYPE), string(values, _TABLE)
        if what not in (_POLICY, _RULE) or table == own_table:
            continue
        handle = int.from_bytes(values.get(_HANDLE, b""), "big") if what == _RULE else 0
        met = Met(_FAMILIES.get(body[0], "?"), table, string(values, _CHAIN), handle, _verdict(values, what))
        if handle or met.verdict != "continue":  # that is the packet itself
            found.append(met)
    return found


def _verdict(values: dict[int, bytes], what: int) -> str:
    packed = values.get(_POLICY_VERDICT, b"") if what == _POLICY else parse_attributes(values.get(_VERDICT, b"")).get(1, b"")
    code = struct.unpack(">i", packed)[0] if len(packed) == 4 else 0
    return _VERDICTS.get(code, str(code))


def handles(netlink: Netlink, table: str) -> dict[str, list[int]]:
    """Chain -> the handles of its rules in their order, of an `inet` table. Raises OSError."""
    found: dict[str, list[int]] = {}
    body = struct.pack(">BBH", _INET, 0, 0) + text(1, table)
    for _, row in netlink.dump(Request(_SUBSYSTEM | _GETRULE, 0, body, f"rules of {table}")):
        values = parse_attributes(row[4:])
        if string(values, 1) == table:
            found.setdefault(string(values, 2), []).append(int.from_bytes(values[3], "big"))
    return found
