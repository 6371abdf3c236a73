"""The collector: what holds the disk, what would go next, and letting it go, by hand or whenever a watermark is passed.

What is in use or pinned never goes. What may go and in which order is store/collection.py's; removing images is image_removal.py's.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from corten.engine.image_removal import ImageRemoval
from corten.engine.images import ImageService, familiar
from corten.errors import CortenError
from corten.store.blobs import Blobs
from corten.store.collection import Contents, Disk, Item, Step, Watermarks, content_of, layer_key, plan
from corten.store.holds import Hold, Holds
from corten.store.images import Image, Images
from corten.store.layers import Layers
from corten.store.layout import Layout
from corten.store.sweeping import Sweeping

_log = logging.getLogger("corten.engine")
PIN_LABEL = "dev.corten.pin"
_EVERY = 60.0
_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Kind:
    """One more kind of what can be collected: the items of it, and how one is removed."""

    items: Callable[[], Iterable[Item]]
    remove: Callable[[Item], None]


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
        self._kinds = {
            "leftovers": Kind(self._leftovers, self._remove_leftover),
            "dangling": Kind(lambda: self._rows(named=False), self._remove_image),
            "images": Kind(lambda: self._rows(named=True), self._remove_image),
        }
        self._task: asyncio.Task[None] | None = None

    def join(self, name: str, kind: Kind) -> None:
        """`name` is one of store/collection.py's KINDS."""
        self._kinds[name] = kind

    # --- what there is
    def survey(self) -> Survey:
        holds = self._holds.all()
        items = [item for kind in self._kinds.values() for item in kind.items()]
        sizes = {layer_key(row.diff_id): row.size for row in self._layers.all()} | {digest: status.st_size for digest, status in self._blobs.all()}
        known = {item.id for item in items}
        others = Counter(each for hold in holds if hold.kind != "image" and hold.id not in known for each in content_of(hold))
        return Survey(self._disk(sum(sizes.values())), items, Contents(sizes, others), holds)

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
                used = max(uses.get(one.id, one.row.stored) for one in group)
                kept = next((why for one in group if (why := self._kept(one, pins))), "")
                found.append(Item("images" if named else "dangling", image.id, tuple(map(familiar, (*image.tags, *image.digests))), used, content, kept))
        return found

    def _kept(self, image: Image, pins: set[str]) -> str:
        if image.id in pins or (image.config.run.labels or {}).get(PIN_LABEL, "false").lower() not in ("", "0", "false"):
            return "pinned"
        users = self._service.users(image)
        if users:
            return f"in use by container {users[0].name}"
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
    def plan(self, need: int | None = None) -> list[Step]:
        """What would go, to have `need` bytes more, or to come down to the low watermark."""
        survey = self.survey()
        wanted = self.watermarks.low.excess(survey.disk) if need is None else need
        return plan(survey.items, survey.contents, self.watermarks.kinds, wanted)

    def collect(self, need: int | None = None) -> list[Step]:
        """Do it. What somebody has begun to use meanwhile stays, and is not in the answer."""
        done: list[Step] = []
        for step in self.plan(need):
            try:
                self._kinds[step.item.kind].remove(step.item)
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
                self.collect_if_full()
            except (OSError, CortenError):
                _log.exception("the collector cannot look at the disk or at what is on it")
            await asyncio.sleep(_EVERY)

    def collect_if_full(self) -> list[Step]:
        if not self.watermarks.high.excess(self.survey().disk):
            return []
        done = self.collect()
        _log.warning("the disk is fuller than %s: collected %d things, %d bytes", self.watermarks.high, len(done), sum(step.frees for step in done))
        return done
