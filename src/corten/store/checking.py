"""Whether everything in the store is what its name says: blobs against their digests, unpacked layers against their diff ids.

Finds and says; repairing is engine/repairing.py's. A layer's tar is put together from its folder (by the confined worker) and hashed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from corten.errors import ArchiveRefused, StoreCorrupt
from corten.store.blobs import Blobs
from corten.store.database import ImageRow, LayerRow
from corten.store.images import Images
from corten.store.layers import Layers
from corten.store.layout import Layout


@dataclass(frozen=True)
class Problem:
    """`kind`: blob or layer; `id` its digest or diff id; `images`: ids of those that need it."""

    kind: str
    id: str
    text: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checked:
    """How many were looked at, and what is wrong with them."""

    blobs: int
    layers: int
    problems: list[Problem]


Told = Callable[[str, int, int], None]  # blobs or layers, bytes of them that have been looked at, bytes of all
_T = TypeVar("_T")


def _telling(sizes: Mapping[_T, int], what: str, told: Told) -> Iterator[_T]:
    """Each of them; whoever asks for the next has looked at it."""
    done, total = 0, sum(sizes.values())
    for each, size in sizes.items():
        yield each
        done += size
        told(what, done, total)


class Checking:
    def __init__(self, layout: Layout, blobs: Blobs, layers: Layers, images: Images) -> None:
        self._layout, self._blobs, self._layers, self._images = layout, blobs, layers, images

    async def check(self, told: Told = lambda _what, _done, _total: None) -> Checked:
        """Everything. Reads the whole store; of a layer that has no record yet it needs room for one more copy."""
        sizes, users = {digest: status.st_size for digest, status in self._blobs.all()}, self.users()
        there = list(sizes)
        problems: list[Problem] = []
        for digest in _telling(sizes, "blobs", told):
            actual = await asyncio.to_thread(self._blobs.actual_digest, digest)
            if actual not in (digest, ""):  # empty: removed meanwhile
                problems.append(Problem("blob", digest, f"its content is {actual}", users.get(digest, ())))
        elsewhere = {blob for row in self._images.rows() for blob, diff_id in self.pairs(row) if self._layers.tars.can_be_had(blob, diff_id)}
        problems += [Problem("blob", digest, "is missing", ids) for digest, ids in users.items() if digest not in there and digest not in elsewhere]
        broken = {problem.id for problem in problems}
        rows = self._layers.all()
        for row in _telling({row: row.size for row in rows}, "layers", told):
            problem = await self._layer_problem(row, readable=row.blob not in broken)
            problems += [problem] if problem else []
        problems += self._missing_layers({row.diff_id for row in rows})
        return Checked(len(there), len(rows), problems)

    def users(self) -> dict[str, tuple[str, ...]]:
        """Digest of every blob that an image needs -> the images' ids. Of a broken manifest, what can be known."""
        found: dict[str, tuple[str, ...]] = {}
        for row in self._images.rows():
            for digest in (row.id, row.manifest, *self._images.targets_of(row.id), *self._images.kept_beside(row.id), *(layer for layer, _ in self.pairs(row))):
                found[digest] = (*found.get(digest, ()), row.id)
        return found

    def pairs(self, row: ImageRow) -> list[tuple[str, str]]:
        """(blob, diff id) of an image's layers; nothing if its manifest or config is broken."""
        try:
            return self._images.pairs(row)
        except (StoreCorrupt, ArchiveRefused):
            return []

    def knows_all(self) -> bool:
        """Whether it can be said of every blob who needs it: no manifest and no config is broken."""
        try:
            for row in self._images.rows():
                self._images.pairs(row)
        except (StoreCorrupt, ArchiveRefused):
            return False
        return True

    async def _layer_problem(self, row: LayerRow, *, readable: bool) -> Problem | None:
        """`readable`: its blob is whole, if it is there."""
        if not os.path.isdir(self._layout.layer(row.number)):
            text = "its folder is missing"
        else:
            text = await self._recorded(row) if readable else ""
            if not text and self._layers.tars.is_made(row.diff_id):
                text = await self._layers.tars.difference(row)
        return Problem("layer", row.diff_id, text, self._images.with_layer(row.diff_id)) if text else None

    async def _recorded(self, row: LayerRow) -> str:
        """Have a record of a layer from before there were any, made from its blob; or why there can be none."""
        if self._layers.tars.is_made(row.diff_id) or not self._blobs.has(row.blob):
            return ""
        try:
            await self._layers.record(row)
        except ArchiveRefused as error:
            return error.message
        return ""

    def _missing_layers(self, known: set[str]) -> Iterator[Problem]:
        needed = {diff_id for row in self._images.rows() for _, diff_id in self.pairs(row)}
        for diff_id in sorted(needed - known):
            yield Problem("layer", diff_id, "is missing", self._images.with_layer(diff_id))
