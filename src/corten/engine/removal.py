"""Removal: by a client, by itself (AutoRemove), or completed at start-up after a crash."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from corten.engine import states
from corten.engine.attaching import Attaching
from corten.engine.containers import Containers, replace_state
from corten.engine.events import Events
from corten.engine.mounting import Mounting
from corten.engine.records import ContainerRecord
from corten.engine.stopping import Stopping
from corten.errors import CortenError, PruneRunning, RemovalFailed
from corten.spec.filters import Filters, matches_labels, until_limit
from corten.spec.timestamps import now_ns, parse_rfc3339
from corten.store.layout import Layout
from corten.store.snapshots import Snapshots

_FORCE_ATTEMPTS = 10
_log = logging.getLogger("corten.engine")


@dataclass(frozen=True)
class Pruned:
    ids: list[str]
    reclaimed: int


class Removal:
    def __init__(self, containers: Containers, snapshots: Snapshots, layout: Layout, events: Events, attaching: Attaching,
                 stopping: Stopping, mounting: Mounting) -> None:  # fmt: skip
        self._containers, self._snapshots, self._layout, self._events = containers, snapshots, layout, events
        self._attaching, self._stopping, self._mounting = attaching, stopping, mounting
        self._kept: set[str] = set()
        self._pruning = False

    async def remove(self, record: ContainerRecord, *, force: bool, volumes: bool, called: str) -> None:
        """`volumes`: its anonymous ones go with it. Raises RemoveRunning unless forced, RemovalFailed (the container is dead then, and can be removed again)."""
        for attempt in range(_FORCE_ATTEMPTS, 0, -1):
            if force and states.is_up(record):
                await self._stopping.kill(record)
            async with self._containers.lock(record.id):
                current = self._containers.current(record.id)
                if current is None:
                    return  # its own auto-removal was quicker
                if force and states.is_up(current) and attempt > 1:
                    record = current  # somebody has started it again meanwhile
                    continue
                states.check("remove", current, called)
                await self.remove_now(current, called, volumes=volumes)
                return

    @contextmanager
    def kept(self, record: ContainerRecord) -> Iterator[None]:
        """While it is restarted by hand, its end does not remove it."""
        self._kept.add(record.id)
        try:
            yield
        finally:
            self._kept.discard(record.id)

    async def after_end(self, record: ContainerRecord) -> None:
        """It has ended: remove it, if it was created so. For whoever holds its lock, as the next."""
        if record.id not in self._kept:
            await self.after_failed_start(record)

    async def after_failed_start(self, record: ContainerRecord) -> None:
        """As above, also in the middle of a restart: it will not run again by itself."""
        if not record.host_config.auto_remove:
            return
        try:
            await self.remove_now(record, volumes=True)
        except RemovalFailed as error:  # it is dead now, and shown so
            _log.warning("%s", error.message)

    async def remove_now(self, record: ContainerRecord, called: str = "", *, volumes: bool) -> None:
        """For whoever holds the container's lock. What a crash cuts short is completed by the next engine."""
        record = self._containers.save_state(record.id, status="removing")
        self._attaching.drop(record.id)
        try:
            # Renamed away first, which takes no time and cannot be half done; a large tree is deleted beside the loop.
            self._snapshots.detach(record.id, for_good=True)
            await asyncio.to_thread(shutil.rmtree, self._snapshots.set_aside(record.id), ignore_errors=True)
        except OSError as error:
            failed = RemovalFailed(name=called or record.name, reason=f"{error.filename}: {error.strerror}")
            self._containers.save_state(record.id, status="dead", error=failed.message)
            raise failed from None
        shutil.rmtree(self._layout.run(record.id), ignore_errors=True)
        self._containers.delete(record)
        if volumes:
            await self._mounting.remove(record)
        self._containers.emit("destroy", record)
        gone = replace_state(record, error="")  # what a start failed with is no failure of the removal
        self._containers.announce(gone, "removed")
        self._containers.announce(gone, "exit")  # one that never ran has no other end

    async def prune(self, filters: Filters) -> Pruned:
        """Remove what is not up, by `until`, `label` and `label!`. Raises Invalid, PruneRunning."""
        before = until_limit(filters.get("until", []), now_ns())
        if self._pruning:
            raise PruneRunning
        self._pruning = True
        deleted: list[str] = []
        reclaimed = 0
        try:
            for record in self._containers.all():
                if states.is_up(record) or not _prunable(record, filters, before):
                    continue
                size = await asyncio.to_thread(self._snapshots.size, record.id)
                try:
                    await self.remove(record, force=False, volumes=False, called=record.id)
                except CortenError as error:  # somebody has started it meanwhile
                    _log.warning("container %s is not pruned: %s", record.name, error.message)
                    continue
                deleted.append(record.id)
                reclaimed += size
        finally:
            self._pruning = False
        self._events.emit("container", "prune", "", reclaimed=str(reclaimed))
        return Pruned(deleted, reclaimed)


def _prunable(record: ContainerRecord, filters: Filters, before: int | None) -> bool:
    labels = record.config.labels or {}
    if before is not None and parse_rfc3339(record.created) > before:
        return False
    if "label!" in filters and matches_labels(filters["label!"], labels):
        return False
    return matches_labels(filters.get("label", []), labels)
