"""Restart: stop and start as one step."""

from __future__ import annotations

from contextlib import suppress

from corten.engine.containers import Containers
from corten.engine.records import ContainerRecord
from corten.engine.starting import Starting
from corten.engine.stopping import Stopping
from corten.errors import NotModified


class Restarting:
    def __init__(self, containers: Containers, starting: Starting, stopping: Stopping) -> None:
        self._containers, self._starting, self._stopping = containers, starting, stopping

    async def restart(self, record: ContainerRecord, signal_name: str, timeout: int | None) -> None:
        with suppress(NotModified):
            await self._stopping.stop(record, signal_name, timeout)
        with suppress(NotModified):  # somebody else has started it in between
            await self._starting.start(record)
        self._containers.emit("restart", self._containers.find(record.id))
