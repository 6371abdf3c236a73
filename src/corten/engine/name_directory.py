"""What names mean to a container: the other containers of its user-defined networks, its links, and who answers the rest.

Derived from the records whenever they have changed; owns nothing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_interface

from corten.engine.containers import Containers
from corten.engine.records import ContainerRecord, EndpointRecord
from corten.network.files import FALLBACK_NAMESERVERS, nameservers

Address = IPv4Address | IPv6Address
_PORT = 53


class NameDirectory:
    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._built = -1
        self._by_network: dict[str, dict[str, list[Address]]] = {}
        self._owners: dict[str, dict[Address, str]] = {}
        self._host: tuple[int, list[str]] = (-1, [])
        self._guests: dict[str, ContainerRecord] = {}

    def admit(self, guest: ContainerRecord) -> None:
        """A step of a build asks like a container, and is found by nobody."""
        self._guests[guest.id] = guest

    def dismiss(self, guest_id: str) -> None:
        """Idempotent."""
        self._guests.pop(guest_id, None)

    def _asking(self, container: str) -> ContainerRecord | None:
        return self._containers.current(container) or self._guests.get(container)

    @property
    def generation(self) -> int:
        return self._containers.generation

    def _build(self) -> None:
        if self._built == self.generation:
            return
        self._built = self.generation
        self._by_network, self._owners = defaultdict(lambda: defaultdict(list)), defaultdict(dict)
        for record in self._containers.all():
            for place in record.active_endpoints:
                for name in record.names_on(place) or ():
                    self._add(record, place, name.lower())

    def _add(self, record: ContainerRecord, place: EndpointRecord, name: str) -> None:
        for address in addresses_of(place):
            for text in (name, f"{name}.{place.network.lower()}"):
                found = self._by_network[place.network_id][text]
                if address not in found:
                    found.append(address)
            self._owners[place.network_id][address] = f"{record.name}.{place.network}"

    def addresses(self, container: str, name: str) -> Sequence[Address] | None:
        """None if nobody on its networks has the name. A link's alias counts for its container alone."""
        self._build()
        record = self._asking(container)
        for place in record.active_endpoints if record else ():
            for link in place.settings.links or ():
                target, _, alias = link.partition(":")
                if name == (alias or target).lower():
                    return self._linked(place, target)
            found = self._by_network.get(place.network_id, {}).get(name)
            if found:
                return found
        return None

    def _linked(self, place: EndpointRecord, target: str) -> Sequence[Address] | None:
        return self._by_network.get(place.network_id, {}).get(target.lstrip("/").lower())

    def name_of(self, container: str, address: Address) -> str | None:
        self._build()
        record = self._asking(container)
        for place in record.active_endpoints if record else ():
            name = self._owners.get(place.network_id, {}).get(address)
            if name:
                return name
        return None

    def upstream(self, container: str) -> Sequence[tuple[str, int]]:
        """The container's own servers, else the host's; none for a container whose networks are all internal."""
        record = self._asking(container)
        if record is None or (record.gateway is None and record.gateway6 is None):
            return []
        return [(server, _PORT) for server in record.host_config.dns or self._host_servers()]

    def _host_servers(self) -> list[str]:
        """Read again when the file has changed."""
        try:
            changed = os.stat("/etc/resolv.conf").st_mtime_ns
            if changed != self._host[0]:
                with open("/etc/resolv.conf", encoding="utf-8") as file:
                    self._host = (changed, nameservers(file.read()))
        except OSError:
            return list(FALLBACK_NAMESERVERS)
        return self._host[1] or list(FALLBACK_NAMESERVERS)


def addresses_of(place: EndpointRecord) -> list[Address]:
    return [ip_interface(text).ip for text in (place.address, place.address6) if text]
