"""Links, addresses and routes as netlink requests. Pure builders, and the two questions asked of the host.

Sources: rtnetlink(7), include/uapi/linux/{rtnetlink,if_link,if_addr,veth}.h.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

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

RTM_NEWLINK, RTM_DELLINK, RTM_SETLINK = 16, 17, 19
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
_AF_BRIDGE, _IFLA_PROTINFO, _IFLA_BRPORT_MODE = 7, 12, 4
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_EEXIST, _ENODEV = 17, 19
_IPV4 = socket.AF_INET


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


def set_hairpin(index: int) -> Request:
    """Let a bridge port send back what came in by it: with br_netfilter a translated frame is bridged, not routed."""
    header = struct.pack("=BxHiII", _AF_BRIDGE, 0, index, 0, 0)
    return Request(RTM_SETLINK, 0, header + nested(_IFLA_PROTINFO, attribute(_IFLA_BRPORT_MODE, b"\1")), f"hairpin on link {index}")


def delete_link(name: str) -> Request:
    """Idempotent."""
    return Request(RTM_DELLINK, 0, _link_header() + text(_IFLA_IFNAME, name), f"delete {name}", ignore=(_ENODEV,))


def add_address(index: int, interface: IPv4Interface) -> Request:
    body = struct.pack("=BBBBI", _IPV4, interface.network.prefixlen, 0, 0, index)
    body += attribute(_IFA_LOCAL, interface.ip.packed) + attribute(_IFA_ADDRESS, interface.ip.packed)
    body += attribute(_IFA_BROADCAST, interface.network.broadcast_address.packed)
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, f"address {interface}", ignore=(_EEXIST,))


def add_default_route(gateway: IPv4Address, index: int) -> Request:
    # table main, protocol boot, scope universe, type unicast
    body = struct.pack("=BBBBBBBBI", _IPV4, 0, 0, 0, 254, 3, 0, 1, 0)
    body += attribute(_RTA_GATEWAY, gateway.packed) + u32(_RTA_OIF, index)
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, f"default route via {gateway}")


def link_index(name: str) -> int:
    """Raises OSError if there is no such link here."""
    return socket.if_nametoindex(name)


def networks_in_use(netlink: Netlink) -> list[IPv4Network]:
    """Destinations of every IPv4 route but the default one: what a new subnet must not overlap."""
    found: list[IPv4Network] = []
    request = Request(RTM_GETROUTE, 0, struct.pack("=BBBBBBBBI", _IPV4, 0, 0, 0, 0, 0, 0, 0, 0), "routes")
    for _, body in netlink.dump(request):
        prefix = body[1]
        destination = parse_attributes(body[12:]).get(_RTA_DST)
        if destination and prefix:
            found.append(IPv4Network((destination, prefix)))
    return found


def addresses_of(netlink: Netlink, index: int) -> list[IPv4Interface]:
    found: list[IPv4Interface] = []
    for _, body in netlink.dump(Request(RTM_GETADDR, 0, struct.pack("=BBBBI", _IPV4, 0, 0, 0, 0), "addresses")):
        if struct.unpack_from("=I", body, 4)[0] == index:
            local = parse_attributes(body[8:]).get(_IFA_LOCAL)
            if local:
                found.append(IPv4Interface((local, body[1])))
    return found
