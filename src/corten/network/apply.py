"""Carrying a network plan out, by netlink and sysctl files only. Decides nothing."""

from __future__ import annotations

import os
from ipaddress import IPv4Network

from corten.linux import nftables, rtnetlink
from corten.linux.namespaces import network_namespace
from corten.linux.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, Netlink
from corten.network.plan import Bridge, Endpoint

_INSIDE_INDEX = 2  # the first link after lo in a new namespace
_LO_INDEX = 1


class Kernel:
    """The host's network as the engine drives it: two netlink sockets in the host's namespace."""

    def __init__(self) -> None:
        self._route = Netlink(NETLINK_ROUTE)
        self._netfilter = Netlink(NETLINK_NETFILTER)

    def close(self) -> None:
        self._route.close()
        self._netfilter.close()

    def existing_bridge(self, name: str) -> Bridge | None:
        """The bridge that an earlier engine made, with its address; None if there is none."""
        if not self.has_link(name):
            return None
        addresses = rtnetlink.addresses_of(self._route, rtnetlink.link_index(name))
        return Bridge(name, addresses[0]) if addresses else None

    def networks_in_use(self) -> list[IPv4Network]:
        return rtnetlink.networks_in_use(self._route)

    def ensure_bridge(self, bridge: Bridge) -> None:
        """Idempotent."""
        self._route.execute([rtnetlink.add_bridge(bridge.name, bridge.mtu)])
        index = rtnetlink.link_index(bridge.name)
        self._route.execute([rtnetlink.add_address(index, bridge.gateway), rtnetlink.set_up(index)])
        _write_sysctl("net/ipv4/ip_forward", "1")
        _write_sysctl(f"net/ipv4/conf/{bridge.name}/route_localnet", "1")

    def attach(self, bridge: Bridge, endpoint: Endpoint, namespace: str) -> None:
        """Give a namespace (path) its eth0 on the bridge, address and default route. On failure nothing stays."""
        fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            mac = bytes.fromhex(endpoint.mac.replace(":", ""))
            index = rtnetlink.link_index(bridge.name)
            self._route.execute(
                [rtnetlink.add_veth(endpoint.veth, index, "eth0", _INSIDE_INDEX, fd, mac, bridge.mtu)]
            )
            if endpoint.hairpin:
                self._route.execute([rtnetlink.set_hairpin(rtnetlink.link_index(endpoint.veth))])
            with network_namespace(fd):
                inside = Netlink(NETLINK_ROUTE)
            with inside:
                inside.execute(
                    [
                        rtnetlink.set_up(_LO_INDEX),
                        rtnetlink.add_address(_INSIDE_INDEX, endpoint.address),
                        rtnetlink.set_up(_INSIDE_INDEX),
                        rtnetlink.add_default_route(endpoint.gateway, _INSIDE_INDEX),
                    ]
                )
        except BaseException:
            self.detach(endpoint.veth)
            raise
        finally:
            os.close(fd)

    def set_loopback_up(self, namespace: str) -> None:
        """All that a container without a network has."""
        fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with network_namespace(fd):
                inside = Netlink(NETLINK_ROUTE)
            with inside:
                inside.execute([rtnetlink.set_up(_LO_INDEX)])
        finally:
            os.close(fd)

    def has_link(self, name: str) -> bool:
        try:
            rtnetlink.link_index(name)
        except OSError:
            return False
        return True

    def detach(self, veth: str) -> None:
        """Idempotent; the kernel does the same when the namespace goes."""
        self._route.execute([rtnetlink.delete_link(veth)])

    @staticmethod
    def remove_link(veth: str) -> None:
        """`detach` for another thread, with a socket of its own: the kernel makes the caller wait (25 ms, measured)."""
        with Netlink(NETLINK_ROUTE) as route:
            route.execute([rtnetlink.delete_link(veth)])

    def apply_rules(self, table: nftables.Table) -> None:
        nftables.replace_table(self._netfilter, table)

    def remove(self, bridge: str, table: str) -> None:
        """Take away everything that this engine has made. Idempotent."""
        nftables.delete_table(self._netfilter, table)
        self._route.execute([rtnetlink.delete_link(bridge)])


def _write_sysctl(name: str, value: str) -> None:
    path = f"/proc/sys/{name}"
    with open(path, encoding="utf-8") as current:
        if current.read().strip() == value:
            return
    with open(path, "w", encoding="utf-8") as file:
        file.write(value)
