"""`GET /system/df`: what everything takes on disk, in Docker's shape."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from corten.api import views
from corten.api.build_cache import BuildCacheHandlers
from corten.api.call import Call, json_response
from corten.engine.images import ImageService
from corten.engine.usage import KINDS, ContainerUsage, DiskUsage, ImageUsage, VolumeUsage
from corten.engine.volumes import Volumes
from corten.errors import Invalid
from corten.spec.timestamps import now_ns


class UsageHandlers:
    def __init__(self, usage: DiskUsage, images: ImageService, volumes: Volumes, cached: BuildCacheHandlers) -> None:
        self._usage, self._images, self._volumes, self._cached = usage, images, volumes, cached

    async def disk_usage(self, call: Call) -> web.Response:
        """What was not asked for is null."""
        for kind in call.values("type"):
            if kind not in KINDS:
                raise Invalid(f"unknown object type: {kind}")
        kinds = call.values("type") or KINDS
        usage, now, name_of = await self._usage.measure(kinds), now_ns(), self._images.namer()
        return json_response({
            "LayersSize": usage.layers,
            "Images": None if usage.images is None else [self._image(entry) for entry in usage.images],
            "Containers": None if usage.containers is None else [self._container(entry, name_of(entry.record), now) for entry in usage.containers],
            "Volumes": None if usage.volumes is None else [self._volume(entry) for entry in usage.volumes],
            "BuildCache": await self._cached.rows() if "build-cache" in kinds else None,
        })  # fmt: skip

    @staticmethod
    def _image(entry: ImageUsage) -> dict[str, Any]:
        item = views.image_item(entry.image, entry.size, entry.containers) | {"SharedSize": entry.shared}
        return item | {key: item[key] or None for key in ("RepoTags", "RepoDigests")}  # no list is made of none here

    def _container(self, entry: ContainerUsage, image: str, now: int) -> dict[str, Any]:
        shown = views.list_item(entry.record, image, now, self._volumes.mountpoint)
        return shown | views.container_sizes(entry)

    def _volume(self, entry: VolumeUsage) -> dict[str, Any]:
        shown = views.volume_view(entry.volume, self._volumes.path(entry.volume), self._volumes.scope(entry.volume))
        return shown | {"UsageData": {"RefCount": entry.references, "Size": entry.size}}
