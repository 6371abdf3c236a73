"""Containers on networks: leases of addresses and ports at a start, links made and taken away. Connecting one that runs is connecting.py's.

A lease is in the container's record, nowhere else. A link that no record names is swept at the next start of the engine, a record
whose link is gone loses it: that is what makes a crash in the middle of anything harmless.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface

from msgspec.structs import replace

from corten.engine import endpoint_settings, states
from corten.engine.containers import Containers
from corten.engine.exposure import Exposure
from corten.engine.firewall import Firewall
from corten.engine.host_ports import HostPorts, Wanted, wanted_ports
from corten.engine.name_service import NameService
from corten.engine.network_files import NetworkFiles
from corten.engine.network_records import NetworkRecord, bridge_of
from corten.engine.networks import Networks
from corten.engine.options import parse_port
from corten.engine.records import ContainerRecord, EndpointRecord, PublishedPort
from corten.errors import CortenError, Forbidden, Invalid, KernelRefused
from corten.linux.nft_sets import Element
from corten.network import ipam, port_guard, sublink_options
from corten.network.apply import Kernel, NoSuchSysctl
from corten.network.plan import AnyAddress, Direct, Endpoint, Opening, Publication, make_elements
from corten.spec.engine import EndpointSettings, HostConfig

_LINK_PATIENCE = 1.0  # seconds that the kernel gets to take the link of an ended container away
_AT_START = "failed to set up container networking: "
_log = logging.getLogger("corten.engine")


class Endpoints:
    def __init__(self, kernel: Kernel, networks: Networks, firewall: Firewall, containers: Containers,
                 network_files: NetworkFiles, names: NameService, exposure: Exposure) -> None:  # fmt: skip
        self._exposure = exposure
        self._kernel, self._networks, self._firewall, self._containers = kernel, networks, firewall, containers
        self._ports, self._files, self._names = HostPorts(), network_files, names
        self._leaving: dict[str, EndpointRecord] = {}  # veth -> its endpoint, until the kernel has taken the link away
        self._unplugged: set[str] = set()  # veths of running containers that somebody has taken off their bridge
        self._guests: dict[str, ContainerRecord] = {}  # steps of builds: on a network, and in no list of containers

    # --- a start
    def lease(self, record: ContainerRecord) -> ContainerRecord:
        """The record of a container that is about to start, with addresses and ports chosen. To be saved before the next await.

        Raises Docker's errors (no such network, address or port in use, subnet full); nothing is held then.
        """
        leased = replace(record, endpoints=[], ports=[])
        try:
            for place in record.endpoints:
                leased = replace(leased, endpoints=[*leased.endpoints, self.lease_one(leased, place)])
            return self.with_ports(leased)
        except CortenError as error:
            if not error.message.startswith(_AT_START):
                error.message = _AT_START + error.message
            raise

    def lease_one(self, record: ContainerRecord, place: EndpointRecord) -> EndpointRecord:
        """Addresses, MAC and names of one place. To be saved before the next await."""
        network = self._networks.find(place.network)
        if network.config_only:
            raise Forbidden(f"cannot connect to the configuration-only network {network.name}")
        endpoint_id = secrets.token_hex(32)
        place = replace(place.ended(), network=network.name, network_id=network.id, id=endpoint_id)
        if network.driver in ("host", "null"):
            return place
        asked = place.settings.ipam
        if asked and (asked.ipv4 or asked.ipv6):
            self._free(network, {asked.ipv4, asked.ipv6})
        taken = self._taken(record, network)
        found: dict[int, tuple[ipam.Address, ipam.Range]] = {}
        for version, fixed in ((4, asked.ipv4 if asked else ""), (6, asked.ipv6 if asked else "")):
            rows = network.ranges(version)
            if rows:
                found[version] = ipam.take_address(rows, ip_address(fixed), taken) if fixed else ipam.choose_address(rows, taken)
        mac = place.settings.mac_address.lower().replace("-", ":") or ipam.mac_for(next(iter(found.values()))[0])
        shown = {version: (f"{address}/{row.subnet.prefixlen}", self._gateway(network, row)) for version, (address, row) in found.items()}
        address, gateway = shown.get(4, ("", ""))
        address6, gateway6 = shown.get(6, ("", ""))
        return replace(
            place, address=address, gateway=gateway, address6=address6, gateway6=gateway6, mac=mac,
            # of this start: the kernel takes the last one's link away in its own time
            veth=f"veth{endpoint_id[:8]}" if network.driver == "bridge" else "",
            interface=self._interface_name(record, place.settings, network),
        )  # fmt: skip

    def _free(self, network: NetworkRecord, wanted: set[str]) -> None:
        """A fixed address cannot wait for another one's dying namespace (a container that is made anew with it): its link goes now."""
        for veth, place in list(self._leaving.items()):
            if place.network_id == network.id and wanted & {place.ip, place.address6.partition("/")[0]}:
                self._kernel.remove_link(veth)
                del self._leaving[veth]

    def _taken(self, record: ContainerRecord, network: NetworkRecord) -> list[ipam.Address]:
        # A dying namespace still answers: whoever got its address at once would share its MAC, too. The kernel takes the link
        # away within milliseconds; asking for it here would wait for that (25 ms, measured).
        if self._leaving:
            self._leaving = {veth: place for veth, place in self._leaving.items() if self._kernel.has_link(veth)}
        others = (*self._containers.all(), *self._guests.values())
        places = [place for other in others if other.id != record.id for place in other.endpoints]
        return [
            ip_interface(text).ip
            for place in (*places, *record.endpoints, *self._leaving.values())
            if place.network_id == network.id
            for text in (place.address, place.address6)
            if text
        ]

    @staticmethod
    def _gateway(network: NetworkRecord, row: ipam.Range) -> str:
        if network.internal or row.gateway is None:
            return ""
        if network.driver == "ipvlan" and network.options.get("ipvlan_mode", "l2") != "l2":
            return ""
        return str(row.gateway)

    @staticmethod
    def _interface_name(record: ContainerRecord, settings: EndpointSettings, network: NetworkRecord) -> str:
        used = {place.interface for place in record.endpoints if place.address or place.address6}
        asked = (settings.driver_opts or {}).get(endpoint_settings.IFNAME, "")
        if asked:
            if asked in used:
                raise Invalid(f"the interface name {asked} is used by another endpoint of the container")
            return asked
        prefix = network.options.get("com.docker.network.container_iface_prefix", "eth")
        return next(f"{prefix}{number}" for number in range(len(used) + 1) if f"{prefix}{number}" not in used)

    def prepare(self, record: ContainerRecord) -> None:
        """What a leased record needs of the host before there is a namespace: its networks' bridges, and rules that lead to it.

        Raises OSError, CortenError; `give_back` undoes it.
        """
        for place in record.active_endpoints:
            self.mend(place.network_id)
        self._firewall.put(record.id, self.elements(record))

    async def attach(self, record: ContainerRecord, namespace: str) -> None:
        """Make the links of a prepared record inside a namespace (path). Raises OSError; then no link stays."""
        wired = [self.wire(record, place) for place in record.active_endpoints if place.mac]
        fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if wired:
                try:
                    self._kernel.attach(wired, fd, fresh=True)
                except NoSuchSysctl as error:
                    error.message = _AT_START + error.message
                    raise
            elif any(place.network == "none" for place in record.endpoints):
                self._kernel.set_loopback_up(fd)
            if record.has_names:
                await self._names.open(record, fd)
        finally:
            os.close(fd)

    def detach(self, record: ContainerRecord, namespace: int) -> None:
        """Undo attach() for a sandbox (descriptor of its namespace; -1 if it has gone, and what is inside with it) that another one replaces. Idempotent."""
        self._names.close(record.id)
        for place in record.active_endpoints:
            if place.veth or (place.mac and namespace >= 0):
                self._kernel.detach(self.wire(record, place), namespace)

    def announce(self, record: ContainerRecord) -> None:
        """It is attached, and set up: tell who wants to know. The log is written while the program is started."""
        asyncio.get_running_loop().call_soon(self._exposure.log, record)
        self._files.started(record)
        for place in record.active_endpoints:
            self._networks.say("connect", self._networks.find(place.network_id), record)

    # --- steps of builds
    def lease_guest(self, record: ContainerRecord) -> ContainerRecord:
        """As lease(), of a record that nobody stores. Raises the same."""
        leased = self._guests[record.id] = self.lease(record)
        return leased

    async def attach_guest(self, guest_id: str, namespace: str) -> None:
        """As prepare() and attach(), without rules and events."""
        record = self._guests[guest_id]
        for place in record.active_endpoints:
            self.mend(place.network_id)
        await self.attach(record, namespace)

    def release_guest(self, guest_id: str) -> None:
        """Idempotent."""
        record = self._guests.pop(guest_id, None)
        if record:
            self.give_back(record)

    def wire(self, record: ContainerRecord, place: EndpointRecord) -> Endpoint:
        """What the kernel is to make of a leased place."""
        network = self._networks.find(place.network_id)
        extra = [endpoint_settings.link_local_interface(text) for text in (place.settings.ipam and place.settings.ipam.link_local) or []]
        routes: list[AnyAddress] = []
        if place == record.gateway:
            routes.append(ip_address(place.gateway))
        if place == record.gateway6:
            routes.append(ip_address(place.gateway6))
        sysctls = endpoint_settings.parse_sysctls((place.settings.driver_opts or {}).get(endpoint_settings.SYSCTLS, ""), place.interface)
        addresses = tuple(ip_interface(text) for text in (place.address, place.address6, *extra) if text)
        if network.driver == "bridge":
            options = network.bridge_options
            return Endpoint(
                place.veth, network.link, place.interface, addresses, place.mac, tuple(routes), options.mtu,
                hairpin=bool(record.ports), isolated=not options.icc, sysctls=sysctls,
            )  # fmt: skip
        sub = sublink_options.parse_options(network.driver, network.options)
        return Endpoint("", sub.parent, place.interface, addresses, place.mac, tuple(routes), sub.mtu, network.driver, sub.mode, sysctls=sysctls)

    # --- ports
    def with_ports(self, record: ContainerRecord) -> ContainerRecord:
        """Hold the ports that the record's host config asks for, if a gateway is there to lead them to."""
        wanted = self._wanted(record)
        gateway = record.gateway or record.gateway6
        if not wanted or gateway is None:
            return record
        return replace(record, ports=self._ports.hold(record, gateway.id, wanted))

    def _wanted(self, record: ContainerRecord, host: HostConfig | None = None) -> list[Wanted]:
        host = host or record.host_config
        if not host.port_bindings and not host.publish_all_ports:
            return []
        gateway = record.gateway or record.gateway6
        if gateway is None:
            return []
        network = self._networks.find(gateway.network_id)
        if network.driver != "bridge":
            return []
        options = network.bridge_options
        if options.mode4 == "routed" and options.mode6 == "routed":
            return []
        families = []
        if record.gateway and options.mode4 != "routed":
            families.append(str(self._networks.binding(network)))
        if record.gateway6 and options.mode6 != "routed" and self._networks.binding(network).is_unspecified:
            families.append("::")
        rows = wanted_ports(host, record.config.exposed_ports or {}, families)
        for row in rows:
            for text in row.host_ips:
                version = ip_address(text).version
                if not (record.gateway if version == 4 else record.gateway6):
                    raise Invalid(f"cannot publish on {text}: the container has no IPv{version} address")
        return rows

    def elements(self, record: ContainerRecord) -> frozenset[Element]:
        """What the record means for the tables of rules: its ports, and which addresses are its own."""
        own = frozenset(self._own_addresses(record))
        if not record.ports and not record.host_config.port_bindings:
            return own
        places = {4: record.gateway, 6: record.gateway6}
        targets = {4: record.gateway and record.gateway.address, 6: record.gateway6 and record.gateway6.address6}
        published: list[Publication | Opening | Direct] = []
        for port in record.ports:
            host_ip = ip_address(port.host_ip)
            place, target = places[host_ip.version], targets[host_ip.version]
            if place and target:
                address = ip_interface(target).ip
                published.append(Publication(port.protocol, host_ip, port.host_port, address, port.container_port))
                links = ("",) if self._networks.defaults.direct_routing else self._trusted(place)
                published += [Direct(link, port.protocol, address, port.container_port) for link in links]
        return own | make_elements((), [*published, *self._openings(record)])

    def _trusted(self, place: EndpointRecord) -> tuple[str, ...]:
        """The host's links by which the ports published on a network are reached at the container's own address."""
        network = self._networks.find(place.network_id)
        return network.bridge_options.trusted if network.driver == "bridge" else ()

    @staticmethod
    def _own_addresses(record: ContainerRecord) -> Iterator[Element]:
        for place in record.active_endpoints:
            if place.veth:
                yield from port_guard.owned(place.veth, [ip_interface(text).ip for text in (place.address, place.address6) if text])

    def _openings(self, record: ContainerRecord) -> Iterator[Opening]:
        """On a routed network a published port is let through at the container's own address."""
        for place in record.active_endpoints:
            network = self._networks.find(place.network_id)
            if network.driver != "bridge":
                continue
            options = network.bridge_options
            for mode, address in ((options.mode4, place.address), (options.mode6, place.address6)):
                if mode == "routed" and address:
                    for text in record.host_config.port_bindings or {}:
                        number, protocol = parse_port(text)
                        yield Opening(protocol, ip_interface(address).ip, number)

    async def republish(self, container_id: str, host: HostConfig) -> ContainerRecord:
        """Publish what `host` says instead of what is published now, while the container runs; its record with the new config.

        The caller holds the container's lock. Raises PortInUse, Invalid; then nothing has changed. A container that does not run
        gets the config only.
        """
        record = self._containers.find(container_id)
        gateway = record.gateway or record.gateway6
        changed = replace(record, host_config=host)
        if not states.is_running(record) or gateway is None:
            return self._containers.save(changed)
        wanted = self._wanted(record, host)
        kept, missing = _match(record.ports, wanted)
        new = self._ports.hold(record, gateway.id, missing)
        changed = replace(changed, ports=[*kept, *new])
        try:
            self._firewall.put(record.id, self.elements(changed))
            self._set_hairpins(changed)
            self._containers.save(changed)
        except BaseException:
            self._firewall.put(record.id, self.elements(record))
            self._ports.let_go(record.id, new)
            raise
        self._ports.let_go(record.id, [port for port in record.ports if port not in kept])
        self._exposure.log(replace(changed, ports=new))
        return changed

    def _set_hairpins(self, record: ContainerRecord) -> None:
        for place in record.active_endpoints:
            if place.veth:
                self._kernel.set_port(self.wire(record, place))

    def let_go_ports(self, container_id: str, ports: list[PublishedPort]) -> None:
        self._ports.let_go(container_id, ports)

    # --- the end of a container
    def give_back(self, record: ContainerRecord) -> None:
        """Let addresses and ports go: the start has failed, or the stored record no longer has the leases. Idempotent."""
        self._ports.let_go(record.id, record.ports)
        try:
            self._firewall.drop(record.id)
        except OSError as error:  # the next change puts the whole table right
            _log.warning("container %s: its published ports stay in the table of rules: %s", record.name, error)
        self._names.close(record.id)
        for place in record.endpoints:
            if place.veth:
                self._leaving[place.veth] = place
                asyncio.get_running_loop().call_later(_LINK_PATIENCE, self._take_away, place.veth)

    def release(self, record: ContainerRecord) -> None:
        """The container has ended: give back, and say that it is no longer connected. `record` is as it was while it ran."""
        self.give_back(record)
        for place in record.active_endpoints:
            network = self._networks.known(place.network_id)
            if network:
                self._networks.say("disconnect", network, record)

    def _take_away(self, veth: str) -> None:
        """The kernel has not: somebody keeps the namespace (an open descriptor, a connection that does not end). The link goes now."""
        if self._kernel.has_link(veth):
            self._kernel.removal.begin(veth)

    async def remove_link(self, place: EndpointRecord) -> None:
        """Of a container that runs on. Its address is not given again before the link has gone."""
        self._leaving[place.veth] = place
        await self._kernel.removal.remove(place.veth)

    # --- start-up
    async def restore(self) -> None:
        """Make the networks' links and the table again; hold the ports of what is running; take away links that no record names."""
        self._networks.restore()
        named = set()
        found: list[ContainerRecord] = []
        for record in self._containers.all():
            if not states.is_running(record):
                if record.active_endpoints:  # an engine died between its lease and its start
                    self._containers.save(record.without_leases())
                continue
            running = self.without_lost_links(record)
            found.append(running)
            named |= {place.veth for place in running.active_endpoints}
            self._ports.restore(running)
            self._firewall.put(running.id, self.elements(running))
            if running.has_names:
                await self._restore_names(running)
        for network in self._networks.all():
            if network.driver == "bridge" and network.link:
                for veth in self._kernel.ports_of(network.link) - named:
                    if veth.startswith("veth"):
                        _log.info("network %s: took away %s, which a crash had left", network.name, veth)
                        self._kernel.remove_link(veth)
        self.note_unplugged(found)
        self._firewall.start()

    async def reopen_names(self, record: ContainerRecord) -> None:
        """Another monitor has the container now, and does not hold its name service's sockets yet."""
        if self._names.serves(record.id):
            self._names.close(record.id)
            await self._restore_names(record)

    async def _restore_names(self, record: ContainerRecord) -> None:
        try:
            with network_namespace_of(record) as fd:
                await self._names.restore(record, fd)
        except (CortenError, OSError) as error:
            _log.warning("container %s: its name service cannot be restored: %s", record.name, error)

    def mend(self, network_id: str) -> None:
        """If somebody has taken a network's bridge away, or links off it: make it again, and hang on it who was there. Raises OSError, CortenError."""
        network = self._networks.find(network_id)
        made_again = self._networks.mend(network)
        if not made_again and not self._unplugged:
            return
        for record in self._containers.all():
            for place in record.active_endpoints:
                if place.network_id == network.id and (made_again or place.veth in self._unplugged) and place.veth and self._kernel.has_link(place.veth):
                    self._kernel.plug(place.veth, network.link)
                    self._kernel.set_port(self.wire(record, place))  # a port that is off its bridge has lost its flags
                    self._unplugged.discard(place.veth)

    def note_unplugged(self, records: Iterable[ContainerRecord]) -> None:
        """Of these running containers: say which links somebody has taken off their bridge; `mend` hangs them there again."""
        self._unplugged = {veth for veth in self._unplugged if self._kernel.has_link(veth)}
        ports: dict[str, set[str]] = {}
        for record in records:
            for place in record.active_endpoints:
                bridge = self._networks.find(place.network_id).link
                if not place.veth or not self._kernel.has_link(place.veth) or not self._kernel.has_link(bridge):
                    continue  # what is gone is said as such
                if place.veth in ports.setdefault(bridge, self._kernel.ports_of(bridge)):
                    continue
                self._unplugged.add(place.veth)
                _log.warning(
                    "container %s: its link %s has been taken off bridge %s of network %s; it is put there again at the next start or connect of a container on it",
                    record.name, place.veth, bridge, place.network,
                )  # fmt: skip

    def tear_down(self) -> list[str]:
        """Take every bridge and the table away, with nothing running; the bridges' names."""
        self._firewall.close(remove=True)
        return self._networks.tear_down()

    def without_lost_links(self, record: ContainerRecord) -> ContainerRecord:
        """If somebody has taken links of a running container away: say so, and it is on those networks no longer. Its ports stay held."""
        lost = [place for place in record.active_endpoints if place.veth and not self._kernel.has_link(place.veth)]
        if not lost:
            return record
        for place in lost:
            _log.warning(
                "container %s: its link %s of network %s is gone; restart the container, or connect it to the network again (docker network connect %s %s)",
                record.name, place.veth, place.network, place.network, record.name,
            )  # fmt: skip
        record = self._containers.save(replace(record, endpoints=[place.ended() if place in lost else place for place in record.endpoints]))
        self._firewall.put(record.id, self.elements(record))
        return record

    def plan(self) -> str:
        """What there should be in the kernel, to be read: the bridges, and the table as nft(8) lists it."""
        bridges = [str(bridge_of(network)) for network in self._networks.all() if network.driver == "bridge" and network.link]
        return "\n".join([*bridges, self._firewall.render(), ""])

    def close(self) -> None:
        self._firewall.close()
        self._names.close_all()
        self._ports.close()
        self._kernel.close()


def _match(ports: list[PublishedPort], wanted: list[Wanted]) -> tuple[list[PublishedPort], list[Wanted]]:
    """Pure: what of the published ports stays as it is, and what is to be published anew."""
    left, kept, missing = list(ports), [], []
    for row in wanted:
        found = []
        for host_ip in row.host_ips:
            fits = (port for port in left if (port.protocol, port.container_port, port.host_ip) == (row.protocol, row.container_port, host_ip)
                    and (row.numbers == range(1) or port.host_port in row.numbers))  # fmt: skip
            found.append(next(fits, None))
        if all(found):
            kept += [port for port in found if port]
            left = [port for port in left if port not in kept]
        else:
            missing.append(row)
    return kept, missing


@contextmanager
def network_namespace_of(record: ContainerRecord) -> Iterator[int]:
    """A descriptor of a running container's network namespace. Raises KernelRefused if it has just ended."""
    try:
        fd = os.open(f"/proc/{record.state.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelRefused(operation="open", operand=f"network namespace of {record.name}", errno=error.errno or 0, reason="the container has ended") from None
    try:
        yield fd
    finally:
        os.close(fd)
