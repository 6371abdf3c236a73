"""Pruning volumes: which of the unused ones go. Removing one is volumes.py's. Source: Docker Engine 28.5 (moby volume/service)."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from corten.engine.events import Events
from corten.engine.volume_drivers import ANONYMOUS, LOCAL
from corten.engine.volumes import Volumes
from corten.errors import Conflict, CortenError, Invalid
from corten.spec.filters import Filters
from corten.store.volumes import VolumeFolders

_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")  # Go's strconv.ParseBool
_log = logging.getLogger("corten.engine")


@dataclass(frozen=True)
class Pruned:
    """`reclaimed` in bytes."""

    names: list[str]
    reclaimed: int


class VolumePruning:
    def __init__(self, volumes: Volumes, folders: VolumeFolders, events: Events) -> None:
        self._volumes, self._folders, self._events = volumes, folders, events
        self._under_way = False

    async def prune(self, filters: Filters) -> Pruned:
        """Remove unused local volumes without options: the anonymous ones, or `all`. Raises Invalid; Conflict while another prune runs."""
        if self._under_way:
            raise Conflict("a prune operation is already running")
        everything = prune_all(filters)
        self._under_way = True
        try:
            pruned = await self._prune(filters, everything=everything)
        finally:
            self._under_way = False
        self._events.emit("volume", "prune", "", reclaimed=str(pruned.reclaimed))
        return pruned

    async def _prune(self, filters: Filters, *, everything: bool) -> Pruned:
        names: list[str] = []
        reclaimed = 0
        for record in self._volumes.all():
            plain = record.driver == LOCAL and not record.options
            wanted = plain and (everything or ANONYMOUS in (record.labels or {}))
            if not wanted or not self._volumes.matches(record, filters, dangling=True):
                continue
            size = await asyncio.to_thread(self._folders.size, record.name)
            try:
                await self._volumes.remove(record.name)
            except CortenError as error:  # somebody has begun to use it
                _log.warning("volume %s is not pruned: %s", record.name, error.message)
                continue
            names.append(record.name)
            reclaimed += size
        return Pruned(names, reclaimed)


def prune_all(filters: Filters) -> bool:
    """The `all` filter of a prune. Raises Invalid with Docker's texts."""
    values = filters.get("all", [])
    if len(values) > 1:
        raise Invalid(f"invalid filter 'all=[{' '.join(sorted(values))}]': only one value is expected")
    if values and values[0] not in (*_TRUE, *_FALSE):
        raise Invalid(f"invalid filter 'all': strconv.ParseBool: parsing \"{values[0]}\": invalid syntax")
    return bool(values) and values[0] in _TRUE
