"""Removal: by a client, by itself (AutoRemove), or completed at start-up after a crash."""

from __future__ import annotations

import shutil

from corten.engine import states
from corten.engine.attaching import Attaching
from corten.engine.containers import Containers
from corten.engine.records import ContainerRecord
from corten.engine.stopping import Stopping
from corten.store.layout import Layout
from corten.store.snapshots import Snapshots


class Removal:
    def __init__(self, containers: Containers, snapshots: Snapshots, layout: Layout, attaching: Attaching, stopping: Stopping) -> None:
        self._containers, self._snapshots, self._layout = containers, snapshots, layout
        self._attaching, self._stopping = attaching, stopping

    async def remove(self, record: ContainerRecord, *, force: bool, called: str) -> None:
        """Raises RemoveRunning unless forced."""
        if force and states.is_running(record):
            await self._stopping.kill(record)
        async with self._containers.lock(record.id):
            current = self._containers.current(record.id)
            if current is None:
                return  # its own auto-removal was quicker
            states.check("remove", current, called)
            self.remove_now(current)

    def remove_now(self, record: ContainerRecord) -> None:
        """For whoever holds the container's lock. Idempotent: a crash in between is completed by the next engine."""
        record = self._containers.save_state(record.id, status="removing")
        self._attaching.drop(record.id)
        self._snapshots.remove(record.id)
        shutil.rmtree(self._layout.run(record.id), ignore_errors=True)
        self._containers.delete(record)
        self._containers.emit("destroy", record)
        self._containers.announce(record, "removed")
