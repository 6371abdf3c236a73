"""Removing layers and blobs that nothing holds any more (holds.py says what that is).

A layer's row goes first and its folder is moved away at once: what a crash leaves is emptied at start-up. Files are deleted in a
thread. Content that nothing holds and nobody asked to be removed is a broken-off pull's: the next try finds it, for a week.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from corten.errors import ArchiveRefused, StoreCorrupt
from corten.store.blobs import Blobs
from corten.store.database import LayerRow
from corten.store.holds import Holds
from corten.store.layers import Layers
from corten.store.layout import Layout

KEPT_FOR = 7 * 24 * 3600
_log = logging.getLogger("corten.store")


@dataclass(frozen=True)
class Leftovers:
    """What nothing holds. `written`: when, by digest or diff id, in seconds since the epoch."""

    layers: tuple[LayerRow, ...]
    blobs: tuple[tuple[str, int], ...]  # (digest, bytes)
    written: dict[str, float]

    @property
    def size(self) -> int:
        return sum(row.size for row in self.layers) + sum(size for _, size in self.blobs)


class Sweeping:
    def __init__(self, layout: Layout, blobs: Blobs, layers: Layers, holds: Holds) -> None:
        self._layout, self._blobs, self._layers, self._holds = layout, blobs, layers, holds
        self._later: tuple[set[str], set[str]] = (set(), set())
        self._deleting: set[asyncio.Future[None]] = set()
        holds.when_free(self._catch_up)

    def release(self, diff_ids: Iterable[str], digests: Iterable[str]) -> list[LayerRow]:
        """Remove those of them that nothing holds; the layers that went. While somebody works on content they go afterwards.

        Nothing goes while an image's config is broken: it is not known what that one holds. It is left over, then.
        """
        if self._holds.leased:
            self._later[0].update(diff_ids)
            self._later[1].update(digests)
            return []
        try:
            held_layers, held_blobs = self._holds.held()
        except (StoreCorrupt, ArchiveRefused) as error:
            _log.warning("nothing is swept: %s", error.message)
            return []
        rows = [row for diff_id in diff_ids if diff_id not in held_layers and (row := self._layers.find(diff_id))]
        for row in rows:
            self._delete(self._layers.set_aside(row))
        for digest in ({*digests} | {row.blob for row in rows}) - held_blobs:
            self._layers.tars.forget(digest)
            if aside := self._blobs.set_aside(digest):
                self._delete(aside)
        return rows

    def _catch_up(self) -> None:
        layers, blobs = self._later
        self._later = (set(), set())
        if layers or blobs:
            self.release(layers, blobs)

    def _delete(self, path: str) -> None:
        """What has been moved away, in a thread."""
        work = asyncio.get_running_loop().run_in_executor(None, _delete, path)
        self._deleting.add(work)
        work.add_done_callback(self._deleting.discard)

    def leftovers(self) -> Leftovers:
        """What nothing holds. Nothing, while somebody works on content: it is not known what will be held."""
        if self._holds.leased:
            return Leftovers((), (), {})
        held_layers, held_blobs = self._holds.held()
        rows = tuple(row for row in self._layers.all() if row.diff_id not in held_layers)
        blobs: list[tuple[str, int]] = []
        written: dict[str, float] = {}
        for row in rows:
            with suppress(FileNotFoundError):  # removed by hand: only its row is left, for as long as anything
                written[row.diff_id] = os.stat(self._layout.layer(row.number)).st_ctime
        for digest, status in self._blobs.all():
            if digest not in held_blobs:
                blobs.append((digest, status.st_size))
                written[digest] = status.st_mtime
        return Leftovers(rows, tuple(blobs), written)

    def remove_old_leftovers(self, now: float) -> None:
        """Start-up: what a crash or a broken-off pull has left a week ago. `now` is seconds since the epoch."""
        try:
            found = self.leftovers()
        except (StoreCorrupt, ArchiveRefused) as error:
            _log.warning("nothing is swept: %s", error.message)
            return
        old = {name for name, moment in found.written.items() if moment < now - KEPT_FOR}
        self.release([row.diff_id for row in found.layers if row.diff_id in old], [digest for digest, _ in found.blobs if digest in old])


def _delete(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)
