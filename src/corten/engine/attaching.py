"""Clients that attach: kept until there is somebody to hand their connection to, which is the container's monitor."""

from __future__ import annotations

import os
from dataclasses import dataclass

from corten.engine import states
from corten.engine.containers import Containers
from corten.engine.records import ContainerRecord
from corten.errors import MonitorSilent, NoSuchContainer
from corten.runtime import messages
from corten.runtime.launch import Launch


@dataclass(frozen=True)
class PendingAttach:
    """A client that attached before the start: its connection is handed over when there is somebody to hand it to."""

    fd: int
    streams: messages.Streams
    detach_keys: bytes
    pending: bytes

class Attaching:
    def __init__(self, containers: Containers, launch: Launch) -> None:
        self._containers, self._launch = containers, launch
        self._pending: dict[str, list[PendingAttach]] = {}

    async def attach(self, record: ContainerRecord, client: PendingAttach) -> None:
        """Hand a client's connection over, now or at the start. The descriptor is ours from here on."""
        async with self._containers.lock(record.id):  # a start under way has taken its clients already
            current = self._containers.current(record.id)
            if current is None:
                os.close(client.fd)
                raise NoSuchContainer(name=record.name)
            self._pending.setdefault(record.id, []).append(client)
            if states.is_running(current):
                await self.hand_over(current)
        self._containers.emit("attach", current)

    async def hand_over(self, record: ContainerRecord) -> None:
        """Give the waiting clients to the monitor that has the container now. One that is silent at a start does not get them: they wait for the next."""
        while clients := self._pending.get(record.id):
            client, kept = clients[0], False
            try:
                await self._launch.call(
                    messages.Attach(0, record.id, client.streams, client.detach_keys, client.pending), (client.fd,)
                )
            except MonitorSilent:
                kept = not states.is_running(record)
                raise
            finally:
                if not kept:
                    os.close(client.fd)
                    clients.remove(client)
        self._pending.pop(record.id, None)

    def drop(self, container_id: str) -> None:
        """There will be nobody to hand them to."""
        for client in self._pending.pop(container_id, []):
            os.close(client.fd)

    async def resize(self, record: ContainerRecord, height: int, width: int) -> None:
        states.check("resize", record)
        await self._launch.call(messages.Resize(0, record.id, "", height, width))
        self._containers.emit("resize", record, height=str(height), width=str(width))

