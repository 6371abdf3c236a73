"""What a network and its endpoints need of the kernel, as values that can be printed. Pure.

The rules of one table: published ports are translated on their way in (from outside, and from this host), containers
are masqueraded on their way out, and nothing from outside reaches a loopback address.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from corten.linux.nftables import (
    Address,
    Chain,
    DestinationNat,
    Interface,
    LocalDestination,
    Masquerade,
    Match,
    Port,
    Rule,
    Table,
    Verdict,
    WasTranslated,
)

LOOPBACK = IPv4Network("127.0.0.0/8")
_DSTNAT, _SRCNAT, _RAW = -100, 100, -300
_ANYWHERE = IPv4Address("0.0.0.0")


@dataclass(frozen=True)
class Bridge:
    """`gateway` is the bridge's own address with its prefix."""

    name: str
    gateway: IPv4Interface
    mtu: int = 1500

    @property
    def subnet(self) -> IPv4Network:
        return self.gateway.network


@dataclass(frozen=True)
class Endpoint:
    """One container on a bridge. `veth` is the host's end; inside it is eth0. `hairpin`: it may meet its own published port."""

    veth: str
    address: IPv4Interface
    gateway: IPv4Address
    mac: str
    hairpin: bool = False


@dataclass(frozen=True)
class Publication:
    """A host port that leads to a container's. `host_ip` 0.0.0.0 means every address of the host."""

    protocol: str
    host_ip: IPv4Address
    host_port: int
    container_ip: IPv4Address
    container_port: int


def make_table(name: str, bridge: Bridge, publications: Iterable[Publication]) -> Table:
    incoming = tuple(_translation(publication) for publication in publications)
    outgoing = (
        Rule((Address("saddr", bridge.subnet), Interface("oifname", bridge.name, equal=False)), Masquerade()),
        # From this host's loopback, and from a container by way of the host's address: the answer must come back here.
        Rule((Address("saddr", LOOPBACK), Interface("oifname", bridge.name)), Masquerade()),
        Rule((WasTranslated(), Address("saddr", bridge.subnet), Interface("oifname", bridge.name)), Masquerade()),
    )
    # The bridge routes loopback addresses (route_localnet); whatever arrives from elsewhere for one is forged.
    guard = (Rule((Interface("iifname", "lo", equal=False), Address("daddr", LOOPBACK)), Verdict("drop")),)
    return Table(
        name,
        (
            Chain("guard", "filter", "prerouting", _RAW, guard),
            Chain("prerouting", "nat", "prerouting", _DSTNAT, incoming),
            Chain("output", "nat", "output", _DSTNAT, incoming),
            Chain("postrouting", "nat", "postrouting", _SRCNAT, outgoing),
        ),
    )


def _translation(publication: Publication) -> Rule:
    where: Match = LocalDestination()
    if publication.host_ip != _ANYWHERE:
        where = Address("daddr", IPv4Network(publication.host_ip))
    port = Port(publication.protocol, publication.host_port)
    return Rule((where, port), DestinationNat(publication.container_ip, publication.container_port))
