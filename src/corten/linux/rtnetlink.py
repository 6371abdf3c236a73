"""Links, addresses and routes as netlink requests. Pure builders, and the two questions asked of the host.

Sources: rtnetlink(7), include/uapi/linux/{rtnetlink,if_link,if_addr,veth}.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from corten.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    Request,
    attribute,
    nested,
    parse_attributes,
    text,
    u32,
)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
_IFLA_LINK = 5
_AF_BRIDGE, _IFLA_PROTINFO, _IFLA_BRPORT_MODE, _IFLA_BRPORT_ISOLATED = 7, 12, 4, 33
_IFLA_VLAN_ID, _IFLA_MACVLAN_MODE, _IFLA_IPVLAN_MODE, _IFLA_IPVLAN_FLAGS = 1, 1, 1, 2
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_IPVLAN_MODES, _IPVLAN_FLAGS = {"l2": 0, "l3": 1, "l3s": 2}, {"bridge": 0, "private": 1, "vepa": 2}
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 4, 5
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_EEXIST, _ENODEV, _ESRCH = 17, 19, 3
_IFA_F_NODAD = 2
_SCOPE_GLOBAL = 0
_IPV4, _IPV6 = socket.AF_INET, socket.AF_INET6
NLM_F_REPLACE = 0x100
# Multicast groups, as masks for Netlink: links, IPv4 and IPv6 addresses
LINK_NOTIFICATIONS, ADDRESS_NOTIFICATIONS = 0x1, 0x10 | 0x100
AnyAddress = IPv4Address | IPv6Address
AnyInterface = IPv4Interface | IPv6Interface


def _link_header(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, change)


def add_bridge(name: str, mtu: int) -> Request:
    """Idempotent: an existing link of the name is left as it is."""
    body = _link_header(flags=IFF_UP, change=IFF_UP) + text(_IFLA_IFNAME, name) + u32(_IFLA_MTU, mtu)
    body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "bridge"))
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"bridge {name}", ignore=(_EEXIST,))


def add_veth(name: str, bridge_index: int, peer: str, peer_index: int, peer_namespace: int, mac: bytes, mtu: int) -> Request:
    """A veth pair: `name` on the bridge here and up, `peer` with its MAC in the namespace (descriptor) and still down."""
    other = _link_header(peer_index) + text(_IFLA_IFNAME, peer) + attribute(_IFLA_ADDRESS, mac)
    other += u32(_IFLA_NET_NS_FD, peer_namespace) + u32(_IFLA_MTU, mtu)
    body = _link_header(flags=IFF_UP, change=IFF_UP) + text(_IFLA_IFNAME, name) + u32(_IFLA_MASTER, bridge_index)
    body += u32(_IFLA_MTU, mtu)
    body += nested(
        _IFLA_LINKINFO, text(_IFLA_INFO_KIND, "veth"), nested(_IFLA_INFO_DATA, nested(_VETH_INFO_PEER, other))
    )
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"veth {name}")


def set_up(index: int) -> Request:
    return Request(RTM_NEWLINK, 0, _link_header(index, IFF_UP, IFF_UP), f"link {index} up")


def set_down(index: int) -> Request:
    return Request(RTM_NEWLINK, 0, _link_header(index, 0, IFF_UP), f"link {index} down")


def rename(index: int, name: str) -> Request:
    """Of a link that is down."""
    return Request(RTM_NEWLINK, 0, _link_header(index) + text(_IFLA_IFNAME, name), f"link {index} named {name}")


def set_master(index: int, bridge_index: int) -> Request:
    return Request(RTM_NEWLINK, 0, _link_header(index) + u32(_IFLA_MASTER, bridge_index), f"link {index} on bridge {bridge_index}")


def set_new_bridge_port(name: str, *, hairpin: bool, isolated: bool) -> Request:
    """As `set_bridge_port`, of a link that goes before it in the same batch: its index is not known yet."""
    flags = attribute(_IFLA_BRPORT_MODE, bytes([hairpin])) + attribute(_IFLA_BRPORT_ISOLATED, bytes([isolated]))
    info = nested(_IFLA_LINKINFO, text(_IFLA_INFO_SLAVE_KIND, "bridge"), nested(_IFLA_INFO_SLAVE_DATA, flags))
    return Request(RTM_NEWLINK, 0, _link_header() + text(_IFLA_IFNAME, name) + info, f"flags of bridge port {name}")


def set_bridge_port(index: int, *, hairpin: bool, isolated: bool) -> Request:
    """`hairpin`: the port sends back what came in by it: with br_netfilter a translated frame is bridged, not routed.
    `isolated`: it exchanges frames with the bridge itself, but with no other isolated port.
    """
    header = struct.pack("=BxHiII", _AF_BRIDGE, 0, index, 0, 0)
    flags = attribute(_IFLA_BRPORT_MODE, bytes([hairpin])) + attribute(_IFLA_BRPORT_ISOLATED, bytes([isolated]))
    return Request(RTM_SETLINK, 0, header + nested(_IFLA_PROTINFO, flags), f"flags of bridge port {index}")


def add_sublink(kind: str, mode: str, name: str, parent_index: int, namespace: int, mac: bytes, mtu: int) -> Request:
    """A macvlan or ipvlan of a host's link, in the namespace (descriptor) and still down. `mode` as ip-link(8) names it; of an ipvlan
    mode, flag (l2, bridge).
    """
    body = _link_header() + text(_IFLA_IFNAME, name) + u32(_IFLA_LINK, parent_index) + u32(_IFLA_NET_NS_FD, namespace)
    if mtu:
        body += u32(_IFLA_MTU, mtu)
    if kind == "macvlan":
        body += attribute(_IFLA_ADDRESS, mac)
        data = u32(_IFLA_MACVLAN_MODE, _MACVLAN_MODES[mode])
    else:
        first, _, flag = mode.partition(",")
        data = attribute(_IFLA_IPVLAN_MODE, struct.pack("=H", _IPVLAN_MODES[first]))
        data += attribute(_IFLA_IPVLAN_FLAGS, struct.pack("=H", _IPVLAN_FLAGS[flag or "bridge"]))
    body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, kind), nested(_IFLA_INFO_DATA, data))
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"{kind} {name}")


def add_vlan(name: str, parent_index: int, number: int) -> Request:
    """Idempotent: a link of the name is left as it is."""
    body = _link_header(flags=IFF_UP, change=IFF_UP) + text(_IFLA_IFNAME, name) + u32(_IFLA_LINK, parent_index)
    data = attribute(_IFLA_VLAN_ID, struct.pack("=H", number))
    body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "vlan"), nested(_IFLA_INFO_DATA, data))
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"vlan {name}", ignore=(_EEXIST,))


def delete_link(name: str) -> Request:
    """Idempotent."""
    return Request(RTM_DELLINK, 0, _link_header() + text(_IFLA_IFNAME, name), f"delete {name}", ignore=(_ENODEV,))


def add_address(index: int, interface: AnyInterface) -> Request:
    """Idempotent. An IPv6 address is usable at once: who gave it knows that it is nobody else's (no DAD)."""
    family, flags = (_IPV4, 0) if interface.version == 4 else (_IPV6, _IFA_F_NODAD)
    body = struct.pack("=BBBBI", family, interface.network.prefixlen, flags, 0, index)
    body += attribute(_IFA_LOCAL, interface.ip.packed) + attribute(_IFA_ADDRESS, interface.ip.packed)
    if interface.version == 4:
        body += attribute(_IFA_BROADCAST, interface.network.broadcast_address.packed)
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, f"address {interface}", ignore=(_EEXIST,))


def _default(family: int) -> bytes:
    return struct.pack("=BBBBBBBBI", family, 0, 0, 0, 254, 3, 0, 1, 0)  # table main, protocol boot, scope universe, type unicast


def set_default_route(gateway: AnyAddress, index: int) -> Request:
    """In the place of the one that there is."""
    body = _default(_IPV4 if gateway.version == 4 else _IPV6) + attribute(_RTA_GATEWAY, gateway.packed) + u32(_RTA_OIF, index)
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, f"default route via {gateway}")


def delete_default_route(version: int) -> Request:
    """Idempotent."""
    return Request(RTM_DELROUTE, 0, _default(_IPV4 if version == 4 else _IPV6), "default route", ignore=(_ESRCH,))


def link_index(name: str) -> int:
    """Raises OSError if there is no such link here."""
    return socket.if_nametoindex(name)


def has_link(name: str) -> bool:
    try:
        link_index(name)
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Route:
    destination: IPv4Network | IPv6Network
    out: int  # index of the link; 0 for none


def routes(netlink: Netlink) -> list[Route]:
    """Every unicast route but default and host routes: what a new subnet must not overlap."""
    found: list[Route] = []
    for family in (_IPV4, _IPV6):
        request = Request(RTM_GETROUTE, 0, struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0), "routes")
        for _, body in netlink.dump(request):
            prefix, values = body[1], parse_attributes(body[12:])
            destination = values.get(_RTA_DST)
            if not destination or not prefix or body[7] != 1:
                continue
            out = struct.unpack("=I", values[_RTA_OIF])[0] if _RTA_OIF in values else 0
            kind = IPv4Network if family == _IPV4 else IPv6Network
            if family == _IPV4 or not destination.startswith(b"\xfe\x80"):
                found.append(Route(kind((destination, prefix)), out))
    return found


def ports_of(netlink: Netlink) -> dict[str, int]:
    """Name -> index of its bridge, of every link that is a port of one."""
    found: dict[str, int] = {}
    for _, body in netlink.dump(Request(RTM_GETLINK, 0, _link_header(), "links")):
        values = parse_attributes(body[16:])
        if _IFLA_MASTER in values:
            found[values[_IFLA_IFNAME].rstrip(b"\0").decode()] = struct.unpack("=I", values[_IFLA_MASTER])[0]
    return found


def kinds(netlink: Netlink) -> dict[str, str]:
    """Name -> kind (bridge, veth, ...) of every link that has one. Not read from /sys, which may show another namespace's links."""
    found: dict[str, str] = {}
    for _, body in netlink.dump(Request(RTM_GETLINK, 0, _link_header(), "links")):
        values = parse_attributes(body[16:])
        kind = parse_attributes(values.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND)
        if kind:
            found[values[_IFLA_IFNAME].rstrip(b"\0").decode()] = kind.rstrip(b"\0").decode()
    return found


def addresses_of(netlink: Netlink, index: int) -> list[IPv4Interface]:
    """The IPv4 addresses of a link."""
    return [address for owner, address in addresses(netlink) if owner == index and isinstance(address, IPv4Interface)]


def addresses(netlink: Netlink) -> list[tuple[int, AnyInterface]]:
    """(link's index, address) of every address that counts everywhere (scope global)."""
    found: list[tuple[int, AnyInterface]] = []
    for family, kind, local in ((_IPV4, IPv4Interface, _IFA_LOCAL), (_IPV6, IPv6Interface, _IFA_ADDRESS)):
        for _, body in netlink.dump(Request(RTM_GETADDR, 0, struct.pack("=BBBBI", family, 0, 0, 0, 0), "addresses")):
            value = parse_attributes(body[8:]).get(local)
            if value and body[0] == family and body[3] == _SCOPE_GLOBAL:
                found.append((struct.unpack_from("=I", body, 4)[0], kind((value, body[1]))))
    return found


def removed_links(messages: Iterable[tuple[int, int, bytes]]) -> set[str]:
    """Of notifications (type, sender, body): the names of links that are gone from here."""
    return _named_in(messages, socket.AF_UNSPEC)


def unplugged_links(messages: Iterable[tuple[int, int, bytes]]) -> set[str]:
    """The names of links that are on their bridge no longer; also of those that are gone."""
    return _named_in(messages, _AF_BRIDGE)


def _named_in(messages: Iterable[tuple[int, int, bytes]], family: int) -> set[str]:
    gone = (body for kind, _, body in messages if kind == RTM_DELLINK and body[0] == family)
    return {parse_attributes(body[16:]).get(_IFLA_IFNAME, b"").rstrip(b"\0").decode() for body in gone}


def removed_addresses(messages: Iterable[tuple[int, int, bytes]]) -> list[tuple[int, AnyAddress]]:
    """(link's index, address) of those that notifications say have gone."""
    found: list[tuple[int, AnyAddress]] = []
    for kind, _, body in messages:
        if kind == RTM_DELADDR and body[0] in (_IPV4, _IPV6):
            values = parse_attributes(body[8:])
            packed = values.get(_IFA_LOCAL) or values[_IFA_ADDRESS]
            found.append((struct.unpack_from("=I", body, 4)[0], IPv4Address(packed) if body[0] == _IPV4 else IPv6Address(packed)))
    return found
