"""Push: copy an image from the store to a registry. Progress values stream back.

What was pulled goes out with the digests it came with: what the registry lacks and the store has let go is fetched from where it came, and
packed anew only if it cannot be. A layer whose plain tar is what the image names is gzipped on its way and not stored packed; its packed
digest is remembered, so that the next push can ask whether the registry has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from corten.errors import StoreCorrupt
from corten.registry import attestations, upload
from corten.registry.client import Repository
from corten.registry.progress import Emit, Progress, Pushed
from corten.spec.digest import digest_of, encoded
from corten.spec.image import DOCKER_LAYER, OCI_INDEX, OCI_LAYER, Descriptor, Manifest, is_compressed, packed_type
from corten.store.blobs import Blobs
from corten.store.images import Image, Images, Listed
from corten.store.layers import Layers
from corten.store.packing import Packed

BringBack = Callable[[Descriptor], Awaitable[str]]
_AT_ONCE = 5  # Docker's max-concurrent-uploads
_CHUNK = 1 << 18
_REPORT_EVERY = 1 << 19


@dataclass(frozen=True)
class _Layer:
    """`stored` is as the image's manifest has it; what goes out is that, or its packed form."""

    diff_id: str
    stored: Descriptor

    @property
    def short(self) -> str:
        return encoded(self.diff_id)[:12]


class Pusher:
    """One push of one image under one tag. `mountable`: repositories of the same registry that may have its layers. `bring_back` has a layer's
    blob here again and says from where, or raises StoreCorrupt.
    """

    def __init__(self, remote: Repository, blobs: Blobs, layers: Layers, images: Images, mountable: Sequence[str], bring_back: BringBack,
                 emit: Emit) -> None:  # fmt: skip
        self._remote, self._blobs, self._layers, self._images = remote, blobs, layers, images
        self._mountable, self._bring_back, self._emit = mountable, bring_back, emit

    async def push(self, image: Image, tag: str) -> str:
        """Returns the digest of what the registry has now. Raises what the registry refuses."""
        own = Descriptor(image.row.media_type, image.row.manifest, image.row.manifest_size)
        return await self._put(tag, *await self._image(image, own))

    async def push_index(self, target: str, members: Mapping[str, Image], tag: str) -> str:
        """All images of a stored index (entry's digest -> image), what is attested of them, then the index. Changed only where a manifest had to be."""
        data = self._blobs.read(target)
        document = msgspec.json.decode(data)
        sent: dict[str, dict[str, Any]] = {}
        for entry in document["manifests"]:
            if entry["digest"] in members:
                image = members[entry["digest"]]
                manifest, media_type = await self._image(image, self._images.listed_manifest(image, Listed(target, entry["digest"])))
                digest = digest_of(manifest)
                await upload.put_manifest(self._remote, digest, manifest, media_type)
                sent[entry["digest"]] = entry | {"mediaType": media_type, "digest": digest, "size": len(manifest)}
        entries = {entry["digest"]: entry for entry in document["manifests"]}
        for manifest_digest in members:
            for attestation in self._images.attestations(Listed(target, manifest_digest)):
                listed = entries[attestation.entry.digest]
                sent[attestation.entry.digest] = await attestations.send(self._remote, attestation, listed, sent[manifest_digest]["digest"], self._blobs)
        rows = [sent[entry["digest"]] for entry in document["manifests"]]
        if rows != document["manifests"]:
            data = msgspec.json.encode(document | {"manifests": rows})
        return await self._put(tag, data, document.get("mediaType", OCI_INDEX))

    async def _put(self, tag: str, data: bytes, media_type: str) -> str:
        await upload.put_manifest(self._remote, tag, data, media_type)
        digest = digest_of(data)
        self._emit(Progress(f"{tag}: digest: {digest} size: {len(data)}"))
        self._emit(Pushed(tag, digest, len(data)))
        return digest

    async def _image(self, image: Image, which: Descriptor) -> tuple[bytes, str]:
        """Have the registry get config and layers, as this manifest of the image names them. Returns (manifest, media type)."""
        stored = self._images.document_of(which)
        layers = [_Layer(diff_id, layer) for diff_id, layer in zip(image.config.rootfs.diff_ids, stored.layers, strict=True)]
        for layer in layers:
            self._emit(Progress("Preparing", layer.short))
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(layer: _Layer) -> Descriptor:
            async with gate:
                return await self._layer(layer)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(layer)) for layer in layers]
            group.create_task(self._config(stored.config))
        sent = [task.result() for task in tasks]
        return self._document(which, stored, sent)

    async def _config(self, config: Descriptor) -> None:
        if not await upload.has_blob(self._remote, config.digest):
            await self._upload_stored(config, "")

    def _document(self, which: Descriptor, stored: Manifest, sent: list[Descriptor]) -> tuple[bytes, str]:
        if sent == stored.layers:
            return self._blobs.read(which.digest), which.media_type
        return msgspec.json.encode(msgspec.structs.replace(stored, layers=sent)), which.media_type

    async def _layer(self, layer: _Layer) -> Descriptor:
        sent = await self._sent(layer)
        self._layers.tars.add_origin(sent.digest, self._remote.reference.name, sent.size)
        return sent

    async def _sent(self, layer: _Layer) -> Descriptor:
        """Have the registry get a layer; as what."""
        known = self._layers.tars.packing(layer.diff_id)
        as_stored = is_compressed(layer.stored.media_type) and not (known and known.digest == layer.stored.digest)  # ours comes out the same
        if as_stored and await self._has(layer, layer.stored):
            return layer.stored
        if as_stored and await self._is_here(layer):
            await self._upload_stored(layer.stored, layer.short)
            self._emit(Progress("Pushed", layer.short))
            return layer.stored
        if known and await self._has(layer, _packed_descriptor(layer, known)):
            return _packed_descriptor(layer, known)
        packed = await self._upload_packed(layer)
        self._layers.tars.remember_packing(layer.diff_id, packed.digest, packed.size)
        self._emit(Progress("Pushed", layer.short))
        return _packed_descriptor(layer, packed)

    async def _has(self, layer: _Layer, blob: Descriptor) -> bool:
        """Whether the registry has it, or gets it from a repository of its own."""
        if await upload.has_blob(self._remote, blob.digest):
            self._emit(Progress("Layer already exists", layer.short))
            return True
        for repository in self._mountable:
            if await upload.mount_blob(self._remote, blob.digest, repository):
                self._emit(Progress(f"Mounted from {repository}", layer.short))
                return True
        return False

    async def _is_here(self, layer: _Layer) -> bool:
        """Have the blob here as it came, fetched if need be."""
        if not self._blobs.has(layer.stored.digest):
            self._emit(Progress("Fetching what it came as", layer.short))
        try:
            await self._bring_back(layer.stored)
        except StoreCorrupt as error:
            self._emit(Progress("Packed anew, its digest changes", layer.short))
            self._emit(Progress(f"{layer.short} is packed anew: {error.message}"))
            return False
        return True

    def _reporter(self, short: str, total: int) -> upload.Report:
        reported = 0

        def report(sent: int) -> None:
            nonlocal reported
            if short and sent - reported >= _REPORT_EVERY:
                reported = sent
                self._emit(Progress("Pushing", short, sent, total))

        return report

    async def _upload_stored(self, blob: Descriptor, short: str) -> None:
        def read_from(offset: int) -> AsyncIterator[bytes]:
            return upload.from_file(self._blobs.open(blob.digest), offset)

        await upload.upload_blob(self._remote, read_from, lambda: blob.digest, self._reporter(short, blob.size))

    async def _upload_packed(self, layer: _Layer) -> Packed:
        results: list[Packed] = []

        async def read_from(offset: int) -> AsyncIterator[bytes]:
            """Packed anew for every try: the same bytes come out, and those that have arrived are left out."""
            skip = offset
            async with self._layers.tars.pack(layer.diff_id) as (packed, result):
                while data := await packed.read(_CHUNK):
                    if len(data) > skip:
                        yield data[skip:]
                    skip = max(0, skip - len(data))
                results.append(await result)

        await upload.upload_blob(self._remote, read_from, lambda: results[-1].digest, self._reporter(layer.short, self._length(layer)))
        return results[-1]

    def _length(self, layer: _Layer) -> int:
        """Bytes of its tar."""
        tar = self._layers.tars.find(layer.diff_id)
        return tar.length if tar else layer.stored.size


def _packed_descriptor(layer: _Layer, packed: Packed) -> Descriptor:
    plain = DOCKER_LAYER if layer.stored.media_type.startswith(DOCKER_LAYER) else OCI_LAYER
    return msgspec.structs.replace(layer.stored, media_type=packed_type(plain), digest=packed.digest, size=packed.size)
