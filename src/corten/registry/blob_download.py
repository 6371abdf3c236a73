"""Blobs from a registry into the store, verified before they become visible: small ones, and broken ones anew. Layers are transfer.py's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from corten.errors import ArchiveRefused
from corten.registry.client import Repository
from corten.spec.image import Descriptor
from corten.store.blobs import Blobs, BlobWriter


async def fetch_blob(remote: Repository, blob: Descriptor, blobs: Blobs) -> None:
    """Download a small blob if it is not there; verified before it becomes visible."""
    if blobs.has(blob.digest):
        return
    with blobs.writer() as writer:
        await receive(remote, blob, writer, lambda: None)
        writer.commit(blob.digest)


async def receive(remote: Repository, blob: Descriptor, writer: BlobWriter, received: Callable[[], None]) -> None:
    """What is missing of a blob. Raises ArchiveRefused as soon as there is more of it than its manifest says."""
    if writer.size >= blob.size:
        return
    async for data in remote.blob(blob.digest, writer.size):
        writer.write(data)
        if writer.size > blob.size:
            raise ArchiveRefused(f"blob {blob.digest} is longer than the {blob.size} bytes that its manifest says")
        received()
    if writer.size < blob.size:
        raise ArchiveRefused(f"blob {blob.digest} ends after {writer.size} of the {blob.size} bytes that its manifest says")


async def refetch_manifest(remote: Repository, digest: str, blobs: Blobs) -> None:
    """In the place of a broken one. Raises what the registry refuses, ArchiveRefused for another content."""
    data, _, _ = await remote.manifest(digest)
    with blobs.writer() as writer:
        writer.write(data)
        writer.commit(digest)


async def refetch_blob(remote: Repository, blob: Descriptor, blobs: Blobs) -> None:
    """The same for a config or a layer."""
    async with blobs.exclusive(blob.digest):
        with blobs.writer() as writer:
            await receive(remote, blob, writer, lambda: None)
            await asyncio.to_thread(writer.commit, blob.digest)
