"""How much disk everything takes: containers' writable layers, images and what they share, volumes.

Folders are walked in a thread; requests for the same at the same time share one walk. Source: moby daemon/disk_usage.go at v28.5.2.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from corten.engine.containers import Containers
from corten.engine.images import ImageService
from corten.engine.records import ContainerRecord, VolumeRecord
from corten.engine.volume_history import VolumeHistory
from corten.engine.volumes import Volumes
from corten.errors import NoSuchImage
from corten.store.images import Image
from corten.store.snapshots import Snapshots

KINDS = ("container", "image", "volume", "build-cache")


@dataclass(frozen=True)
class ContainerUsage:
    """Bytes: of the writable layer, and of that with the image under it."""

    record: ContainerRecord
    writable: int
    whole: int


@dataclass(frozen=True)
class ImageUsage:
    """Bytes: of all its layers, and of those that another image has too."""

    image: Image
    size: int
    shared: int
    containers: int


@dataclass(frozen=True)
class VolumeUsage:
    """`size` in bytes; `references` counts the containers, running or not, that mount it."""

    volume: VolumeRecord
    size: int
    references: int


@dataclass(frozen=True)
class Usage:
    """None is what was not asked for. `layers` is the size of all layers, each counted once."""

    layers: int
    containers: list[ContainerUsage] | None
    images: list[ImageUsage] | None
    volumes: list[VolumeUsage] | None


class DiskUsage:
    def __init__(self, containers: Containers, images: ImageService, volumes: Volumes, history: VolumeHistory, snapshots: Snapshots) -> None:
        self._containers, self._images, self._volumes, self._history, self._snapshots = containers, images, volumes, history, snapshots
        self._running: dict[frozenset[str], asyncio.Task[Usage]] = {}

    async def measure(self, kinds: Iterable[str]) -> Usage:
        """`kinds` are of KINDS."""
        wanted = frozenset(kinds)
        task = self._running.get(wanted)
        if task is None:
            task = self._running[wanted] = asyncio.create_task(self._measure(wanted))
            task.add_done_callback(lambda _: self._running.pop(wanted, None))
        return await asyncio.shield(task)

    async def _measure(self, kinds: frozenset[str]) -> Usage:
        images = self.images() if "image" in kinds else None
        return Usage(
            sum(self._layers().values()) if "image" in kinds else 0,
            [await self.container(record) for record in self._containers.all()] if "container" in kinds else None,
            images,
            await self.volumes() if "volume" in kinds else None,
        )

    async def container(self, record: ContainerRecord) -> ContainerUsage:
        writable = await asyncio.to_thread(self._snapshots.size, record.id)
        try:
            image = self._images.size(self._images.find(record.image))
        except NoSuchImage:
            image = 0
        return ContainerUsage(record, writable, writable + image)

    async def volumes(self) -> list[VolumeUsage]:
        """Of the volumes whose content is on this host's disk. What is found is written into their history."""
        found = [(record, await self._volumes.size(record)) for record in self._volumes.all()]
        measured = [(record, size) for record, size in found if size is not None]
        for record, size in measured:
            self._history.measured(record.name, size)
        return [VolumeUsage(record, size, len(self._volumes.references(record.name))) for record, size in measured]

    def images(self) -> list[ImageUsage]:
        """A row as in the image list: with all platforms of what its names mean."""
        users, shared = Counter(record.image for record in self._containers.all()), self._images.shared_sizes()
        return [ImageUsage(image, self._images.whole_size(image), shared[image.id], sum(users[one.id] for one in self._images.platforms(image)))
                for image in self._images.all() if image.shown]  # fmt: skip

    def _layers(self) -> dict[str, int]:
        """Diff id -> bytes."""
        return {diff_id: size for image in self._images.all()
                for diff_id, size in zip(image.config.rootfs.diff_ids, self._images.layer_sizes(image), strict=True)}  # fmt: skip
