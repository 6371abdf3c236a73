"""The three files that tell a container where it is, on disk: hosts, hostname and resolv.conf of each container.

What is in them is network.files'. They are changed in place: the container has them bind-mounted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from corten.engine import links, states
from corten.engine.containers import Containers
from corten.engine.joining import donor
from corten.engine.records import ContainerRecord, EndpointRecord
from corten.network import files
from corten.network.plan import RESOLVER
from corten.store.layout import Layout

_NAMES = ("resolv.conf", "hostname", "hosts")
_RESOLVER, _BEHIND_STUB = "/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"


class NetworkFiles:
    def __init__(self, containers: Containers, layout: Layout, host_gateways: Sequence[str] = ()) -> None:
        """`host_gateways`: addresses that `host-gateway` stands for; none: the container's own gateway."""
        self._containers, self._layout, self._host_gateways = containers, layout, host_gateways

    def write(self, record: ContainerRecord) -> dict[str, str]:
        """For a start: path inside -> path on the host. With another container's network, its files."""
        settings = record.host_config
        if settings.network_mode.startswith("container:"):
            other = self._layout.container(donor(self._containers, settings.network_mode, "net").id)
            return {f"/etc/{name}": f"{other}/{name}" for name in _NAMES}
        folder = self._layout.container(record.id)
        hostname = record.config.hostname or os.uname().nodename
        extra = [pair for text in settings.extra_hosts or [] for pair in self._extra_hosts(text, record)]
        texts = {
            "resolv.conf": self._resolver(record),
            "hostname": f"{hostname}\n",
            "hosts": files.hosts([*extra, *self._linked(record), *_own_names(record, record.endpoints)]),
        }
        for name, text in texts.items():
            with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
                file.write(text)
        return {f"/etc/{name}": f"{folder}/{name}" for name in texts}

    def _linked(self, record: ContainerRecord) -> list[tuple[str, str]]:
        return [links.host_row(link, other) for link, other in links.resolve(record, self._containers.find)]

    def started(self, record: ContainerRecord) -> None:
        """Tell those that are linked to a container of the default bridge where it is now."""
        target = f"/{record.name}:"
        for other in self._containers.all():
            for text in other.host_config.links or ():
                if text.startswith(target) and states.is_running(other):
                    names, address = links.host_row(links.Link(*text.split(":", 1)), record)
                    self._replace_row(other, names, address)

    def _replace_row(self, record: ContainerRecord, names: str, address: str) -> None:
        rows = [(names, address)] if address else []
        self._rewrite(record, lambda line: line.rstrip("\n").endswith(f"\t{names}"), rows)

    def _extra_hosts(self, text: str, record: ContainerRecord) -> list[tuple[str, str]]:
        name, _, address = text.partition(":")
        if address != "host-gateway":
            return [(name, address)]
        own = record.gateway.gateway if record.gateway else "127.0.0.1"
        return [(name, gateway) for gateway in self._host_gateways or (own,)]

    @staticmethod
    def _resolver(record: ContainerRecord) -> str:
        settings = record.host_config
        if record.has_names:
            host = host_resolver(settings.network_mode)
            return files.own_resolv_conf(host, settings.dns_search or [], settings.dns_options or [], str(RESOLVER))
        return files.resolv_conf(
            host_resolver(settings.network_mode), settings.dns or [], settings.dns_search or [], settings.dns_options or [], keep_loopback=settings.network_mode == "host",
        )  # fmt: skip

    def connected(self, record: ContainerRecord, place: EndpointRecord) -> None:
        """Add the lines of a new endpoint to hosts. What the container has written there itself stays."""
        folder = self._layout.container(record.id)
        with open(f"{folder}/hosts", "a", encoding="utf-8") as file:
            file.write(files.host_lines(_own_names(record, [place])))

    def use_resolver(self, record: ContainerRecord) -> None:
        """The container has a name service from now on."""
        with open(f"{self._layout.container(record.id)}/resolv.conf", "w", encoding="utf-8") as file:
            file.write(self._resolver(record))

    def disconnected(self, record: ContainerRecord, place: EndpointRecord) -> None:
        gone = {files.host_lines([pair]) for pair in _own_names(record, [place])}
        self._rewrite(record, lambda line: line in gone, [])

    def _rewrite(self, record: ContainerRecord, drop: Callable[[str], bool], rows: list[tuple[str, str]]) -> None:
        """Lines of hosts out and in; what the container has written there itself stays."""
        with open(f"{self._layout.container(record.id)}/hosts", "r+", encoding="utf-8") as file:
            lines = [line for line in file if not drop(line)]
            file.seek(0)
            file.truncate()
            file.writelines([*lines, files.host_lines(rows)])


def host_resolver(network_mode: str, usual: str = _RESOLVER, behind_stub: str = _BEHIND_STUB) -> str:
    """The host's resolver file as text; empty if it has none. Where systemd-resolved's stub is its only nameserver, a container
    with a network of its own could not reach that: then the file with the servers behind it (Docker 28.5's rule).
    """
    text = _text(usual)
    return (_text(behind_stub) or text) if network_mode != "host" and files.is_stub(text) else text


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # none, or a link to one that is not there yet
        return ""


def _own_names(record: ContainerRecord, places: list[EndpointRecord]) -> list[tuple[str, str]]:
    """(names, address) of the container itself on each of its networks."""
    hostname, domain = record.config.hostname, record.config.domainname
    names = f"{hostname}.{domain} {hostname}" if domain else hostname
    found = [(names, text.partition("/")[0]) for place in places for text in (place.address, place.address6) if text]
    return found if hostname else []
