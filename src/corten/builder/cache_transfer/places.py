"""Where a cache can lie, behind one seam: blobs by digest, and a manifest under a name. The folder is here; registries and S3 have files of their own.

Promises: `read` yields what the place has, unverified; `write` and `put_manifest` are idempotent, and nothing is visible before it is whole. A
manifest is written after its blobs. Every method raises CortenError for what the place refuses.
"""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import AsyncIterator
from typing import IO, Protocol

from corten.errors import ArchiveRefused
from corten.spec.digest import digest_of, encoded
from corten.spec.image import Descriptor, Index, parse_manifest
from corten.store.compression import refusing_corrupt

_CHUNK = 1 << 18
_DOCUMENT_LIMIT = 64 << 20


class ReadPlace(Protocol):
    async def manifest(self) -> bytes:
        """Raises NotFound where there is no cache."""
        ...

    def read(self, blob: Descriptor) -> AsyncIterator[bytes]: ...


class WritePlace(Protocol):
    async def write(self, digest: str, path: str, shown: str) -> None:
        """A file's content, unless the place has it. `shown` is what progress calls it."""
        ...

    async def put_manifest(self, data: bytes) -> None: ...


class ArchivePlace:
    """An OCI layout in a tar that the client has sent, opened for as long as the block lasts. What is in it is data, never a path to write to."""

    def __init__(self, path: str) -> None:
        with refusing_corrupt("the cache archive"):
            try:
                self._archive = tarfile.open(path, "r:")  # noqa: SIM115 - closed by __exit__
                self._members = {member.name.removeprefix("./"): member for member in self._archive if member.isreg()}
            except tarfile.TarError as error:
                raise ArchiveRefused(f"the cache archive is no tar: {error}") from None

    def __enter__(self) -> ArchivePlace:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    async def manifest(self) -> bytes:
        index = parse_manifest(self._document("index.json"), "")
        if not isinstance(index, Index) or len(index.manifests) != 1:
            raise ArchiveRefused("the cache archive is no OCI layout with one manifest")
        data = self._document(_name(index.manifests[0].digest))
        if digest_of(data) != index.manifests[0].digest:
            raise ArchiveRefused("the cache archive's manifest is not what its index says")
        return data

    def _document(self, name: str) -> bytes:
        data = self._open(name).read(_DOCUMENT_LIMIT + 1)
        if len(data) > _DOCUMENT_LIMIT:
            raise ArchiveRefused(f"{name} of the cache archive is larger than {_DOCUMENT_LIMIT >> 20} MiB")
        return data

    def _open(self, name: str) -> IO[bytes]:
        member = self._members.get(name)
        file = self._archive.extractfile(member) if member else None
        if file is None:
            raise ArchiveRefused(f"{name!r} is missing from the cache archive")
        return file

    async def read(self, blob: Descriptor) -> AsyncIterator[bytes]:
        file = self._open(_name(blob.digest))
        while data := await asyncio.to_thread(file.read, _CHUNK):
            yield data


def _name(digest: str) -> str:
    return f"blobs/sha256/{encoded(digest)}"
