"""What a container may say about itself on a bridge: nobody takes another one's address there. Pure.

A table of the bridge family, met by every frame that comes in by a bridge port. An address that is given out (`taken`: to a container, or to the
bridge as a gateway) is spoken for by its owner's port alone, in ARP, in neighbour advertisements and as a sender; one that is nobody's is free, so
that a container may use a further address of its network (a virtual address that moves). Rules never change, as in plan.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from corten.linux.nft_expressions import (
    ARP_SADDR,
    BRIDGED_SADDR4,
    BRIDGED_SADDR6,
    IIFNAME,
    ND_TARGET,
    EtherType,
    Field,
    Icmp6Type,
    In,
    Match,
    Rule,
    Verdict,
)
from corten.linux.nft_sets import Element, Set
from corten.linux.nftables import Chain, Table
from corten.network.plan import AnyAddress, Bridge

_PRIORITY = -300
_SETS = (
    Set("taken4", ("ipv4_addr",)), Set("taken6", ("ipv6_addr",)),
    Set("owned4", ("ifname", "ipv4_addr")), Set("owned6", ("ifname", "ipv6_addr")),
)  # fmt: skip
NAMES = frozenset(row.name for row in _SETS)


def _rule(field: Field, version: int, *first: Match) -> Rule:
    matches = (*first, In((field,), f"taken{version}"), In((IIFNAME, field), f"owned{version}", inside=False))
    return Rule(matches, Verdict("drop"), "the address is another one's")


def make_guard(name: str) -> Table:
    rules = (
        _rule(ARP_SADDR, 4, EtherType("arp")),
        _rule(BRIDGED_SADDR4, 4, EtherType("ip")),
        _rule(BRIDGED_SADDR6, 6, EtherType("ip6")),
        _rule(ND_TARGET, 6, EtherType("ip6"), Icmp6Type("nd-neighbor-advert")),
    )
    return Table(name, _SETS, (Chain("ports", "filter", "prerouting", _PRIORITY, rules),), family="bridge")


def gateways(bridge: Bridge) -> Iterator[Element]:
    """The bridge's own addresses: no port's."""
    for address in bridge.addresses:
        yield Element(f"taken{address.version}", (address.ip,))


def owned(port: str, addresses: Iterable[AnyAddress]) -> Iterator[Element]:
    """What the port's container may use that is given to it."""
    for address in addresses:
        yield Element(f"taken{address.version}", (address,))
        yield Element(f"owned{address.version}", (port, address))
