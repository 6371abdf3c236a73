"""A result into a registry: layers, small blobs, manifests by digest, and last what the tag points to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from corten.builder.outputs.blob_folder import BlobFolder
from corten.builder.outputs.documents import Documents
from corten.registry import upload
from corten.registry.client import Repository
from corten.registry.progress import Emit, Progress, Pushed
from corten.spec.digest import encoded
from corten.spec.image import Descriptor
from corten.spec.reference import Reference

Remotes = Callable[[Reference], AbstractAsyncContextManager[Repository]]  # opened for writing
_AT_ONCE = 5
_CHUNK = 1 << 18


async def push(documents: Documents, layers: Sequence[Descriptor], folder: BlobFolder, remote: Repository, tag: str, emit: Emit) -> None:
    """Raises what the registry refuses. The tag is written last: before that nothing is visible under it."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def send(digest: str, shown: str) -> None:
        async with gate:
            await send_blob(remote, digest, folder.file(digest), shown, emit)

    for digest, data in documents.blobs.items():
        if folder.put(data) != digest:
            raise AssertionError(f"{digest} is not the digest of its document")
    async with asyncio.TaskGroup() as group:
        for digest in {layer.digest for layer in layers}:
            group.create_task(send(digest, encoded(digest)[:12]))
        for digest in documents.blobs:
            group.create_task(send(digest, ""))
    for digest, (media_type, data) in documents.manifests.items():
        await upload.put_manifest(remote, digest, data, media_type)
    root = documents.root
    await upload.put_manifest(remote, tag, documents.root_data, root.media_type)
    emit(Progress(f"{tag}: digest: {root.digest} size: {root.size}"))
    emit(Pushed(tag, root.digest, root.size))


async def send_blob(remote: Repository, digest: str, path: str, shown: str, emit: Emit) -> None:
    """Unless the registry has it. Told under the name `shown`, if it has one."""
    if await upload.has_blob(remote, digest):
        if shown:
            emit(Progress("Layer already exists", shown))
        return
    size = os.stat(path).st_size

    def read_from(offset: int) -> AsyncIterator[bytes]:
        return _read_file(path, offset)

    await upload.upload_blob(remote, read_from, lambda: digest, lambda sent: emit(Progress("Pushing", shown, sent, size)) if shown else None)
    if shown:
        emit(Progress("Pushed", shown))


async def _read_file(path: str, offset: int) -> AsyncIterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        while data := file.read(_CHUNK):
            yield data
