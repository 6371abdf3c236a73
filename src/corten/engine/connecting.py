"""Connect and disconnect: one more network for a container, or one less, while it runs or while it does not.

What a place on a network needs is endpoints.py's; here it is done to a container that lives on, and undone when it fails.
"""

from __future__ import annotations

from ipaddress import ip_address

from msgspec.structs import replace

from corten.engine import endpoint_settings, states
from corten.engine.containers import Containers
from corten.engine.endpoints import Endpoints, network_namespace_of
from corten.engine.firewall import Firewall
from corten.engine.name_service import NameService
from corten.engine.network_files import NetworkFiles
from corten.engine.network_records import NetworkRecord
from corten.engine.networks import Networks
from corten.engine.records import ContainerRecord, EndpointRecord, PublishedPort
from corten.errors import CortenError, Forbidden, Invalid, KernelRefused, NoSuchNetwork, NotFound
from corten.network.apply import Kernel
from corten.spec.engine import EndpointSettings


class NotConnected(CortenError):
    """Docker answers 500 here; the text is what matters."""


class Connecting:
    def __init__(self, kernel: Kernel, networks: Networks, firewall: Firewall, containers: Containers, network_files: NetworkFiles,
                 names: NameService, endpoints: Endpoints) -> None:  # fmt: skip
        self._kernel, self._networks, self._firewall, self._containers = kernel, networks, firewall, containers
        self._files, self._names, self._endpoints = network_files, names, endpoints

    async def connect(self, container: str, network_name: str, settings: EndpointSettings) -> None:
        """Raises Docker's errors; then nothing of it stays."""
        container_id = self._containers.find(container).id
        network = self._networks.find(network_name)
        async with self._containers.lock(container_id):
            record = self._containers.find(container_id)
            _check_connect(record, network)
            endpoint_settings.check_connect(settings, network)
            place = EndpointRecord(network.name, settings)
            others = [other for other in record.endpoints if other.network not in (network.name, network.id)]
            if not states.is_running(record):
                self._containers.save(replace(record, endpoints=[*others, place]))
                return
            before = record.endpoint_on(network.id, network.name)
            if before and before.active:
                raise Forbidden(f"endpoint with name {record.name} already exists in network {network.name}")
            self._endpoints.mend(network.id)
            plugged = self._plug(record, replace(record, endpoints=[*others, self._endpoints.lease_one(record, place)]))
            if plugged.has_names and not self._names.serves(record.id):
                with network_namespace_of(plugged) as fd:
                    await self._names.open(plugged, fd)
                self._files.use_resolver(plugged)
            self._networks.say("connect", network, record)

    def _plug(self, before: ContainerRecord, record: ContainerRecord) -> ContainerRecord:
        """Bring the last endpoint of the record up in the running container, and store it."""
        place = record.endpoints[-1]
        had_ports = bool(record.ports)
        if not had_ports:
            record = self._endpoints.with_ports(record)
        with network_namespace_of(record) as fd:
            try:
                self._kernel.attach([self._endpoints.wire(record, place)], fd, fresh=False)
                self._firewall.put(record.id, self._endpoints.elements(record))
            except BaseException as error:
                self._kernel.detach(self._endpoints.wire(record, place), fd)
                self._set_routes(before, fd)
                if not had_ports:
                    self._endpoints.let_go_ports(record.id, record.ports)
                if isinstance(error, OSError):
                    raise KernelRefused(operation="connect", operand=place.network, errno=error.errno or 0, reason=str(error.strerror)) from None
                raise
        self._containers.save(record)
        self._files.connected(record, place)
        return record

    def _set_routes(self, record: ContainerRecord, namespace: int) -> None:
        routes = [(place.interface, ip_address(text)) for place, text in (
            (record.gateway, record.gateway and record.gateway.gateway), (record.gateway6, record.gateway6 and record.gateway6.gateway6)) if place and text]
        self._kernel.set_default_routes(namespace, routes)

    async def disconnect(self, container: str, network_name: str, *, force: bool = False) -> None:
        """Raises Docker's errors. A network that is not there is none to leave: a container that does not run forgets it, one that does only with `force`."""
        try:
            container_id = self._containers.find(container).id
        except NotFound:
            if not force:
                raise
            self._networks.find(network_name)
            raise NotFound(f"endpoint {container} not found") from None  # Docker would look for one that no container has
        async with self._containers.lock(container_id):
            record = self._containers.find(container_id)
            running = states.is_running(record)
            network = self._networks.known(network_name)
            if network is None:
                if running and not force:
                    raise NoSuchNetwork(name=network_name)
                self._forget(record, network_name)
                return
            if running and record.host_config.network_mode == "host":
                raise Invalid("cannot disconnect container from host network - container was created in host network mode")
            place = record.endpoint_on(network.id, network.name)
            if place is None or (running and not place.active):
                the = "" if running else "the "
                raise NotConnected(f"container {record.id} is not connected to {the}network {network.name}")
            rest = replace(record, endpoints=[other for other in record.endpoints if other is not place])
            if running:
                await self._unplug(record, rest, place)
                self._networks.say("disconnect", network, record)
            else:
                self._containers.save(rest)

    def _forget(self, record: ContainerRecord, network_name: str) -> None:
        """A place on a network that is not there."""
        rest = [place for place in record.endpoints if place.network != network_name]
        if len(rest) == len(record.endpoints):
            raise NotConnected(f"container {record.id} is not connected to the network {network_name}")
        self._containers.save(replace(record, endpoints=rest))

    async def _unplug(self, record: ContainerRecord, rest: ContainerRecord, place: EndpointRecord) -> None:
        """The record first: a link that a crash leaves is swept by the next start."""
        dropped: list[PublishedPort] = []
        if rest.gateway is None and rest.gateway6 is None:
            dropped, rest = rest.ports, replace(rest, ports=[])
        elif not rest.ports:
            rest = self._endpoints.with_ports(rest)
        self._containers.save(rest)
        self._firewall.put(record.id, self._endpoints.elements(rest))
        self._endpoints.let_go_ports(record.id, dropped)
        with network_namespace_of(record) as fd:
            if place.veth:
                await self._endpoints.remove_link(place)
            elif place.mac:
                self._kernel.detach(self._endpoints.wire(record, place), fd)
            self._set_routes(rest, fd)
        self._files.disconnected(record, place)


def _check_connect(record: ContainerRecord, network: NetworkRecord) -> None:
    mode = record.host_config.network_mode
    if mode == "host" or mode.startswith("container:"):
        raise Invalid("container sharing network namespace with another container or host cannot be connected to any other network")
    if network.name == "host":
        raise Invalid("cannot connect container to host network - container must be created in host network mode")
    private = "none" in (mode, network.name)
    if private and any(place.network != network.name for place in record.endpoints):
        raise Invalid("container cannot be connected to multiple networks with one of the networks in private (none) mode")
    if record.state.status in ("removing", "dead"):
        raise Forbidden(f"container {record.id} is marked for removal and cannot be connected or disconnected to the network")
