"""Volumes to and from registries, as OCI artifacts (docs/volumes.md): what the document says, what is packed, what is taken in.

A pushed volume is packed into a file first: what goes out is one moment of it, however often the connection breaks. A pulled one is
unpacked while it arrives, and gets its name when its digest has been found right.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

import msgspec

from corten.engine.records import VolumeRecord
from corten.engine.volume_copies import COPIED_NOT, VolumeCopies
from corten.engine.volume_files import WHOLE, VolumeFiles
from corten.engine.volumes import Volumes
from corten.errors import ArchiveRefused, Invalid
from corten.registry import artifact
from corten.registry.artifact import Artifact, Kind
from corten.registry.auth import Credentials
from corten.registry.client import Repository
from corten.registry.hosts import RegistryHosts
from corten.registry.progress import Emit, Progress
from corten.runtime.launch import Launch
from corten.spec.foreign_json import decode
from corten.spec.image import OCI_LAYER, Descriptor, packed_type
from corten.spec.reference import Reference
from corten.store.layout import Layout
from corten.store.packing import PACK_JOB, Packed
from corten.store.worker_stream import write_to_worker

KIND = Kind("application/vnd.corten.volume.v1", "application/vnd.corten.volume.config.v1+json", packed_type(OCI_LAYER))
_TITLE = "org.opencontainers.image.title"  # the file's name for tools that fetch artifacts as files (oras)


class VolumeDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """The artifact's config: what a volume is beside its content."""

    name: str
    created: str = ""
    labels: dict[str, str] | None = None


class VolumeTransfers:
    def __init__(self, layout: Layout, volumes: Volumes, copies: VolumeCopies, files: VolumeFiles, launch: Launch,
                 hosts: RegistryHosts) -> None:  # fmt: skip
        self._layout, self._volumes, self._copies, self._files, self._launch, self._hosts = layout, volumes, copies, files, launch, hosts

    async def push(self, name: str, reference: Reference, credentials: Credentials, emit: Emit) -> None:
        """Raises NoSuchVolume, Invalid, and what the registry refuses."""
        record = self._volumes.find(name)
        if reference.digest:
            raise Invalid("cannot push a digest reference")
        wanted = reference.with_default_tag()
        emit(Progress(f"The push refers to repository [{wanted.familiar_name}]"))
        async with Repository(wanted, credentials, self._hosts.origin(wanted.domain), push=True) as remote:
            emit(Progress("Packing", name))
            async with self._packed(name) as (path, layer):
                sent = Artifact(_document(record), layer)
                await artifact.push(remote, wanted.tag, KIND, sent, lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC), emit)
        self._volumes.emit("push", name, reference=wanted.familiar)

    @asynccontextmanager
    async def _packed(self, name: str) -> AsyncIterator[tuple[str, Descriptor]]:
        """The volume's content as a gzipped tar in a file that goes with the block; the same content gives the same bytes."""
        base = f"{self._layout.temporary}/packed-{secrets.token_hex(8)}"
        try:
            with open(base, "xb") as output:
                async with aclosing(self._files.pack(name, WHOLE)) as content:
                    result = await write_to_worker(lambda tar: self._launch.run_job(PACK_JOB, b"", (tar, output.fileno())), content)
            packed = msgspec.json.decode(result, type=Packed)
            yield base, Descriptor(KIND.layer, packed.digest, packed.size, annotations={_TITLE: f"{name}.tar.gz"})
        finally:
            with suppress(FileNotFoundError):
                os.unlink(base)

    async def pull(self, new: str, reference: Reference, credentials: Credentials, emit: Emit) -> VolumeRecord:
        """Into a new volume. Raises Conflict, Invalid (an image, say), and what the registry refuses."""
        wanted = reference.with_default_tag()
        self._copies.check_new(new)
        async with Repository(wanted, credentials, self._hosts.origin(wanted.domain)) as remote:
            found = await artifact.find(remote, KIND)
            emit(Progress(f"Pulling from {wanted.path}", wanted.tag or wanted.digest))
            labels = _parse_document(found.config).labels
            return await self._copies.load(new, artifact.pieces(remote, found.layer, emit), labels)


def _document(record: VolumeRecord) -> bytes:
    labels = {key: value for key, value in (record.labels or {}).items() if key not in COPIED_NOT}
    return msgspec.json.encode(VolumeDocument(record.name, record.created, labels or None))


def _parse_document(data: bytes) -> VolumeDocument:
    try:
        return decode(data, VolumeDocument)
    except msgspec.DecodeError as error:
        raise ArchiveRefused(f"invalid volume document: {error}") from None
