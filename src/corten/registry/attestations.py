"""What is attested of an image, from its registry into the store and out again. Small documents, whole in memory on their way out.

Which index lists them, and who is asked whether that one is to be trusted, is transfer.py's; what they hold store/attestations.py's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from corten.errors import ArchiveRefused, RegistryError
from corten.registry import upload
from corten.registry.blob_download import fetch_blob
from corten.registry.client import ManifestMissing, Repository
from corten.registry.progress import Emit, Progress
from corten.spec.attestations import Moved, moved
from corten.spec.image import Descriptor, Manifest, parse_manifest
from corten.store.attestations import Attestation
from corten.store.blobs import Blobs

_MOST = 16  # of one manifest; BuildKit makes one
_MOST_PARTS = 64
_LIMIT = 64 << 20  # bytes of one statement


async def fetch(remote: Repository, entries: Sequence[Descriptor], blobs: Blobs, emit: Emit) -> None:
    """What the entries name; the manifest last, so that it is there whole or not at all. One that the registry has not is left out.

    Raises what the registry refuses otherwise, ArchiveRefused for what is not what it says or is too large to be one.
    """
    if len(entries) > _MOST:
        raise ArchiveRefused(f"{len(entries)} attestations of one manifest: {_MOST} are the most")
    for entry in entries:
        if blobs.has(entry.digest):
            continue
        try:
            await _fetch(remote, entry, blobs)
        except (ManifestMissing, RegistryError) as error:
            if error.http_status != 404:
                raise
            emit(Progress(f"The attestation {entry.digest} is not in the registry: it is left out"))


async def _fetch(remote: Repository, entry: Descriptor, blobs: Blobs) -> None:
    data, media_type, _ = await remote.manifest(entry.digest)
    document = parse_manifest(data, media_type or entry.media_type)
    if not isinstance(document, Manifest):
        raise ArchiveRefused(f"the attestation {entry.digest} is an index, not a manifest")
    parts = [document.config, *document.layers]
    if len(parts) > _MOST_PARTS or any(part.size > _LIMIT for part in parts):
        raise ArchiveRefused(f"the attestation {entry.digest} has {len(parts)} parts of up to {max(part.size for part in parts)} bytes: "
                             f"{_MOST_PARTS} of {_LIMIT >> 20} MiB are the most")  # fmt: skip
    for part in parts:
        await fetch_blob(remote, part, blobs)
    blobs.put(data)


async def send(remote: Repository, attestation: Attestation, entry: Mapping[str, Any], manifest: str, blobs: Blobs) -> dict[str, Any]:
    """Upload it, said of `manifest`, which may be packed otherwise than here. Returns what the index lists then. Raises what the registry refuses."""
    sent = _read(attestation, entry, manifest, blobs)
    for digest, data in sent.blobs.items():
        await _send_blob(remote, digest, data)
    await upload.put_manifest(remote, sent.entry["digest"], sent.manifest, sent.entry["mediaType"])
    return sent.entry


async def _send_blob(remote: Repository, digest: str, data: bytes) -> None:
    def read_from(offset: int) -> AsyncIterator[bytes]:
        return upload.from_memory(data, offset)

    if not await upload.has_blob(remote, digest):
        await upload.upload_blob(remote, read_from, lambda: digest, lambda _sent: None)


def _read(attestation: Attestation, entry: Mapping[str, Any], manifest: str, blobs: Blobs) -> Moved:
    """From the store. Raises StoreCorrupt."""
    data = blobs.read(attestation.entry.digest)
    parts = {part.digest: blobs.read(part.digest) for part in attestation.parts}
    return moved(entry, data, parts, attestation.manifest, manifest)
