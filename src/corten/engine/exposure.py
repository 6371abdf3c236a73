"""Who can reach a port that is published on every address of this host: said when it is published. Docker says nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from corten.engine.firewall import Firewall
from corten.engine.host_ports import wanted_ports
from corten.engine.networks import Networks
from corten.engine.records import ContainerRecord
from corten.network.apply import Kernel

_SHOWN = 4  # addresses
_log = logging.getLogger("corten.engine")


class Exposure:
    def __init__(self, kernel: Kernel, networks: Networks, firewall: Firewall) -> None:
        self._kernel, self._networks, self._firewall = kernel, networks, firewall
        self._known: tuple[set[str], list[str]] | None = None  # the bridges, and the addresses of all other links

    def forget(self) -> None:
        """The host's addresses have changed."""
        self._known = None

    def _addresses(self) -> list[str]:
        bridges = self._firewall.bridges()
        if self._known is None or self._known[0] != bridges:
            self._known = bridges, [str(address) for address in self._kernel.addresses(bridges)]
        return self._known[1]

    def warnings(self, record: ContainerRecord) -> list[str]:
        """Of a new container: none, or one about all its ports that will be open to all."""
        host = record.host_config
        network = self._networks.known(Networks.name_of_mode(host.network_mode)) if host.port_bindings or host.publish_all_ports else None
        if network is None or network.driver != "bridge" or network.bridge_options.mode4 == "routed":
            return []
        rows = wanted_ports(host, record.config.exposed_ports or {}, (str(self._networks.binding(network)),))
        return self._said(f"{row.numbers[0] or f'for {row.container_port}'}/{row.protocol}" for row in rows if _is_open(row.host_ips))

    def log(self, record: ContainerRecord) -> None:
        """A container's ports have been published."""
        for text in self._said(f"{port.host_port}/{port.protocol}" for port in record.ports if _is_open([port.host_ip])):
            _log.warning("container %s: %s", record.name, text)

    def _said(self, found: Iterable[str]) -> list[str]:
        ports = list(dict.fromkeys(found))
        if not ports:
            return []
        addresses = self._addresses()
        shown = ", ".join(addresses[:_SHOWN]) + (f" and {len(addresses) - _SHOWN} more" if len(addresses) > _SHOWN else "")
        chains = self._firewall.host_chains()
        who = f"only whom {' and '.join(chains)} of this host let in" if chains else "no input rule of this host keeps anybody out"
        where = f"port {', '.join(ports)} is published on all addresses of this host ({shown or 'none but loopback now'})"
        return [f"{where}: {who}. To publish on one alone, name it (127.0.0.1:PORT:PORT), or set default-publish-address in daemon.json"]


def _is_open(host_ips: Sequence[str]) -> bool:
    return any(ip_address(text).is_unspecified for text in host_ips)
