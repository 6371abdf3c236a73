"""Taking away all that the engine has made of the host's network: links, rules, sysctls. What it needs again it makes again."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from corten.engine import states
from corten.engine.containers import Containers
from corten.engine.endpoints import Endpoints
from corten.engine.networks import Networks
from corten.errors import Conflict

_log = logging.getLogger("corten.engine")


@dataclass(frozen=True)
class TornDown:
    """`sysctls`: name -> the value that it has again."""

    links: list[str]
    table: str
    sysctls: dict[str, str]


class Teardown:
    def __init__(self, containers: Containers, endpoints: Endpoints, networks: Networks) -> None:
        self._containers, self._endpoints, self._networks = containers, endpoints, networks

    def tear_down(self) -> TornDown:
        """Raises Conflict while containers run."""
        running = [record.name for record in self._containers.all() if states.is_running(record)]
        if running:
            raise Conflict(f"cannot tear the network down: {', '.join(sorted(running)[:5])} {'run' if len(running) > 1 else 'runs'}; stop first")
        links = self._endpoints.tear_down()
        done = TornDown(links, f"inet {self._networks.defaults.bridge}", self._networks.put_sysctls_back())
        _log.info("torn down: links %s, table %s, sysctls %s", ", ".join(links) or "none", done.table, done.sysctls or "none")
        return done
