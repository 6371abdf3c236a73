"""What somebody takes away of the host's links and addresses while the engine runs: noticed, said, and written down, so that the next start mends it.

What a loss means for a container is endpoints.py's, for a network networks.py's; rules are firewall.py's.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable

from corten.engine import states
from corten.engine.containers import Containers
from corten.engine.endpoints import Endpoints
from corten.engine.exposure import Exposure
from corten.engine.networks import Networks
from corten.engine.records import ContainerRecord
from corten.network.link_watch import LinkWatch

_log = logging.getLogger("corten.engine")


class LostLinks:
    def __init__(self, watch: LinkWatch, containers: Containers, networks: Networks, endpoints: Endpoints, exposure: Exposure) -> None:
        self._watch, self._containers, self._networks = watch, containers, networks
        self._endpoints, self._exposure = endpoints, exposure

    def start(self) -> None:
        """Once the networks' links have been made."""
        asyncio.get_running_loop().add_reader(self._watch.fileno(), self._look)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._watch.fileno())

    def _look(self) -> None:
        try:
            changes = self._watch.read()
        except OSError as error:  # some were lost: any link may be gone
            _log.warning("notifications of links were lost (%s): every container's are looked at", error)
            self._exposure.forget()
            self._look_at(self._containers.all())
            self._endpoints.note_unplugged(self._running(self._containers.all()))
            return
        if changes.addresses:
            self._exposure.forget()
        for link, address in changes.bare:
            self._networks.address_lost(link, address)
        for link in sorted(changes.gone):
            self._networks.link_lost(link)
        self._look_at(self._with(changes.gone))
        if off := changes.unplugged - changes.gone:
            self._endpoints.note_unplugged(self._running(self._with(off)))

    def _with(self, links: frozenset[str]) -> list[ContainerRecord]:
        return [record for record in self._containers.all() if any(place.veth in links for place in record.active_endpoints)]

    def _look_at(self, records: Iterable[ContainerRecord]) -> None:
        for record in self._running(records):
            self._endpoints.without_lost_links(record)

    @staticmethod
    def _running(records: Iterable[ContainerRecord]) -> list[ContainerRecord]:
        return [record for record in records if states.is_running(record) and _has_namespace(record)]


def _has_namespace(record: ContainerRecord) -> bool:
    """A container that has just ended loses its links, too: by itself, and before its end is known here."""
    try:
        os.stat(f"/proc/{record.state.pid}/ns/net")
    except OSError:
        return False
    return True
