"""The networks as a picture would show them: who is where, which ports lead where, which rules hold; and what of it is not in the kernel."""

from __future__ import annotations

from corten.engine.containers import Containers
from corten.engine.firewall import Firewall
from corten.engine.network_records import NetworkRecord
from corten.engine.networks import Networks
from corten.network.apply import Kernel
from corten.spec import answers


class NetworkMap:
    def __init__(self, kernel: Kernel, networks: Networks, containers: Containers, firewall: Firewall) -> None:
        self._kernel, self._networks, self._containers, self._firewall = kernel, networks, containers, firewall

    def draw(self, names: list[str]) -> answers.NetworkMap:
        """Of these networks, or of all. Raises NoSuchNetwork, AmbiguousPrefix, OSError."""
        wanted = [self._networks.find(name) for name in names] or self._networks.all()
        ids = {network.id for network in wanted}
        ports = [
            answers.MappedPort(port.host_ip, port.host_port, port.protocol, record.name, port.container_port)
            for record in self._containers.all()
            for port in record.ports
            if any(place.network_id in ids for place in record.active_endpoints)
        ]
        return answers.NetworkMap([self._network(network) for network in wanted], ports, self._rules())

    def _network(self, network: NetworkRecord) -> answers.MappedNetwork:
        return answers.MappedNetwork(
            network.name, network.id, network.driver, network.link, self._is_there(network.link),
            [row.subnet for row in network.subnets], [row.gateway for row in network.subnets if row.gateway], network.internal,
            [
                answers.MappedContainer(record.name, record.id, [text for text in (place.address, place.address6) if text], place.mac, place.interface,
                                        place.veth, self._is_there(place.veth))
                for record in self._containers.all()
                for place in record.active_endpoints
                if place.network_id == network.id
            ],
        )  # fmt: skip

    def _is_there(self, link: str) -> bool:
        return not link or self._kernel.has_link(link)

    def _rules(self) -> answers.MappedRules:
        there = self._kernel.rule_handles(self._firewall.name)
        whole = all(len(there.get(name, ())) == count for name, count in self._firewall.rule_counts().items())
        return answers.MappedRules(f"inet {self._firewall.name}", whole, list(self._firewall.host_chains()), list(self._firewall.left_out()))
