"""Whether everything in the store is what its name says: blobs against their digests, unpacked layers against their blobs.

Finds and says; repairing is engine/repairing.py's. A layer is unpacked once more (by the confined worker) and the two trees compared.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        """Everything. Reads the whole store and needs room for its largest layer once more."""
        sizes, users = {digest: status.st_size for digest, status in self._blobs.all()}, self.users()
        there = list(sizes)
        problems: list[Problem] = []
        for digest in _telling(sizes, "blobs", told):
            actual = await asyncio.to_thread(self._blobs.actual_digest, digest)
            if actual not in (digest, ""):  # empty: removed meanwhile
                problems.append(Problem("blob", digest, f"its content is {actual}", users.get(digest, ())))
        problems += [Problem("blob", digest, "is missing", ids) for digest, ids in users.items() if digest not in there and not self._layers.tar_is_made(digest)]
        broken = {problem.id for problem in problems}
        rows = self._layers.all()
        for row in _telling({row: row.size for row in rows}, "layers", told):
            problem = await self._layer_problem(row, comparable=row.blob not in broken)
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

    async def _layer_problem(self, row: LayerRow, *, comparable: bool) -> Problem | None:
        folder = self._layout.layer(row.number)
        if not os.path.isdir(folder):
            text = "its folder is missing"
        elif row.blob == row.diff_id and not self._blobs.has(row.blob):
            actual = await self._layers.tar_again(row)
            text = f"its content is {actual}" if actual != row.diff_id else ""
        elif not comparable or not self._blobs.has(row.blob):
            return None  # without its blob there is nothing to hold it against; that the blob is broken is said
        else:
            text = await self._difference(row, folder)
        return Problem("layer", row.diff_id, text, self._images.with_layer(row.diff_id)) if text else None

    async def _difference(self, row: LayerRow, folder: str) -> str:
        """What the unpacked layer has otherwise than its blob, or empty."""
        try:
            async with self._layers.unpacked_again(row) as again:
                return await asyncio.to_thread(lambda: next(differences(folder, again), ""))
        except ArchiveRefused as error:
            return error.message

    def _missing_layers(self, known: set[str]) -> Iterator[Problem]:
        needed = {diff_id for row in self._images.rows() for _, diff_id in self.pairs(row)}
        for diff_id in sorted(needed - known):
            yield Problem("layer", diff_id, "is missing", self._images.with_layer(diff_id))


def differences(one: str, other: str, path: str = "") -> Iterator[str]:
    """Names of what two trees have differently, and what that is. Times of folders do not count: a tar need not have them."""
    first, second = set(os.listdir(f"{one}/{path}")), set(os.listdir(f"{other}/{path}"))
    for name in sorted(first | second):
        inside = f"{path}/{name}".lstrip("/")
        if name not in first or name not in second:
            yield f"/{inside} is {'missing' if name not in first else 'not in its blob'}"
            continue
        mine, theirs = f"{one}/{inside}", f"{other}/{inside}"
        before, after = os.lstat(mine), os.lstat(theirs)
        if what := _entry_difference(mine, theirs, before, after):
            yield f"/{inside} differs in its {what}"
        elif stat.S_ISDIR(before.st_mode):
            yield from differences(one, other, inside)


def _entry_difference(mine: str, theirs: str, before: os.stat_result, after: os.stat_result) -> str:
    for what, key in (("mode", "st_mode"), ("owner", "st_uid"), ("group", "st_gid"), ("device number", "st_rdev")):
        if getattr(before, key) != getattr(after, key):
            return what
    if _attributes(mine) != _attributes(theirs):
        return "extended attributes"
    if stat.S_ISLNK(before.st_mode):
        return "" if os.readlink(mine) == os.readlink(theirs) else "target"
    if not stat.S_ISDIR(before.st_mode) and before.st_mtime_ns != after.st_mtime_ns:
        return "time"
    if stat.S_ISREG(before.st_mode) and (before.st_size != after.st_size or _hash(mine) != _hash(theirs)):
        return "content"
    return ""


def _attributes(path: str) -> Sequence[tuple[str, bytes]]:
    return sorted((name, os.getxattr(path, name, follow_symlinks=False)) for name in os.listxattr(path, follow_symlinks=False))


def _hash(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
