"""Carrying network plans out, by netlink and sysctl files only. Decides nothing."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from ipaddress import IPv4Interface

from corten.errors import CortenError
from corten.linux import netlink_filters, nft_foreign, nft_guests, nft_trace, nftables, rtnetlink
from corten.linux.namespaces import network_namespace
from corten.linux.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, Netlink, Request
from corten.linux.nft_foreign import HostTable
from corten.linux.nft_guests import ForeignChain, Guest
from corten.linux.nft_sets import Element
from corten.linux.nftables import Table
from corten.network.link_removal import LinkRemoval
from corten.network.link_watch import LinkWatch
from corten.network.plan import AnyAddress, Bridge, Endpoint
from corten.network.tracer import Tracer, following

_FIRST_INDEX = 2  # the first link after lo in a new namespace
_LO_INDEX = 1
_IPV6 = "/proc/sys/net/ipv6"  # is not there if the kernel has none
FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")  # what is set of the whole host, and nothing else is
_log = logging.getLogger("corten.network")


@dataclass(frozen=True)
class Changes:
    damaged: bool
    guest_chain: bool
    host_input: bool


class Kernel:
    """The host's network as the engine drives it: netlink sockets in the host's namespace, two to ask and two to listen."""

    def __init__(self) -> None:
        self._route = Netlink(NETLINK_ROUTE)
        self._netfilter = Netlink(NETLINK_NETFILTER)
        self._watch = Netlink(NETLINK_NETFILTER, nftables.NOTIFICATIONS)
        self._watch.let_through(netlink_filters.all_but_from(self._netfilter.port))
        self.links = LinkWatch()
        self.removal = LinkRemoval()

    def close(self) -> None:
        self.removal.close()
        self._route.close()
        self._netfilter.close()
        self._watch.close()
        self.links.close()

    # --- the host
    def address_of(self, name: str) -> IPv4Interface | None:
        """The first IPv4 address of a link that an earlier engine made; None if there is no such link or address."""
        if not self.has_link(name):
            return None
        addresses = rtnetlink.addresses_of(self._route, rtnetlink.link_index(name))
        return addresses[0] if addresses else None

    def routes(self) -> list[rtnetlink.Route]:
        return rtnetlink.routes(self._route)

    def addresses(self, without: Collection[str]) -> list[AnyAddress]:
        """What this host can be reached at from elsewhere: not of these links, nor loopback or link-local."""
        indices = {rtnetlink.link_index(name) for name in without if self.has_link(name)}
        return [address.ip for index, address in rtnetlink.addresses(self._route) if index not in indices]

    def is_bridge(self, name: str) -> bool:
        return rtnetlink.kinds(self._route).get(name) == "bridge"

    def has_link(self, name: str) -> bool:
        return rtnetlink.has_link(name)

    def ports_of(self, bridge: str) -> set[str]:
        """The links that hang on a bridge."""
        if not self.has_link(bridge):
            return set()
        index = rtnetlink.link_index(bridge)
        return {name for name, master in rtnetlink.ports_of(self._route).items() if master == index}

    @staticmethod
    def sysctls_to_set(bridge: Bridge) -> dict[str, str]:
        """What of the whole host's settings a bridge needs otherwise than they are: name -> the value now."""
        wanted = () if bridge.internal else FORWARDING[: 2 if bridge.has_ipv6 else 1]
        return {name: value for name in wanted if (value := _read_sysctl(name)) != "1"}

    @staticmethod
    def put_sysctl(name: str, value: str) -> None:
        """Raises OSError."""
        _write_sysctl(name, value)

    def plug(self, link: str, bridge: str) -> None:
        """Hang a link on a bridge again. Raises OSError."""
        self._route.execute([rtnetlink.set_master(rtnetlink.link_index(link), rtnetlink.link_index(bridge))])

    def ensure_bridge(self, bridge: Bridge) -> None:
        """Idempotent. Raises OSError."""
        self._route.execute([rtnetlink.add_bridge(bridge.name, bridge.mtu)])
        index = rtnetlink.link_index(bridge.name)
        if os.path.isdir(_IPV6):
            _write_sysctl(f"net/ipv6/conf/{bridge.name}/accept_ra", "0")  # no container is this host's router
            if bridge.has_ipv6:
                _write_sysctl(f"net/ipv6/conf/{bridge.name}/disable_ipv6", "0")
        self._route.execute([*(rtnetlink.add_address(index, address) for address in bridge.addresses), rtnetlink.set_up(index)])
        for name in self.sysctls_to_set(bridge):
            _write_sysctl(name, "1")
            _log.info("set %s to 1: containers need it", name.replace("/", "."))
        _write_sysctl(f"net/ipv4/conf/{bridge.name}/route_localnet", "1")

    def ensure_vlan(self, name: str, parent: str, number: int) -> None:
        """Idempotent. Raises OSError."""
        self._route.execute([rtnetlink.add_vlan(name, rtnetlink.link_index(parent), number)])

    def try_sublink(self, kind: str, mode: str, name: str, parent: str) -> None:
        """Make a link of a driver and take it away again: what the kernel does not have, or refuses on this parent, is known now."""
        here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._route.execute([rtnetlink.add_sublink(kind, mode, name, rtnetlink.link_index(parent), here, b"\x02" + os.urandom(5), 0)])
        finally:
            os.close(here)
        self.remove_link(name)

    def remove_link(self, name: str) -> None:
        """Idempotent; for a veth, the kernel does the same when its namespace goes. It makes the caller wait (25 ms): `removal` does not."""
        self._route.execute([rtnetlink.delete_link(name)])

    def bury_bridge(self, name: str) -> None:
        """Take a bridge with nothing on it away, without waiting. Idempotent. Raises OSError."""
        self.removal.bury(self._route, name)

    def sweep_bridges(self) -> None:
        self.removal.sweep(self._route)

    # --- rules
    def replace_rules(self, tables: Iterable[Table], elements: Collection[Element]) -> None:
        nftables.replace_tables(self._netfilter, tables, elements)

    def change_rules(self, tables: Iterable[Table], removed: Collection[Element], added: Collection[Element]) -> None:
        """Raises OSError if the tables are not as they are thought to be; then nothing has changed."""
        nftables.change_elements(self._netfilter, tables, removed, added)

    def remove_table(self, table: Table) -> None:
        """Idempotent."""
        nftables.delete_table(self._netfilter, table)

    @property
    def watched(self) -> int:
        """Readable when anybody has changed nftables; then ask `changes`."""
        return self._watch.fileno()

    def changes(self, table: str, guest_chain: str, read: Collection[tuple[str, str]]) -> Changes:
        """What others have done since the last call: to our tables, to a chain of that name, to what `host_input` gave (tables that were `read`)."""
        try:
            messages = self._watch.notifications()
        except OSError:  # some were lost: it may be
            return Changes(damaged=True, guest_chain=True, host_input=True)
        port = self._netfilter.port
        return Changes(
            nftables.taken_from(messages, table, port), nft_guests.concerns(messages, guest_chain, port),
            nft_foreign.concern_hook(messages, read, port),
        )  # fmt: skip

    def following(self, table: Table) -> AbstractContextManager[Tracer]:
        """For as long as the block: what the table marks is followed. Raises OSError."""
        return following(self._netfilter, table)

    def rule_handles(self, table: str) -> dict[str, list[int]]:
        """Chain -> its rules' handles, in order. Raises OSError."""
        return nft_trace.handles(self._netfilter, table)

    # --- other programs' rules
    def foreign_chains(self) -> list[ForeignChain]:
        return nft_guests.chains(self._netfilter)

    @staticmethod
    def host_input(own_table: str) -> list[HostTable]:
        """The tables with chains of the input hook. With a socket of its own: it may take a moment, and be done in another thread."""
        with Netlink(NETLINK_NETFILTER) as netfilter:
            return nft_foreign.read_hook(netfilter, own_table)

    def guests(self, chain: ForeignChain, comment: str) -> dict[Guest, bytes]:
        return nft_guests.guests(self._netfilter, chain, comment)

    def change_guests(self, chain: ForeignChain, comment: str, added: Iterable[Guest], removed: Iterable[bytes]) -> None:
        nft_guests.change(self._netfilter, chain, comment, added, removed)

    # --- one container
    def attach(self, endpoints: Sequence[Endpoint], namespace: int, *, fresh: bool) -> None:
        """Give a namespace (descriptor) its links, addresses and routes. On failure nothing of it stays.

        `fresh`: the namespace has nothing but lo yet, so that the links' indices inside are known beforehand.
        """
        made: list[Endpoint] = []
        try:
            for offset, endpoint in enumerate(endpoints):
                self._add_link(endpoint, namespace, _FIRST_INDEX + offset if fresh else 0)
                made.append(endpoint)
            with network_namespace(namespace):
                with Netlink(NETLINK_ROUTE) as inside:
                    inside.execute([rtnetlink.set_up(_LO_INDEX)] if fresh else [])
                    for offset, endpoint in enumerate(endpoints):
                        index = _FIRST_INDEX + offset if fresh and endpoint.kind == "veth" else rtnetlink.link_index(endpoint.interface)
                        _configure(inside, endpoint, index)
        except BaseException:
            for endpoint in made:
                self.detach(endpoint, namespace)
            raise

    def _add_link(self, endpoint: Endpoint, namespace: int, inside_index: int) -> None:
        parent = rtnetlink.link_index(endpoint.parent)
        mac = bytes.fromhex(endpoint.mac.replace(":", ""))
        if endpoint.kind != "veth":
            self._route.execute([rtnetlink.add_sublink(endpoint.kind, endpoint.mode, endpoint.interface, parent, namespace, mac, endpoint.mtu)])
            return
        requests = [rtnetlink.add_veth(endpoint.name, parent, endpoint.interface, inside_index, namespace, mac, endpoint.mtu)]
        if endpoint.hairpin or endpoint.isolated:
            requests.append(rtnetlink.set_new_bridge_port(endpoint.name, hairpin=endpoint.hairpin, isolated=endpoint.isolated))
        try:
            self._route.execute(requests)
        except OSError as error:
            if error.filename != requests[0].what:
                self.remove_link(endpoint.name)  # it is there without its flags
            raise

    def set_port(self, endpoint: Endpoint) -> None:
        index = rtnetlink.link_index(endpoint.name)
        self._route.execute([rtnetlink.set_bridge_port(index, hairpin=endpoint.hairpin, isolated=endpoint.isolated)])

    def set_loopback_up(self, namespace: int) -> None:
        """All that a container without a network has."""
        with network_namespace(namespace):
            with Netlink(NETLINK_ROUTE) as inside:
                inside.execute([rtnetlink.set_up(_LO_INDEX)])

    def detach(self, endpoint: Endpoint, namespace: int) -> None:
        """Take a link out of a running container. Idempotent."""
        if endpoint.kind == "veth":
            self.remove_link(endpoint.name)
            return
        with network_namespace(namespace):
            with Netlink(NETLINK_ROUTE) as inside:
                inside.execute([rtnetlink.delete_link(endpoint.interface)])

    def set_default_routes(self, namespace: int, routes: Iterable[tuple[str, AnyAddress]]) -> None:
        """The default routes of a running container: (interface, gateway), one a family; a family without has none."""
        with network_namespace(namespace):
            with Netlink(NETLINK_ROUTE) as inside:
                found = {gateway.version: (interface, gateway) for interface, gateway in routes}
                requests: list[Request] = []
                for version in (4, 6):
                    if version in found:
                        interface, gateway = found[version]
                        requests.append(rtnetlink.set_default_route(gateway, rtnetlink.link_index(interface)))
                    elif version == 4 or os.path.isdir(_IPV6):
                        requests.append(rtnetlink.delete_default_route(version))
                inside.execute(requests)

    def open_resolver(self, namespace: int, address: str, make_table: Callable[[int, int], Table], *,
                      fresh: bool) -> tuple[socket.socket, socket.socket]:  # fmt: skip
        """UDP and TCP sockets of the name service inside a namespace, at ports that the kernel chooses, with port 53 led to them.

        `fresh`: there has been none before.
        """
        with network_namespace(namespace):
            datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            try:
                datagram.bind((address, 0))
                stream.bind((address, 0))
                stream.listen(64)
                with Netlink(NETLINK_NETFILTER) as inside:
                    table = make_table(datagram.getsockname()[1], stream.getsockname()[1])
                    if fresh:
                        nftables.add_table(inside, table)
                    else:
                        nftables.replace_tables(inside, [table])
            except BaseException:
                datagram.close()
                stream.close()
                raise
        return datagram, stream


def _configure(inside: Netlink, endpoint: Endpoint, index: int) -> None:
    """Inside the container's namespace. As in Docker, IPv6 is off where no address was given; its router is known: nobody else may say."""
    if os.path.isdir(_IPV6):
        has_ipv6 = any(address.version == 6 for address in endpoint.addresses)
        _write_sysctl(f"net/ipv6/conf/{endpoint.interface}/disable_ipv6", "0" if has_ipv6 else "1")
        if has_ipv6:
            _write_sysctl(f"net/ipv6/conf/{endpoint.interface}/accept_ra", "0")
    for name, value in endpoint.sysctls:
        try:
            _write_sysctl(name, value)
        except FileNotFoundError:
            raise NoSuchSysctl(link=endpoint.name or endpoint.parent, name=name) from None
    inside.execute(
        [
            *(rtnetlink.add_address(index, address) for address in endpoint.addresses),
            rtnetlink.set_up(index),
            *(rtnetlink.set_default_route(gateway, index) for gateway in endpoint.default_routes),
        ]
    )


class NoSuchSysctl(CortenError):
    template = "failed to add interface {link} to sandbox: /proc/sys/{name} is not a sysctl file"


def _write_sysctl(name: str, value: str) -> None:
    if _read_sysctl(name) != value:
        with open(f"/proc/sys/{name}", "w", encoding="utf-8") as file:
            file.write(value)


def _read_sysctl(name: str) -> str:
    with open(f"/proc/sys/{name}", encoding="utf-8") as current:
        return current.read().strip()
