"""Unhealthy means restarted, for containers whose label says so (docs/health.md). Docker has no such thing."""

from __future__ import annotations

import asyncio
import logging

from msgspec.structs import replace

from corten.engine import health
from corten.engine.containers import Containers
from corten.engine.records import ContainerRecord, Health
from corten.engine.restarting import Restarting
from corten.errors import CortenError
from corten.spec.timestamps import now_ns, rfc3339_nano

_log = logging.getLogger("corten.engine")


class Recovery:
    def __init__(self, containers: Containers, restarting: Restarting) -> None:
        self._containers, self._restarting = containers, restarting
        self._pending: dict[str, asyncio.Task[None]] = {}

    def unhealthy(self, record: ContainerRecord) -> None:
        """It is unhealthy: restart it after its back-off, unless it gets well or ends before. Once is enough."""
        delay = health.restart_delay(record.config.labels, record.state.health or Health())
        if delay is None or record.id in self._pending:
            return
        task = asyncio.ensure_future(self._restart(record.id, record.state.started_at, delay))
        self._pending[record.id] = task
        task.add_done_callback(lambda _task: self._pending.pop(record.id, None))

    async def _restart(self, container_id: str, started_at: str, delay: int) -> None:
        await asyncio.sleep(delay / 1000)
        record = self._containers.current(container_id)
        if record is None or record.state.started_at != started_at or record.state.status != "running":
            return
        found = record.state.health
        if found is None or found.status != "unhealthy":
            return
        told = replace(found, restarts=found.restarts + 1, restarted_at=rfc3339_nano(now_ns()), reason=health.reason(found))
        record = self._containers.save_state(container_id, health=told)
        self._containers.emit("health_restart", record, reason=told.reason, restarts=str(told.restarts))
        try:
            await self._restarting.restart(record, "", None, called=record.name)
        except CortenError as error:
            _log.warning("unhealthy container %s: %s", record.name, error.message)

    def stop(self) -> None:
        """The engine ends; the next one probes on."""
        for task in tuple(self._pending.values()):
            task.cancel()
