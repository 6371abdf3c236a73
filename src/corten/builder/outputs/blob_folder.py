"""The blobs of a result in a folder of their own, each under the hexadecimal digits of its digest: hard links to the store's where it has them.

What is here stays whole whatever is removed from the store meanwhile. Content only: which documents there are is documents.py's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
from collections.abc import Awaitable, Callable

from corten.errors import StoreCorrupt
from corten.spec.build_outputs import Compression
from corten.spec.digest import digest_of, encoded
from corten.spec.image import DOCKER_LAYER, OCI_LAYER, Descriptor, packed_type, zstd_type
from corten.spec.layer_packing import GZIP, PLAIN, ZSTD
from corten.store.blobs import Blobs
from corten.store.layers import Layers
from corten.store.layout import Layout
from corten.store.packing import Packed, Packing

BringBack = Callable[[Descriptor], Awaitable[object]]
_CHUNK = 1 << 18
_log = logging.getLogger("corten.builder")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_TYPES: dict[str, Callable[[str], str]] = {GZIP: packed_type, ZSTD: zstd_type, PLAIN: str}  # of a plain layer's media type


class BlobFolder:
    """`remove` takes everything away. Not to be shared between outputs."""

    def __init__(self, layout: Layout, blobs: Blobs, layers: Layers, bring_back: BringBack) -> None:
        """`bring_back` has a layer's blob here again, or raises StoreCorrupt."""
        self._blobs, self._layers, self._layout, self._bring_back = blobs, layers, layout, bring_back
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
        """A layer as it goes out: as it came if it came packed, that can be had and nothing is forced, else as `how` says. Raises StoreCorrupt,
        ArchiveRefused.
        """
        blob = self._layers.need(diff_id).blob
        plain = OCI_LAYER if oci_types else DOCKER_LAYER
        if blob != diff_id and (not how.force or (how.level is None and how.kind != PLAIN)) and await self._is_here(blob):
            there = self._kind(blob)
            if not how.force or there == how.kind:
                return Descriptor(_TYPES[there](plain), blob, self._link(blob))
        if how.kind == PLAIN and self._layers.tars.is_made(diff_id):
            path = self.file(diff_id)
            return Descriptor(plain, diff_id, os.stat(path).st_size if os.path.exists(path) else await self._layers.tars.write(diff_id, path))
        if how.kind == GZIP and how.level is None:
            return await self._usual(diff_id, plain)
        packed = await self._pack(diff_id, Packing(how.kind, how.level))
        return Descriptor(_TYPES[how.kind](plain), packed.digest, packed.size)

    async def _is_here(self, blob: str) -> bool:
        """Have it here, fetched if need be."""
        size = self._layers.tars.blob_size(blob)
        try:
            if size is not None:
                await self._bring_back(Descriptor(OCI_LAYER, blob, size))
        except StoreCorrupt as error:
            _log.info("a layer goes out packed anew: %s", error.message)
        return self._blobs.has(blob)

    def _kind(self, blob: str) -> str:
        with open(self._layout.blob(blob), "rb") as file:
            return ZSTD if file.read(4) == _ZSTD_MAGIC else GZIP

    def _link(self, digest: str) -> int:
        if not os.path.exists(self.file(digest)):
            os.link(self._layout.blob(digest), self.file(digest))
        return os.stat(self.file(digest)).st_size

    async def _usual(self, diff_id: str, plain: str) -> Descriptor:
        """The form that has a digest which is remembered."""
        known = self._layers.tars.packing(diff_id)
        if known is None or not os.path.exists(self.file(known.digest)):
            known = await self._pack(diff_id, None)
            self._layers.tars.remember_packing(diff_id, known.digest, known.size)
        return Descriptor(packed_type(plain), known.digest, known.size)

    async def _pack(self, diff_id: str, packing: Packing | None) -> Packed:
        part = f"{self.path}/packing-{secrets.token_hex(4)}"
        async with self._layers.tars.pack(diff_id, packing or Packing(), self.path) as (pieces, result):
            with open(part, "wb") as file:
                while data := await pieces.read(_CHUNK):
                    file.write(data)
            packed = await result
        os.rename(part, self.file(packed.digest))
        return packed

    async def remove(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self.path, ignore_errors=True)
