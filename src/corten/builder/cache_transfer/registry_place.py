"""A cache as an artifact in a registry: an OCI manifest under a tag."""

from __future__ import annotations

from collections.abc import AsyncIterator

from corten.builder.outputs.push import send_blob
from corten.registry import upload
from corten.registry.client import Repository
from corten.registry.progress import Emit
from corten.spec.image import OCI_MANIFEST, Descriptor


class RegistryPlace:
    """`remote` is open; to write it must have been opened for pushing."""

    def __init__(self, remote: Repository, tag: str, emit: Emit) -> None:
        self._remote, self._tag, self._emit = remote, tag, emit

    async def manifest(self) -> bytes:
        data, _, _ = await self._remote.manifest(self._tag)
        return data

    def read(self, blob: Descriptor) -> AsyncIterator[bytes]:
        return self._remote.blob(blob.digest)

    async def write(self, digest: str, path: str, shown: str) -> None:
        await send_blob(self._remote, digest, path, shown, self._emit)

    async def put_manifest(self, data: bytes) -> None:
        await upload.put_manifest(self._remote, self._tag, data, OCI_MANIFEST)
