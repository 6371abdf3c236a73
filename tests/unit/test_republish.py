"""Publishing and unpublishing while a container runs: the service that an edit of its ports calls. Kernel and stores are stand-ins; ports are real."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address

import pytest
from msgspec.structs import replace

from corten.engine.endpoints import Endpoints
from corten.engine.firewall import Firewall
from corten.engine.network_records import NetworkRecord
from corten.engine.networks import NetworkDefaults
from corten.engine.records import ContainerRecord, EndpointRecord, State
from corten.errors import PortInUse
from corten.linux.nft_sets import Element
from corten.spec.engine import Config, HostConfig, PortBinding

NETWORK = NetworkRecord("n" * 64, "mine", "2026-01-01T00:00:00Z", "bridge", "br0")
PLACE = EndpointRecord("mine", network_id=NETWORK.id, id="e" * 64, address="10.7.0.2/24", gateway="10.7.0.1", mac="02:42:0a:07:00:02", veth="veth1")
RECORD = ContainerRecord("a" * 64, "name", "2026-01-01T00:00:00Z", "sha256:" + "b" * 64, [], Config(), HostConfig(), [PLACE], state=State("running"))


class Kernel:
    def __init__(self) -> None:
        self.ports: list[tuple[str, bool]] = []

    def set_port(self, endpoint) -> None:
        self.ports.append((endpoint.name, endpoint.hairpin))

    def close(self) -> None: ...


class Containers:
    def __init__(self) -> None:
        self.record = RECORD

    def find(self, _name: str) -> ContainerRecord:
        return self.record

    def save(self, record: ContainerRecord) -> ContainerRecord:
        self.record = record
        return record


class Networks:
    defaults = NetworkDefaults("br0")

    def find(self, _name: str) -> NetworkRecord:
        return NETWORK

    def binding(self, network: NetworkRecord) -> IPv4Address:
        return network.bridge_options.binding4


class Exposure:
    def log(self, _record: ContainerRecord) -> None: ...


class Names:
    def close_all(self) -> None: ...


def bindings(*ports: tuple[str, str]) -> HostConfig:
    return HostConfig(port_bindings={inside: [PortBinding("127.0.0.1", outside)] for inside, outside in ports})


def bindable(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def test_ports_change_while_the_container_runs():
    kernel, containers = Kernel(), Containers()
    firewall = Firewall(kernel, "t")
    endpoints = Endpoints(kernel, Networks(), firewall, containers, None, Names(), Exposure())

    def elements() -> frozenset[Element]:
        return frozenset(element for element in firewall._owned.get(RECORD.id, ()) if element.data)  # of the maps

    async def steps() -> None:
        first = await endpoints.republish(RECORD.id, bindings(("80/tcp", ""), ("81/tcp", "")))
        kept, dropped = (port.host_port for port in first.ports)
        assert kernel.ports == [("veth1", True)]
        assert len(elements()) == 2
        assert not bindable(kept)
        second = await endpoints.republish(RECORD.id, bindings(("80/tcp", str(kept)), ("82/udp", "")))
        assert [(port.container_port, port.host_port == kept) for port in second.ports] == [(80, True), (82, False)]
        assert bindable(dropped)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            before = containers.record
            with pytest.raises(PortInUse):
                await endpoints.republish(RECORD.id, bindings(("80/tcp", str(kept)), ("83/tcp", ""), ("84/tcp", str(taken.getsockname()[1]))))
            assert containers.record is before  # nothing half
            assert len(elements()) == 2
        await endpoints.republish(RECORD.id, HostConfig())
        assert elements() == frozenset()
        assert bindable(kept)
        assert kernel.ports[-1] == ("veth1", False)
        containers.record = replace(containers.record, state=State("exited"))
        assert (await endpoints.republish(RECORD.id, bindings(("80/tcp", "")))).ports == []

    asyncio.run(steps())
    endpoints.close()
