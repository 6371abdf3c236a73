"""The blobs of a result in a folder of their own, each under the hexadecimal digits of its digest: hard links to the store's where it has them.

What is here stays whole whatever is removed from the store meanwhile. Content only: which documents there are is documents.py's.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Callable

from corten.spec.build_outputs import Compression
from corten.spec.digest import digest_of, encoded
from corten.spec.image import DOCKER_LAYER, OCI_LAYER, Descriptor, packed_type, zstd_type
from corten.spec.layer_packing import GZIP, PLAIN, ZSTD
from corten.store.blobs import Blobs
from corten.store.layers import Layers
from corten.store.layout import Layout
from corten.store.packing import Packed, Packing

_CHUNK = 1 << 18
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_TYPES: dict[str, Callable[[str], str]] = {GZIP: packed_type, ZSTD: zstd_type, PLAIN: str}  # of a plain layer's media type


class BlobFolder:
    """`remove` takes everything away. Not to be shared between outputs."""

    def __init__(self, layout: Layout, blobs: Blobs, layers: Layers) -> None:
        self._blobs, self._layers, self._layout = blobs, layers, layout
        self.path = f"{layout.temporary}/output-{secrets.token_hex(8)}"
        os.mkdir(self.path, 0o700)

    def file(self, digest: str) -> str:
        return f"{self.path}/{encoded(digest)}"

    def digests(self) -> list[str]:
        return sorted(f"sha256:{name}" for name in os.listdir(self.path))

    def put(self, data: bytes) -> str:
        """A small blob; its digest."""
        digest = digest_of(data)
        with open(self.file(digest), "wb") as file:
            file.write(data)
        return digest

    async def layer(self, diff_id: str, how: Compression, *, oci_types: bool = True) -> Descriptor:
        """A layer as it goes out: as it came if it came packed and nothing is forced, else as `how` says. Raises StoreCorrupt, ArchiveRefused."""
        await self._layers.ensure_blob(diff_id)
        blob = self._layers.need(diff_id).blob
        plain = OCI_LAYER if oci_types else DOCKER_LAYER
        there = self._kind(blob) if blob != diff_id else PLAIN
        if (blob != diff_id and not how.force) or (there == how.kind and how.level is None):
            return Descriptor(_TYPES[there](plain), blob, self._link(blob))
        if blob == diff_id and how == Compression(GZIP, force=how.force):
            return await self._usual(diff_id, plain)
        packed = await self._pack(blob, Packing(how.kind, how.level, diff_id))
        return Descriptor(_TYPES[how.kind](plain), packed.digest, packed.size)

    def _kind(self, blob: str) -> str:
        with open(self._layout.blob(blob), "rb") as file:
            return ZSTD if file.read(4) == _ZSTD_MAGIC else GZIP

    def _link(self, digest: str) -> int:
        if not os.path.exists(self.file(digest)):
            os.link(self._layout.blob(digest), self.file(digest))
        return os.stat(self.file(digest)).st_size

    async def _usual(self, diff_id: str, plain: str) -> Descriptor:
        """The form that has a digest which is remembered."""
        known = self._layers.packing(diff_id)
        if known is None or not os.path.exists(self.file(known.digest)):
            known = await self._pack(diff_id, None)
            self._layers.remember_packing(diff_id, known.digest, known.size)
        return Descriptor(packed_type(plain), known.digest, known.size)

    async def _pack(self, blob: str, packing: Packing | None) -> Packed:
        part = f"{self.path}/packing-{secrets.token_hex(4)}"
        async with self._layers.pack(blob, packing, self.path) as (pieces, result):
            with open(part, "wb") as file:
                while data := await pieces.read(_CHUNK):
                    file.write(data)
            packed = await result
        os.rename(part, self.file(packed.digest))
        return packed

    async def remove(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self.path, ignore_errors=True)
