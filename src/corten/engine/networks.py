"""The networks there are (bridge, host, none), and which container has which address and ports on the bridge.

Owns address leases (derived from the records), reserved host ports, and the table of rules. The kernel's part is
network.apply; what is wanted is network.plan.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import msgspec

from corten.engine.events import Events
from corten.engine.options import parse_port
from corten.engine.records import ContainerRecord, EndpointRecord, PublishedPort
from corten.errors import AmbiguousPrefix, Invalid, NoSuchNetwork, PortInUse
from corten.network import ipam
from corten.network.apply import Kernel
from corten.network.plan import Bridge, Endpoint, Publication, make_table
from corten.spec.engine import HostConfig
from corten.spec.timestamps import now_ns, rfc3339_nano
from corten.store.database import Database

_MODES = {"default": "bridge", "": "bridge", "bridge": "bridge", "host": "host", "none": "none"}
_DRIVERS = {"bridge": "bridge", "host": "host", "none": "null"}
_SOCKET_TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_LINK_PATIENCE = 1.0  # seconds that the kernel gets to take the link of an ended container away
_log = logging.getLogger("corten.engine")


def drivers() -> list[str]:
    """As /info names them."""
    return sorted(set(_DRIVERS.values()))
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


@dataclass(frozen=True)
class Network:
    id: str
    name: str
    driver: str
    created: str
    bridge: Bridge | None


class Networks:
    """`records` yields the containers that there are: leases are derived from them, not stored twice."""

    def __init__(self, kernel: Kernel, database: Database, events: Events, bridge_name: str, bip: str,
                 records: Callable[[], Iterable[ContainerRecord]]) -> None:  # fmt: skip
        self._kernel, self._database, self._events, self._records = kernel, database, events, records
        self._reserved: dict[str, list[socket.socket]] = {}
        self._starting: dict[str, str] = {}  # container id -> address, between lease and record
        self._leaving: dict[str, str] = {}  # veth -> address, until the kernel has taken the link away
        self._removals: set[asyncio.Future[None]] = set()
        self._bridge = self._make_bridge(bridge_name, bip)
        self._networks = [self._load(name) for name in ("bridge", "host", "none")]

    def _make_bridge(self, name: str, bip: str) -> Bridge:
        if bip:
            try:
                gateway = IPv4Interface(bip)
            except ValueError:
                raise Invalid(f"--bip {bip!r}: want an IPv4 address with its prefix, such as 172.20.0.1/16") from None
        else:
            existing = self._kernel.existing_bridge(name)
            if existing:
                gateway = existing.gateway
            else:
                subnet = self._subnet()
                gateway = IPv4Interface((subnet.network_address + 1, subnet.prefixlen))
        bridge = Bridge(name, gateway)
        self._kernel.ensure_bridge(bridge)
        return bridge

    def _subnet(self) -> IPv4Network:
        """The one used before, as long as nothing else uses it: published addresses outlive a restart."""
        in_use = self._kernel.networks_in_use()
        before = self._database.setting("bridge-subnet")
        if before and not any(IPv4Network(before).overlaps(other) for other in in_use):
            return IPv4Network(before)
        chosen = ipam.choose_subnet(in_use)
        self._database.put_setting("bridge-subnet", str(chosen))
        return chosen

    def _load(self, name: str) -> Network:
        stored = self._database.setting(f"network-{name}")
        if stored is None:
            stored = f"{secrets.token_hex(32)} {rfc3339_nano(now_ns())}"
            self._database.put_setting(f"network-{name}", stored)
        network_id, created = stored.split(" ")
        return Network(network_id, name, _DRIVERS[name], created, self._bridge if name == "bridge" else None)

    def all(self) -> list[Network]:
        return list(self._networks)

    def find(self, name: str) -> Network:
        """By id, name or unique prefix. Raises NoSuchNetwork."""
        for network in self._networks:
            if name in (network.id, network.name):
                return network
        found = [network for network in self._networks if name and network.id.startswith(name)]
        if len(found) > 1:
            raise AmbiguousPrefix(name=name)
        if not found:
            raise NoSuchNetwork(name=name)
        return found[0]

    def of_mode(self, mode: str) -> Network | None:
        """The network of a HostConfig.NetworkMode; None for container:ID. Raises NoSuchNetwork."""
        if mode.startswith("container:"):
            return None
        return self.find(_MODES.get(mode, mode))

    def restore(self) -> None:
        """Start-up: reserve the ports of what is running and write the table."""
        for record in self._records():
            if record.ports:
                sockets: list[socket.socket] = []
                self._reserved[record.id] = sockets
                for port in record.ports:
                    with suppress(OSError):  # somebody took it while no engine was there; the rules still lead here
                        sockets.append(_bind(port.protocol, port.host_ip, port.host_port))
        self._apply_rules()

    # --- one container
    def lease(self, record: ContainerRecord) -> ContainerRecord:
        """The record of a container that is about to start, with address and ports chosen. Raises PortInUse; nothing is held then."""
        network = self.of_mode(record.host_config.network_mode)
        if network is None:
            return record
        endpoint_id = secrets.token_hex(32)
        place = msgspec.structs.replace(record.endpoints[0], network_id=network.id, id=endpoint_id)
        if network.bridge is None:
            return msgspec.structs.replace(record, endpoints=[place])
        taken = [
            IPv4Interface(endpoint.address).ip
            for other in self._records()
            for endpoint in other.endpoints
            if endpoint.address and other.id != record.id
        ]
        # A dying namespace still answers: whoever got its address at once would share its MAC, too. The kernel takes the link
        # away within milliseconds; asking for it here would wait for that (25 ms, measured).
        self._leaving = {veth: address for veth, address in self._leaving.items() if self._kernel.has_link(veth)}
        taken += [IPv4Interface(address).ip for address in (*self._starting.values(), *self._leaving.values())]
        address = ipam.choose_address(network.bridge.subnet, taken)
        ports = self._reserve(record, endpoint_id)
        place = msgspec.structs.replace(
            place,
            address=f"{address}/{network.bridge.subnet.prefixlen}",
            gateway=str(network.bridge.gateway.ip),
            mac=place.settings.mac_address.lower() or ipam.mac_for(address),
            veth=f"veth{endpoint_id[:8]}",  # of this start: the kernel takes the last one's link away in its own time
        )
        self._starting[record.id] = place.address
        return msgspec.structs.replace(record, endpoints=[place], ports=ports)

    def _reserve(self, record: ContainerRecord, endpoint_id: str) -> list[PublishedPort]:
        sockets: list[socket.socket] = []
        ports: list[PublishedPort] = []
        try:
            for container_port, protocol, host_ip, wanted in wanted_ports(record.host_config, record.config.exposed_ports or {}):
                bound = self._reserve_one(record, endpoint_id, protocol, host_ip, wanted)
                sockets.append(bound)
                ports.append(PublishedPort(protocol, container_port, host_ip, bound.getsockname()[1]))
        except BaseException:
            for bound in sockets:
                bound.close()
            raise
        if sockets:
            self._reserved[record.id] = sockets
        return ports

    @staticmethod
    def _reserve_one(record: ContainerRecord, endpoint_id: str, protocol: str, host_ip: str, wanted: range) -> socket.socket:
        for number in wanted:
            try:
                return _bind(protocol, host_ip, number)
            except OSError as error:
                if error.errno == 99:
                    raise Invalid(f"cannot publish on {host_ip}: this host does not have the address") from None
        raise PortInUse(name=record.name, endpoint=endpoint_id, address=host_ip, port=wanted[0], protocol=protocol)

    def attach(self, record: ContainerRecord, namespace: str) -> None:
        """Make the veth pair, address and route, and lead the published ports here. Raises OSError; then nothing stays."""
        for place in record.active_endpoints:
            if place.veth:
                endpoint = Endpoint(place.veth, IPv4Interface(place.address), IPv4Address(place.gateway), place.mac, hairpin=bool(record.ports))
                self._kernel.attach(self._bridge, endpoint, namespace)
            elif place.network == "none":
                self._kernel.set_loopback_up(namespace)
            if record.ports:
                self._apply_rules(record)
            self._say("connect", record, place)

    def _say(self, action: str, record: ContainerRecord, place: EndpointRecord) -> None:
        network = self.find(place.network_id)
        self._events.emit("network", action, network.id, container=record.id, name=network.name, type=network.driver)

    def settled(self, container_id: str) -> None:
        """The lease is in the container's record now (or the start failed)."""
        self._starting.pop(container_id, None)

    def give_back(self, record: ContainerRecord) -> None:
        """Let address and ports go: the start has failed, or the stored record no longer has the endpoint. Idempotent."""
        self._starting.pop(record.id, None)
        for bound in self._reserved.pop(record.id, []):
            bound.close()
        for place in record.endpoints:
            if place.veth:
                self._leaving[place.veth] = place.address
                asyncio.get_running_loop().call_later(_LINK_PATIENCE, self._take_away, place.veth)
        if record.ports:
            self._apply_rules()

    def _take_away(self, veth: str) -> None:
        """The kernel has not: somebody keeps the namespace (an open descriptor, a connection that does not end). The link goes now."""
        if self._kernel.has_link(veth):
            removal = asyncio.ensure_future(asyncio.to_thread(self._kernel.remove_link, veth))
            self._removals.add(removal)
            removal.add_done_callback(self._removed)

    def _removed(self, removal: asyncio.Future[None]) -> None:
        self._removals.discard(removal)
        if not removal.cancelled() and removal.exception():
            _log.warning("a link of an ended container stays: %s", removal.exception())

    def release(self, record: ContainerRecord) -> None:
        """The container has ended: give back, and say that it is no longer connected. `record` is as it was while it ran."""
        self.give_back(record)
        for place in record.active_endpoints:
            self._say("disconnect", record, place)

    def _apply_rules(self, extra: ContainerRecord | None = None) -> None:
        records = {record.id: record for record in self._records()}
        if extra:
            records[extra.id] = extra
        publications = [
            Publication(port.protocol, IPv4Address(port.host_ip), port.host_port, IPv4Address(record.gateway.ip), port.container_port)
            for record in records.values()
            if record.gateway
            for port in record.ports
        ]
        self._kernel.apply_rules(make_table(self._bridge.name, self._bridge, publications))

    def tear_down(self) -> None:
        """Take the bridge and the table away: for an engine that ends with nothing running."""
        self._kernel.remove(self._bridge.name, self._bridge.name)

    def close(self) -> None:
        for sockets in self._reserved.values():
            for bound in sockets:
                bound.close()
        self._kernel.close()


def wanted_ports(host: HostConfig, exposed: Mapping[str, object]) -> list[tuple[int, str, str, range]]:
    """Pure: (container port, protocol, host address, acceptable host ports); range(1) asks for any free one."""
    found: list[tuple[int, str, str, range]] = []
    for text, bindings in (host.port_bindings or {}).items():
        number, protocol = parse_port(text)
        for binding in bindings or []:
            low, _, high = binding.host_port.partition("-")
            first = int(low or 0)
            found.append((number, protocol, binding.host_ip or "0.0.0.0", range(first, int(high or first) + 1)))
    if host.publish_all_ports:
        published = {(number, protocol) for number, protocol, _, _ in found}
        for text in exposed:
            number, protocol = parse_port(text)
            if (number, protocol) not in published:
                found.append((number, protocol, "0.0.0.0", range(1)))
    return found


def _bind(protocol: str, host_ip: str, port: int) -> socket.socket:
    """Hold a host port: nobody else can take it, and a second container is told so. Nothing ever arrives here."""
    bound = socket.socket(socket.AF_INET, _SOCKET_TYPES[protocol] | socket.SOCK_CLOEXEC)
    try:
        bound.bind((host_ip, port))
    except OSError:
        bound.close()
        raise
    return bound


def check_mac(mac: str) -> None:
    if mac and not _MAC.fullmatch(mac):
        raise Invalid(f"invalid MAC address: {mac}")
