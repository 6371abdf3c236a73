"""Removal: by a client, by itself (AutoRemove), or completed at start-up after a crash."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from corten.engine import states
from corten.engine.attaching import Attaching
from corten.engine.containers import Containers, replace_state
from corten.engine.records import ContainerRecord
from corten.engine.stopping import Stopping
from corten.errors import RemovalFailed
from corten.store.layout import Layout
from corten.store.snapshots import Snapshots


class Removal:
    def __init__(self, containers: Containers, snapshots: Snapshots, layout: Layout, attaching: Attaching, stopping: Stopping) -> None:
        self._containers, self._snapshots, self._layout = containers, snapshots, layout
        self._attaching, self._stopping = attaching, stopping
        self._kept: set[str] = set()

    async def remove(self, record: ContainerRecord, *, force: bool, called: str) -> None:
        """Raises RemoveRunning unless forced, RemovalFailed (the container is dead then, and can be removed again)."""
        if force and states.is_up(record):
            await self._stopping.kill(record)
        async with self._containers.lock(record.id):
            current = self._containers.current(record.id)
            if current is None:
                return  # its own auto-removal was quicker
            states.check("remove", current, called)
            await self.remove_now(current, called)

    @contextmanager
    def kept(self, record: ContainerRecord) -> Iterator[None]:
        """While it is restarted by hand, its end does not remove it."""
        self._kept.add(record.id)
        try:
            yield
        finally:
            self._kept.discard(record.id)

    async def after_end(self, record: ContainerRecord) -> None:
        """Remove one that has ended, if it was created so. For whoever holds its lock."""
        if record.host_config.auto_remove and record.id not in self._kept:
            await self.remove_now(record)

    async def remove_now(self, record: ContainerRecord, called: str = "") -> None:
        """For whoever holds the container's lock. What a crash cuts short is completed by the next engine."""
        record = self._containers.save_state(record.id, status="removing")
        self._attaching.drop(record.id)
        try:
            # Renamed away first, which takes no time and cannot be half done; a large tree is deleted beside the loop.
            await asyncio.to_thread(shutil.rmtree, self._snapshots.set_aside(record.id), ignore_errors=True)
        except OSError as error:
            failed = RemovalFailed(name=called or record.name, reason=f"{error.filename}: {error.strerror}")
            self._containers.save_state(record.id, status="dead", error=failed.message)
            raise failed from None
        shutil.rmtree(self._layout.run(record.id), ignore_errors=True)
        self._containers.delete(record)
        self._containers.emit("destroy", record)
        gone = replace_state(record, error="")  # what a start failed with is no failure of the removal
        self._containers.announce(gone, "removed")
        self._containers.announce(gone, "exit")  # one that never ran has no other end
