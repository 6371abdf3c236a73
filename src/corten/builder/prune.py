"""Which rows of the build cache go, and what goes with them: layers that nobody else has, folders of cache mounts, downloads and kept contexts. By the client's filters,
or by the limits that the engine's settings give.

Choosing is pure. Source: Docker Engine 28.5 `POST /build/prune` (BuildKit's cache/manager.go prune).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from corten.builder.cache import Cache, CacheRow
from corten.builder.limits import Policy, Space
from corten.errors import Invalid
from corten.spec.filters import Filters, matches_pattern, one_flag, until_limit
from corten.spec.timestamps import now_ns
from corten.store.collection import Item, content_of
from corten.store.images import Images
from corten.store.sweeping import Sweeping

FILTERS = ("until", "unused-for", "id", "parent", "parents", "type", "description", "inuse", "shared", "private")


@dataclass(frozen=True)
class CacheUse:
    """A row as it stands: `in_use` by a build that runs, `shared` with an image. `size` in bytes; `parents` are keys of other rows."""

    row: CacheRow
    in_use: bool
    shared: bool
    size: int
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """What stays: `keep` bytes of it, and what has been used since `since` (nanoseconds since the epoch). None: nothing for that reason."""

    keep: int | None = None
    since: int | None = None


@dataclass(frozen=True)
class Pruned:
    keys: list[str]
    reclaimed: int


def matching(uses: Iterable[CacheUse], filters: Filters, now: int, *, everything: bool) -> list[CacheUse]:
    """Pure: those that the filters let go. Without `everything` what an image has too stays. Raises Invalid."""
    moments = [*filters.get("until", []), *filters.get("unused-for", [])]
    before = until_limit(moments, now)
    flags = {name: one_flag(filters, name) for name in ("inuse", "shared", "private")}
    found = []
    for use in uses:
        states = {"inuse": use.in_use, "shared": use.shared, "private": not use.shared}
        if use.in_use or (use.shared and not everything) or any(flags[name] not in (None, state) for name, state in states.items()):
            continue
        if before is not None and use.row.used > before:
            continue
        parents = [*filters.get("parent", []), *filters.get("parents", [])]
        if parents and not set(parents) & set(use.parents):
            continue
        if matches_pattern(filters.get("id", []), use.row.key) and matches_pattern(filters.get("type", []), use.row.kind) \
                and matches_pattern(filters.get("description", []), use.row.description):  # fmt: skip
            found.append(use)
    return found


def within(uses: Iterable[CacheUse], limits: Limits, total: int) -> list[CacheUse]:
    """Pure: of those that may go, the ones that must: the longest unused first, until no more than `keep` of `total` bytes is left."""
    found: list[CacheUse] = []
    for use in sorted(uses, key=lambda use: use.row.used):
        young = limits.since is not None and use.row.used >= limits.since
        if not young and (limits.keep is None or total > limits.keep):
            found.append(use)
            total -= use.size
    return found


class Folders(Protocol):
    """Who keeps a kind of rows' folders: those of cache mounts, or of contexts."""

    async def saved(self) -> None:
        """Returns once what is there has its row."""
        ...

    def size(self, folder: str) -> int:
        """Bytes. For threads."""
        ...

    def in_use(self, folder: str) -> bool: ...

    async def remove(self, folder: str) -> bool:
        """Whether it is gone: one that somebody uses by now stays."""
        ...


class Pruning:
    """`root` is on the store's disk. `folders` are what keeps the folders of rows that are no layers, by the rows' kind. `busy_since` tells since when (nanoseconds) the oldest running build has been, if one is."""

    def __init__(self, root: str, cache: Cache, folders: Mapping[str, Folders], images: Images, sweeping: Sweeping, busy_since: Callable[[], int | None]) -> None:
        self._root = root
        self._cache, self._folders, self._images, self._sweeping = cache, folders, images, sweeping
        self._busy_since = busy_since
        self._lock = asyncio.Lock()

    async def uses(self) -> list[CacheUse]:
        """Every row, the oldest first."""
        for keeper in self._folders.values():
            await keeper.saved()
        in_images = {diff_id for image in self._images.all() for diff_id in image.config.rootfs.diff_ids}
        makers = {row.layer: row.key for row in self._cache.rows() if row.layer}
        busy = self._busy_since()
        found: list[CacheUse] = []
        for row in self._cache.rows():
            if row.folder:
                keeper = self._folders[row.kind]
                size = await asyncio.to_thread(keeper.size, row.folder)
                found.append(CacheUse(row, keeper.in_use(row.folder), shared=False, size=size))
                continue
            parents = tuple(makers[diff_id] for diff_id in row.base[-1:] if diff_id in makers)
            found.append(CacheUse(row, busy is not None and row.used >= busy, row.layer in in_images, row.size, parents))
        return found

    async def prune(self, filters: Filters, space: Space, *, everything: bool, since: int | None = None) -> Pruned:
        """`since`: what has been used after that (nanoseconds since the epoch) stays. Raises Invalid for a filter that cannot be read."""
        async with self._lock:
            uses = await self.uses()
            total = sum(use.size for use in uses if not use.shared)
            limits = Limits(space.keep(total, self._free()), since)
            return await self._remove(within(matching(uses, filters, now_ns(), everything=everything), limits, total))

    async def collect(self, policies: Sequence[Policy]) -> Pruned:
        """What the settings do not let stay, one policy after the other."""
        keys: list[str] = []
        reclaimed = 0
        for policy in policies:
            since = None if policy.unused_for is None else now_ns() - policy.unused_for
            pruned = await self.prune({"type": list(policy.types)} if policy.types else {}, policy.space, everything=False, since=since)
            keys += pruned.keys
            reclaimed += pruned.reclaimed
        return Pruned(keys, reclaimed)

    def _free(self) -> int:
        """Bytes of the store's disk."""
        found = os.statvfs(self._root)
        return found.f_bfree * found.f_frsize

    # --- for the collector of the whole store
    def items(self) -> list[Item]:
        """Every step's row; one that a running build has used stays. Folders of cache mounts and contexts are no layers, and go by prune alone."""
        busy = self._busy_since()
        return [
            Item("build-cache", row.key, (row.description,), row.used, content_of(hold), "in use by a build" if busy is not None and row.used >= busy else "")
            for hold in self._cache.holds() if (row := self._cache.row(hold.id))
        ]  # fmt: skip

    def let_go(self, item: Item) -> None:
        row = self._cache.row(item.id)
        if row:
            self._release([row])

    def _release(self, rows: Sequence[CacheRow]) -> int:
        """Forget them, and what nobody else holds of their layers; bytes."""
        layers = {diff_id for row in rows for diff_id in row.needs}
        blobs = {digest for row in rows for digest in self._cache.blobs(row)}
        self._cache.remove(rows)
        return sum(row.size for row in self._sweeping.release(layers, blobs))

    async def _remove(self, chosen: Sequence[CacheUse]) -> Pruned:
        going = [use for use in chosen if not use.row.folder or await self._folders[use.row.kind].remove(use.row.folder)]
        reclaimed = self._release([use.row for use in going]) + sum(use.size for use in going if use.row.folder)
        return Pruned([use.row.key for use in going], reclaimed)


def read_space(reserved: int | None, most: int | None, free: int | None) -> Space:
    """Of `reserved-space` (or `keep-storage`), `max-used-space` and `min-free-space`, in bytes. Raises Invalid."""
    if any(value < 0 for value in (reserved, most, free) if value):
        raise Invalid("the space to keep can not be less than 0")
    return Space(reserved or 0, most or 0, free or 0)
