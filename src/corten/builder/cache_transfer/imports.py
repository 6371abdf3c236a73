"""Steps from elsewhere: looked for by key when the cache here has none, brought in one by one, verified, and remembered as if made here.

A blob becomes visible only under its digest, a layer only if it unpacks to its diff id, a step only if its key is that of its ingredients. What
fails a check is no hit, and the step is carried out. That the layer is what the step would have made is the place's word.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from corten.builder.cache import REGULAR, Cache, CacheRow, pack
from corten.builder.cache_mounts import CacheMounts
from corten.builder.cache_transfer import documents
from corten.builder.cache_transfer.mount_job import UNPACK_MOUNT_JOB
from corten.builder.cache_transfer.places import ReadPlace
from corten.builder.graph import Cache as CacheMount
from corten.errors import ArchiveRefused, CortenError
from corten.spec.image import Descriptor
from corten.spec.timestamps import now_ns
from corten.store.blobs import Blobs
from corten.store.layers import Layers
from corten.store.layout import Layout
from corten.store.locks import NamedLocks
from corten.store.workers import RunJob, run_on_archive

_log = logging.getLogger("corten.builder")
_STEPS_LIMIT = 64 << 20  # bytes of a packed list of steps
_INLINE = "a step of an image with an inline cache"
_LAST_ID = (1 << 32) - 2  # the one behind it means no owner to the kernel
_OWNER = re.compile(r"(\d{1,10}):(\d{1,10}):([0-7]{1,4})")


class Import(Protocol):
    """One place of a build's `--cache-from`."""

    async def bring(self, key: str) -> CacheRow | None:
        """The row of a step, with its layer here; None if there is none, or if it is not what it should be."""
        ...


class Importer:
    """Of all builds."""

    def __init__(self, layout: Layout, blobs: Blobs, layers: Layers, cache: Cache, mounts: CacheMounts, run_job: RunJob) -> None:
        self._layout, self._blobs, self._layers, self._cache, self._mounts, self._run_job = layout, blobs, layers, cache, mounts, run_job
        self._locks = NamedLocks()

    async def open(self, place: ReadPlace) -> PlaceImport:
        """Read what the place has. Raises NotFound, ArchiveRefused, and what the place refuses."""
        manifest = documents.read_manifest(await place.manifest())
        steps = b""
        async for data in place.read(manifest.layers[0]):
            steps += data
            if len(steps) > min(manifest.layers[0].size, _STEPS_LIMIT):
                raise ArchiveRefused("the build cache's list of steps is longer than its manifest says, or than 64 MiB")
        return PlaceImport(self, place, await asyncio.to_thread(documents.read_cache, manifest, steps))

    async def layer(self, place: ReadPlace, blob: Descriptor, diff_id: str) -> None:
        async with self._locks[diff_id]:
            if self._layers.find(diff_id):
                return
            mine = await self._download(place, blob)
            row = await self._layers.unpack(blob.digest, diff_id, as_tar=mine)  # no image says that it is packed like this
            if mine and row.blob != blob.digest:
                self._blobs.remove(blob.digest)

    async def _download(self, place: ReadPlace, blob: Descriptor) -> bool:
        """False if it was here."""
        if self._blobs.has(blob.digest):
            return False
        with self._blobs.writer() as writer:
            async for data in place.read(blob):
                writer.write(data)
                if writer.size > blob.size:
                    raise ArchiveRefused(f"blob {blob.digest} of the build cache is longer than its manifest says")
            await asyncio.to_thread(writer.commit, blob.digest)
        return True

    def remember(self, step: documents.CachedStep) -> CacheRow:
        now = now_ns()
        row = CacheRow(step.key, REGULAR, step.description, step.place, now, now, 1, step.layer, tuple(step.base), step.length, step.size)
        self._cache.put(row, pack(step.inputs))
        return row

    def has_base(self, step: documents.CachedStep) -> bool:
        return all(self._layers.find(diff_id) for diff_id in step.base)

    async def mount(self, place: ReadPlace, name: str, blob: Descriptor, target: str) -> None:
        """A cache mount's folder, unless there is one here: what this machine has is newer."""
        async with self._locks[f"mount {name}"]:
            if os.path.isdir(self._mounts.path(name)):
                return
            owner = _OWNER.fullmatch((blob.annotations or {}).get(documents.MOUNT_OWNER, ""))
            if owner is None or max(int(owner[1]), int(owner[2])) > _LAST_ID:
                raise ArchiveRefused(f"the cache mount {name} has no owner")
            await self._download(place, blob)
            staging = f"{self._layout.temporary}/mount-{secrets.token_hex(8)}"
            os.mkdir(staging)
            try:
                await self._unpack_mount(blob, staging)
                os.chown(staging, int(owner[1]), int(owner[2]))
                os.chmod(staging, int(owner[3], 8))
                await self._mounts.adopt(name, staging, f"cached mount {target}")
            finally:
                await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
                self._blobs.remove(blob.digest)

    async def _unpack_mount(self, blob: Descriptor, staging: str) -> None:
        source = self._blobs.open(blob.digest)
        folder = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            await run_on_archive(self._run_job, UNPACK_MOUNT_JOB, (source, folder))
        finally:
            os.close(source)
            os.close(folder)


class PlaceImport:
    def __init__(self, importer: Importer, place: ReadPlace, found: documents.TravellingCache) -> None:
        self._importer, self._place, self._found = importer, place, found

    @property
    def keys(self) -> list[str]:
        return list(self._found.steps)

    async def bring(self, key: str) -> CacheRow | None:
        step = self._found.steps.get(key)
        if step is None or not self._importer.has_base(step):
            return None
        try:
            if step.layer:
                blob = self._found.layers.get(step.layer)
                if blob is None:
                    return None
                await self._importer.layer(self._place, blob, step.layer)
        except CortenError as error:
            _log.warning("the cached layer of %s is not used: %s", step.description, error.message)
            return None
        return self._importer.remember(step)

    async def bring_all(self) -> int:
        """Every step whose layers are here or can be had; how many."""
        waiting, brought = dict(self._found.steps), 0
        while ready := [key for key, step in waiting.items() if self._importer.has_base(step)]:
            for key in ready:
                del waiting[key]
                brought += await self.bring(key) is not None
        return brought

    async def bring_mounts(self, wanted: Mapping[str, CacheMount] | None) -> int:
        """The folders that are wanted (None: all) and not here; how many there are. One that is not what it should be is left out."""
        brought = 0
        for name, blob in self._found.mounts.items():
            if wanted is not None and name not in wanted:
                continue
            target = (blob.annotations or {}).get(documents.MOUNT_ABOUT, "")
            try:
                await self._importer.mount(self._place, name, blob, target)
                brought += 1
            except CortenError as error:
                _log.warning("the cache mount %s is not used: %s", target, error.message)
        return brought


class InlineImport:
    """The steps that an image here says it was made by."""

    def __init__(self, cache: Cache, layers: Layers, blobs: Blobs, chain: Sequence[str], steps: Iterable[tuple[str, str]]) -> None:
        self._cache, self._layers, self._blobs, self._chain = cache, layers, blobs, list(chain)
        self._layer_of = dict(steps)

    async def bring(self, key: str) -> CacheRow | None:
        layer = self._layer_of.get(key)
        if layer is None or (layer and layer not in self._chain):
            return None
        now = now_ns()
        if not layer:
            made = CacheRow(key, REGULAR, _INLINE, "", now, now, 1)
        else:
            row = self._layers.find(layer)
            if row is None:
                return None
            tar = self._layers.tars.find(layer)
            length = tar.length if tar else 0
            base = tuple(self._chain[: self._chain.index(layer)])
            made = CacheRow(key, REGULAR, _INLINE, "", now, now, 1, layer, base, length, row.size)
        self._cache.put(made)
        return made
