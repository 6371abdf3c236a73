"""The build cache on its way: `cachefrom` and `cacheto` of `POST /build`, and `POST /corten/build/cache` for a folder that the client has.

A place that has nothing, or cannot be reached, costs the build its cache and not its result: that is a warning. Described in docs/build-cache.md.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from corten.api.call import Call, json_response
from corten.api.json_messages import progress_message
from corten.builder.cache import Cache
from corten.builder.cache_transfer import documents
from corten.builder.cache_transfer.export import CacheExport, mounts_of
from corten.builder.cache_transfer.imports import Import, Importer, InlineImport
from corten.builder.cache_transfer.places import ArchivePlace, ReadPlace, WritePlace
from corten.builder.cache_transfer.registry_place import RegistryPlace
from corten.builder.cache_transfer.s3_place import S3Place, open_bucket
from corten.builder.graph import Vertex, layers_of
from corten.builder.outputs.parcels import Parcels
from corten.builder.results import MadeLayer
from corten.engine.build_images import credentials_for
from corten.errors import CortenError
from corten.registry.auth import Credentials
from corten.registry.client import Repository
from corten.registry.hosts import RegistryHosts
from corten.registry.progress import Emit, stream
from corten.spec.build_cache import INLINE, LOCAL, S3, CachePlace, ImportedBuildCache
from corten.spec.reference import parse_reference
from corten.store.blobs import Blobs
from corten.store.holds import Holds
from corten.store.images import Images
from corten.store.layers import Layers
from corten.store.layout import Layout

Send = Callable[[dict[str, Any]], Awaitable[None]]
Registries = Mapping[str, Credentials]


@dataclass(frozen=True)
class CacheStore:
    """What of the store an inline cache is read from."""

    layout: Layout
    images: Images
    layers: Layers
    blobs: Blobs
    cache: Cache
    holds: Holds


class BuildCacheTransfer:
    def __init__(self, export: CacheExport, importer: Importer, parcels: Parcels, hosts: RegistryHosts, store: CacheStore) -> None:
        self._export, self._importer, self._parcels, self._hosts, self._store = export, importer, parcels, hosts, store

    # --- import
    @asynccontextmanager
    async def imports(self, places: Sequence[CachePlace], target: Vertex, registries: Registries, send: Send) -> AsyncIterator[tuple[Import, ...]]:
        """What the places have, for as long as the block lasts; cache mounts that the graph wants are there when it begins."""
        async with AsyncExitStack() as stack:
            found: list[Import] = []
            for place in places:
                try:
                    opened = await self._open(place, target, registries, stack)
                except CortenError as error:
                    await send({"stream": f"[Warning] no cache from {_shown(place)}: {error.message}\n"})
                    continue
                found += [opened] if opened else []
            yield tuple(found)

    async def _open(self, place: CachePlace, target: Vertex, registries: Registries, stack: AsyncExitStack) -> Import | None:
        if place.type == INLINE:
            return self._inline(place.reference)
        source = await self._reading(place, registries, stack)
        opened = await self._importer.open(source)
        await opened.bring_mounts(mounts_of(target))
        return opened

    def _inline(self, name: str) -> InlineImport | None:
        """Of an image of the store; as in Docker, one that is not there adds nothing."""
        store = self._store
        image_id = store.images.resolve(parse_reference(name))
        image = store.images.get(image_id) if image_id else None
        text = (store.images.manifest(image).annotations or {}).get(documents.INLINE, "") if image else ""
        if image is None or not text:
            return None
        return InlineImport(store.cache, store.layers, store.blobs, image.config.rootfs.diff_ids, documents.read_inline(text))

    async def _reading(self, place: CachePlace, registries: Registries, stack: AsyncExitStack) -> ReadPlace:
        if place.type == S3 and place.bucket:
            return S3Place(place.bucket, open_bucket(place.bucket), lambda _progress: None)
        return await self._registry(place, registries, stack, lambda _progress: None, push=False)

    async def _registry(self, place: CachePlace, registries: Registries, stack: AsyncExitStack, emit: Emit, *, push: bool) -> RegistryPlace:
        reference = parse_reference(place.reference).with_default_tag()
        remote = Repository(reference, credentials_for(reference, registries), self._hosts.origin(reference.domain), push=push)
        return RegistryPlace(await stack.enter_async_context(remote), reference.digest or reference.tag, emit)

    async def receive(self, call: Call) -> web.StreamResponse:
        """`POST /corten/build/cache`: an OCI layout in a tar. All of it is taken in."""
        path = f"{self._store.layout.temporary}/cache-{secrets.token_hex(8)}"
        try:
            with open(path, "wb") as file:
                async for piece in call.request.content.iter_any():
                    file.write(piece)
            with ArchivePlace(path) as place, self._store.holds.lease():
                opened = await self._importer.open(place)
                return json_response(ImportedBuildCache(await opened.bring_all(), await opened.bring_mounts(None)))
        finally:
            os.unlink(path)

    # --- export
    async def send(self, place: CachePlace, builds: Sequence[tuple[Vertex, Mapping[Vertex, MadeLayer]]], registries: Registries, send: Send) -> None:
        """One place of `cacheto`, but INLINE, which is the image's own. `builds`: (target, what its steps made), one a platform.

        Raises what the place refuses, unless that is to be ignored.
        """
        keys = [made[vertex].key for target, made in builds for vertex in (made if place.all_steps else layers_of(target)) if vertex in made]
        mounts = {name: mount for target, _ in builds for name, mount in mounts_of(target).items()} if place.mounts else {}
        if place.type == LOCAL:
            key = self._parcels.add(await self._export.parcel(keys, mounts))
            await send({"aux": {"corten.output": {"ID": key, "Type": f"cache-{LOCAL}", "Names": []}}})
            return

        async def work(emit: Emit) -> None:
            async with AsyncExitStack() as stack:
                writing: WritePlace
                if place.type == S3 and place.bucket:
                    writing = S3Place(place.bucket, open_bucket(place.bucket), emit)
                else:
                    writing = await self._registry(place, registries, stack, emit, push=True)
                await self._export.send(keys, mounts, writing)

        await send({"status": f"Exporting the cache to {_shown(place)}"})
        try:
            async for progress in stream(work):
                await send(progress_message(progress))
        except CortenError as error:
            if not place.ignore_errors:
                raise
            await send({"stream": f"[Warning] the cache is not exported to {_shown(place)}: {error.message}\n"})


def _shown(place: CachePlace) -> str:
    return place.reference or (f"bucket {place.bucket.bucket}" if place.bucket else place.type)
