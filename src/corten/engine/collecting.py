"""The collector: what holds the disk, what would go next, and letting it go, by hand or whenever a watermark is passed.

What is in use or pinned never goes. What may go and in which order is store/collection.py's; removing images is image_removal.py's.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from corten.engine.collectables import last_use
from corten.engine.image_removal import ImageRemoval
from corten.engine.images import ImageService, familiar
from corten.errors import CortenError
from corten.spec.timestamps import duration_text, now_ns
from corten.store.blobs import Blobs
from corten.store.collection import (
    CONTENT,
    KINDS,
    Contents,
    Disk,
    Item,
    Step,
    Watermarks,
    content_of,
    is_pinned,
    layer_key,
    plan,
)
from corten.store.holds import Hold, Holds
from corten.store.images import Image, Images
from corten.store.layers import Layers
from corten.store.layout import Layout
from corten.store.sweeping import Sweeping

_log = logging.getLogger("corten.engine")
_EVERY = 60.0
_SECOND = 1_000_000_000


class Kind(Protocol):
    """One kind of what can be collected."""

    async def items(self, *, everything: bool) -> Iterable[Item]:
        """Those of it; with `everything` also such as are kept, whose size may take a walk to find."""
        ...

    async def remove(self, item: Item) -> None:
        """Looks again whether it may. Raises CortenError where somebody has begun to use it meanwhile."""
        ...


class Known:
    """A kind whose sizes are rows: nothing has to be waited for."""

    def __init__(self, items: Callable[[], Iterable[Item]], remove: Callable[[Item], None]) -> None:
        self._items, self._remove = items, remove

    async def items(self, *, everything: bool) -> Iterable[Item]:
        return self._items()

    async def remove(self, item: Item) -> None:
        self._remove(item)


@dataclass(frozen=True)
class Survey:
    """The disk, everything that could be collected or says why not, and how often what is held by anything else."""

    disk: Disk
    items: list[Item]
    contents: Contents
    holds: list[Hold]


class Collecting:
    def __init__(self, layout: Layout, blobs: Blobs, layers: Layers, images: Images, service: ImageService, holds: Holds, sweeping: Sweeping,
                 removal: ImageRemoval, watermarks: Watermarks | None) -> None:  # fmt: skip
        self._layout, self._blobs, self._layers, self._images, self._service = layout, blobs, layers, images, service
        self._holds, self._sweeping, self._removal = holds, sweeping, removal
        self.watermarks, self.automatic = watermarks or Watermarks(), watermarks is not None
        self._kinds: dict[str, Kind] = {
            "leftovers": Known(self._leftovers, self._remove_leftover),
            "dangling": Known(lambda: self._rows(named=False), self._remove_image),
            "images": Known(lambda: self._rows(named=True), self._remove_image),
        }
        self._one_at_a_time = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def join(self, name: str, kind: Kind) -> None:
        """`name` is one of store/collection.py's KINDS."""
        self._kinds[name] = kind

    # --- what there is
    async def survey(self, kinds: Sequence[str] = KINDS, *, everything: bool = True) -> Survey:
        """`kinds`: those to be looked at although it takes walks; `everything`: there, what is kept too."""
        items: list[Item] = []
        for name, kind in self._kinds.items():
            if name in kinds or name in CONTENT:
                items += [self._aged(item) for item in await kind.items(everything=everything)]
        holds = self._holds.all()
        records = self._layers.tars.sizes()
        sizes = {layer_key(row.diff_id): row.size + records.get(row.diff_id, 0) for row in self._layers.all()}
        sizes |= {digest: status.st_size for digest, status in self._blobs.all()}
        listed = {item.id for item in items}
        others = Counter(each for hold in holds if hold.kind != "image" and hold.id not in listed for each in content_of(hold))
        counted = {key: size for item in items if item.kind in self.watermarks.kinds for key, size in item.own}
        return Survey(self._disk(sum(sizes.values()) + sum(counted.values())), items, Contents(sizes, others), holds)

    def _aged(self, item: Item) -> Item:
        """What has been used lately is kept, if its kind is to be unused for a time."""
        least = self.watermarks.unused_for.get(item.kind, 0)
        if (item.kept and not item.until) or not least or item.used <= now_ns() - least:
            return item
        return replace(item, kept=f"used less than {duration_text(least)} ago", until=frozenset())

    def _disk(self, store: int) -> Disk:
        found = os.statvfs(self._layout.root)
        return Disk(found.f_blocks * found.f_frsize, (found.f_blocks - found.f_bavail) * found.f_frsize, store)

    def _rows(self, *, named: bool) -> list[Item]:
        """A row of the image list is an item: with a name go all its platforms."""
        uses, pins = self._images.uses(), self._images.pins()
        found: list[Item] = []
        for image in self._service.all():
            if image.shown and bool(image.tags) == named:
                group = self._service.platforms(image)
                content = frozenset[str]().union(*(content_of(self._images.hold(one)) for one in group))
                users = [record for one in group for record in self._service.users(one)]
                used = max(*(uses.get(one.id, one.row.stored) for one in group), *map(last_use, users), 0)
                kept = next((why for one in group if (why := self._kept(one, pins))), "")
                until = frozenset[str]()
                if users and not kept:
                    kept, until = f"in use by container {users[0].name}", frozenset(record.id for record in users)
                names = tuple(map(familiar, (*image.tags, *image.digests)))
                found.append(Item("images" if named else "dangling", image.id, names, used, content, kept, until=until))
        return found

    def _kept(self, image: Image, pins: set[str]) -> str:
        """Why it never goes, whatever else does."""
        if image.id in pins or is_pinned(image.config.run.labels):
            return "pinned"
        children = self._service.children(image)
        return f"image {children[0].id} is made from it" if children else ""

    def _leftovers(self) -> list[Item]:
        found = self._sweeping.leftovers()
        content: dict[str, set[str]] = {}
        for row in found.layers:
            content.setdefault(row.diff_id, set()).add(layer_key(row.diff_id))
        for digest, _ in found.blobs:
            content.setdefault(digest, set()).add(digest)
        return [Item("leftovers", name, (), round(found.written.get(name, 0) * _SECOND), frozenset(keys)) for name, keys in content.items()]

    # --- letting go
    async def plan(self, need: int | None = None, kinds: Sequence[str] = ()) -> list[Step]:
        """What would go of `kinds` (or those of the settings), to have `need` bytes more, or to come down to the low watermark."""
        wanted = kinds or self.watermarks.kinds
        by_size = need is None and not self.watermarks.low.percent  # then it matters what all of the store takes
        survey = await self.survey(self.watermarks.kinds if by_size else wanted, everything=by_size)
        return plan(survey.items, survey.contents, wanted, self.watermarks.low.excess(survey.disk) if need is None else need)

    async def collect(self, need: int | None = None, kinds: Sequence[str] = ()) -> list[Step]:
        """Do it. What somebody has begun to use meanwhile stays, and is not in the answer."""
        done: list[Step] = []
        async with self._one_at_a_time:
            for step in await self.plan(need, kinds):
                try:
                    await self._kinds[step.item.kind].remove(step.item)
                    done.append(step)
                except CortenError as error:
                    _log.info("%s %s is not collected: %s", step.item.kind, step.item.id, error.message)
        return done

    def _remove_image(self, item: Item) -> None:
        """All its names, and it with the last."""
        for name in item.names or (item.id,):
            if self._service.meant(name):  # a repository's digests go with its last tag
                self._removal.remove(name, force=False)

    def _remove_leftover(self, item: Item) -> None:
        self._sweeping.release([item.id], [item.id])

    # --- by itself
    def start(self) -> None:
        """Look every minute, if daemon.json has watermarks."""
        if self.automatic:
            self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while True:
            try:
                await self.collect_if_full()
            except (OSError, CortenError):
                _log.exception("the collector cannot look at the disk or at what is on it")
            await asyncio.sleep(_EVERY)

    async def collect_if_full(self) -> list[Step]:
        high = self.watermarks.high
        disk = self._disk(0) if high.percent else (await self.survey(self.watermarks.kinds)).disk
        if not high.excess(disk):
            return []
        done = await self.collect()
        _log.warning("the disk is fuller than %s: collected %d things, %d bytes", high, len(done), sum(step.frees for step in done))
        return done
