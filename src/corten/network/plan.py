"""What networks and their endpoints need of the kernel, as values that can be printed. Pure.

The rules never change: a network, a published port is an element of a set. In the order in which a packet meets them: nothing
from outside reaches a loopback address; for a published port the host's own input rules are asked (mirror.py); published ports are
translated on their way in (from outside, and from this host); a bridge is entered only by answers, by translated packets and from itself; what leaves is masqueraded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from corten.linux.nft_expressions import (
    DADDR4,
    DADDR6,
    DPORT,
    IIFNAME,
    L4PROTO,
    OIFNAME,
    SADDR4,
    SADDR6,
    Address,
    DestinationNat,
    Family,
    In,
    Interface,
    KnownConnection,
    LocalDestination,
    Masquerade,
    Match,
    Port,
    Protocol,
    Rule,
    Translate,
    Verdict,
    WasTranslated,
)
from corten.linux.nft_sets import Element, Set
from corten.linux.nftables import Chain, Table
from corten.network.mirror import NO_MIRROR, Mirror

LOOPBACK = IPv4Network("127.0.0.0/8")
RESOLVER = IPv4Address("127.0.0.11")
_DSTNAT, _SRCNAT, _RAW, _FILTER = -100, 100, -300, 0
_ANYWHERE = (IPv4Address("0.0.0.0"), IPv6Address("::"))
_ACCEPT, _DROP = Verdict("accept"), Verdict("drop")
AnyAddress = IPv4Address | IPv6Address
AnyInterface = IPv4Interface | IPv6Interface


@dataclass(frozen=True)
class Bridge:
    """`addresses` are the bridge's own with their prefixes, `subnets` what its containers have. Modes are Docker's gateway modes."""

    name: str
    addresses: tuple[AnyInterface, ...]
    subnets: tuple[IPv4Network | IPv6Network, ...]
    mtu: int = 1500
    internal: bool = False
    icc: bool = True
    masquerade: bool = True
    mode4: str = "nat"
    mode6: str = "nat"
    source4: IPv4Address | None = None
    source6: IPv6Address | None = None

    def __str__(self) -> str:
        words = [f"bridge {self.name} mtu {self.mtu}", *(f"address {address}" for address in self.addresses)]
        words += [word for word, on in (("internal", self.internal), ("ports isolated", not self.icc), ("masquerade", self.masquerade)) if on]
        return " ".join(words)

    @property
    def has_ipv6(self) -> bool:
        return any(subnet.version == 6 for subnet in self.subnets)


@dataclass(frozen=True)
class Endpoint:
    """One container on a link of the host.

    `kind` is veth (then `parent` is the bridge, and `name` the host's end), macvlan or ipvlan with its `mode` (then `parent` is the
    host's link). `interface` is the name inside. `default_routes`: its gateways, if the default route leaves here. `hairpin`: it
    may meet its own published port. `isolated`: it reaches no other container of its bridge.
    """

    name: str
    parent: str
    interface: str
    addresses: tuple[AnyInterface, ...]
    mac: str
    default_routes: tuple[AnyAddress, ...] = ()
    mtu: int = 1500
    kind: str = "veth"
    mode: str = ""
    hairpin: bool = False
    isolated: bool = False
    sysctls: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Publication:
    """A host port that leads to a container's. An unspecified `host_ip` means every address of the host."""

    protocol: str
    host_ip: AnyAddress
    host_port: int
    container_ip: AnyAddress
    container_port: int


@dataclass(frozen=True)
class Opening:
    """A container's port on a routed network: reached at its own address, nothing is translated."""

    protocol: str
    container_ip: AnyAddress
    container_port: int


@dataclass(frozen=True)
class Direct:
    """A container's published port, reached at its own address by whoever comes in by one link of the host; "": by any, but a network's bridge."""

    interface: str
    protocol: str
    container_ip: AnyAddress
    container_port: int


_PORT, _TARGET4, _TARGET6 = ("inet_proto", "inet_service"), ("ipv4_addr", "inet_service"), ("ipv6_addr", "inet_service")
_SETS = (
    Set("bridges", ("ifname",)),
    Set("same", ("ifname", "ifname")),
    Set("internal", ("ifname",)),
    Set("nat4", ("ifname",)), Set("nat6", ("ifname",)),
    Set("source4", ("ifname",), ("ipv4_addr",)), Set("source6", ("ifname",), ("ipv6_addr",)),
    Set("own4", ("ipv4_addr", "ifname"), interval=True), Set("own6", ("ipv6_addr", "ifname"), interval=True),
    Set("published", _PORT),
    Set("any4", _PORT, _TARGET4), Set("any6", _PORT, _TARGET6),
    Set("at4", ("ipv4_addr", *_PORT), _TARGET4), Set("at6", ("ipv6_addr", *_PORT), _TARGET6),
    Set("open4", ("ifname",)), Set("open6", ("ifname",)),
    Set("routed4", ("ifname",)), Set("routed6", ("ifname",)),
    Set("ports4", ("ipv4_addr", *_PORT)), Set("ports6", ("ipv6_addr", *_PORT)),
    Set("outer4", ("ipv4_addr", *_PORT)), Set("outer6", ("ipv6_addr", *_PORT)),
    Set("direct4", ("ifname", "ipv4_addr", *_PORT)), Set("direct6", ("ifname", "ipv6_addr", *_PORT)),
)  # fmt: skip
_WAY = (L4PROTO, DPORT)


def _translations() -> tuple[Rule, ...]:
    """A port on one address goes before the same port on all."""
    return (
        Rule((), Translate("dnat", "ip", (DADDR4, *_WAY), "at4")),
        Rule((), Translate("dnat", "ip6", (DADDR6, *_WAY), "at6")),
        Rule((LocalDestination(), Family("ipv4")), Translate("dnat", "ip", _WAY, "any4")),
        Rule((LocalDestination(), Family("ipv6")), Translate("dnat", "ip6", _WAY, "any6")),
    )


def _forward() -> tuple[Rule, ...]:
    return (
        Rule((KnownConnection(),), _ACCEPT),
        Rule((In((IIFNAME, OIFNAME), "same"),), _ACCEPT),
        Rule((In((IIFNAME,), "internal"),), _DROP, "an internal network has no way out"),
        Rule((In((OIFNAME,), "internal"),), _DROP, "an internal network has no way in"),
        Rule((WasTranslated(),), _ACCEPT),
        Rule((In((DADDR4, *_WAY), "ports4"),), _ACCEPT),
        Rule((In((DADDR6, *_WAY), "ports6"),), _ACCEPT),
        Rule((In((IIFNAME,), "bridges", inside=False), In((DADDR4, *_WAY), "outer4")), _ACCEPT),
        Rule((In((IIFNAME,), "bridges", inside=False), In((DADDR6, *_WAY), "outer6")), _ACCEPT),
        Rule((In((IIFNAME, DADDR4, *_WAY), "direct4"),), _ACCEPT),
        Rule((In((IIFNAME, DADDR6, *_WAY), "direct6"),), _ACCEPT),
        Rule((Protocol("icmp"), In((OIFNAME,), "routed4")), _ACCEPT),
        Rule((Protocol("ipv6-icmp"), In((OIFNAME,), "routed6")), _ACCEPT),
        Rule((Family("ipv4"), In((OIFNAME,), "open4")), _ACCEPT),
        Rule((Family("ipv6"), In((OIFNAME,), "open6")), _ACCEPT),
        Rule((In((OIFNAME,), "bridges"),), _DROP, "a network is entered only at published ports, by answers, and from itself"),
    )


def _outgoing() -> tuple[Rule, ...]:
    leaving: tuple[Match, ...] = (In((IIFNAME, OIFNAME), "same", inside=False),)
    return (
        # From this host's loopback, and from a container by way of the host's address: the answer must come back here. With
        # br_netfilter such a frame is bridged and has no incoming interface, so the container is told by its address.
        Rule((Address("saddr", LOOPBACK), In((OIFNAME,), "bridges")), Masquerade()),
        Rule((WasTranslated(), In((SADDR4, OIFNAME), "own4")), Masquerade()),
        Rule((WasTranslated(), In((SADDR6, OIFNAME), "own6")), Masquerade()),
        Rule((Family("ipv4"), *leaving), Translate("snat", "ip", (IIFNAME,), "source4")),
        Rule((Family("ipv6"), *leaving), Translate("snat", "ip6", (IIFNAME,), "source6")),
        Rule((Family("ipv4"), In((IIFNAME,), "nat4"), *leaving), Masquerade()),
        Rule((Family("ipv6"), In((IIFNAME,), "nat6"), *leaving), Masquerade()),
    )


def make_table(name: str, host: Mirror = NO_MIRROR) -> Table:
    """`host`: what the host's own input rules are for a published port, asked before the port is translated."""
    # The bridges route loopback addresses (route_localnet); whatever arrives from elsewhere for one is forged.
    guard = (Rule((Interface("iifname", "lo", equal=False), Address("daddr", LOOPBACK)), _DROP, "a loopback address is this host's own"),)
    return Table(
        name, _SETS,
        (
            *host.chains,
            Chain("guard", "filter", "prerouting", _RAW, guard),
            Chain("prerouting", "nat", "prerouting", _DSTNAT, _translations()),
            Chain("output", "nat", "output", _DSTNAT, _translations()),
            Chain("forward", "filter", "forward", _FILTER, _forward()),
            Chain("postrouting", "nat", "postrouting", _SRCNAT, _outgoing()),
        ),
        host.sets,
    )  # fmt: skip


def make_elements(bridges: Iterable[Bridge], published: Iterable[Publication | Opening | Direct]) -> frozenset[Element]:
    found = [element for bridge in bridges for element in _of_bridge(bridge)]
    for port in published:
        found.append(_of_port(port))
        if isinstance(port, Publication):
            found.append(Element("published", (port.protocol, port.host_port)))
    return frozenset(found)


def _of_bridge(bridge: Bridge) -> Iterator[Element]:
    name = bridge.name
    yield Element("bridges", (name,))
    yield Element("same", (name, name))
    if bridge.internal:
        yield Element("internal", (name,))
    for subnet in bridge.subnets:
        mode, source = (bridge.mode4, bridge.source4) if subnet.version == 4 else (bridge.mode6, bridge.source6)
        yield Element(f"own{subnet.version}", (subnet, name))
        if bridge.masquerade and mode in ("nat", "nat-unprotected") and not bridge.internal:
            yield Element(f"source{subnet.version}", (name,), (source,)) if source else Element(f"nat{subnet.version}", (name,))
        if mode == "nat-unprotected":
            yield Element(f"open{subnet.version}", (name,))
        if mode == "routed":
            yield Element(f"routed{subnet.version}", (name,))


def _of_port(port: Publication | Opening | Direct) -> Element:
    version = port.container_ip.version
    if isinstance(port, Direct) and not port.interface:
        return Element(f"outer{version}", (port.container_ip, port.protocol, port.container_port))
    if isinstance(port, Direct):
        return Element(f"direct{version}", (port.interface, port.container_ip, port.protocol, port.container_port))
    if isinstance(port, Opening):
        return Element(f"ports{version}", (port.container_ip, port.protocol, port.container_port))
    target = (port.container_ip, port.container_port)
    if port.host_ip in _ANYWHERE:
        return Element(f"any{version}", (port.protocol, port.host_port), target)
    return Element(f"at{version}", (port.host_ip, port.protocol, port.host_port), target)


def make_resolver_table(udp_port: int, tcp_port: int) -> Table:
    """Inside a container: what it asks 127.0.0.11 at port 53 goes to the name service's own ports, so that 53 stays the container's."""
    here = Address("daddr", IPv4Network(RESOLVER))
    rules = tuple(
        Rule((here, Port(protocol, 53)), DestinationNat(RESOLVER.packed, port)) for protocol, port in (("udp", udp_port), ("tcp", tcp_port))
    )
    return Table("corten-names", (), (Chain("output", "nat", "output", _DSTNAT, rules),))
