"""An artifact in a registry: one layer that is no image's, with a small document beside it, under media types of its own.

Knows neither what is in the layer nor the store. Source: OCI image-spec 1.1, manifest.md "Guidelines for Artifact Usage"; what was
written before 1.1 has its type as the config's media type.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import msgspec

from corten.errors import ArchiveRefused, Invalid
from corten.registry import upload
from corten.registry.client import Repository
from corten.registry.progress import Emit, Progress, Pushed
from corten.spec.digest import digest_of, encoded
from corten.spec.image import OCI_MANIFEST, Descriptor, Manifest, parse_manifest

_CONFIG_LIMIT = 1 << 20
_REPORT_EVERY = 1 << 19


class NotOfThatKind(Invalid):
    template = "{reference} is {found} and not {wanted}"


@dataclass(frozen=True)
class Kind:
    """`artifact`, `config` and `layer` are media types."""

    artifact: str
    config: str
    layer: str


@dataclass(frozen=True)
class Artifact:
    """`config` is the small document; `layer` describes the content."""

    config: bytes
    layer: Descriptor
    annotations: dict[str, str] | None = None


async def push(remote: Repository, tag: str, kind: Kind, artifact: Artifact, open_layer: Callable[[], int], emit: Emit) -> str:
    """The manifest goes last: before it nobody sees anything. `open_layer` gives a new descriptor of the layer's file for every try.

    Returns the manifest's digest. Raises what the registry refuses.
    """
    layer, config = artifact.layer, Descriptor(kind.config, digest_of(artifact.config), len(artifact.config))
    short = encoded(layer.digest)[:12]
    if await upload.has_blob(remote, layer.digest):
        emit(Progress("Layer already exists", short))
    else:
        await upload.upload_blob(
            remote, lambda offset: upload.from_file(open_layer(), offset), lambda: layer.digest,
            _every(lambda sent: emit(Progress("Pushing", short, sent, layer.size))),
        )  # fmt: skip
        emit(Progress("Pushed", short))
    if not await upload.has_blob(remote, config.digest):
        await upload.upload_blob(remote, lambda offset: _from_bytes(artifact.config[offset:]), lambda: config.digest, lambda _sent: None)
    manifest = Manifest(config=config, layers=[layer], media_type=OCI_MANIFEST, artifact_type=kind.artifact, annotations=artifact.annotations)
    data = msgspec.json.encode(manifest)
    await upload.put_manifest(remote, tag, data, OCI_MANIFEST)
    emit(Progress(f"{tag}: digest: {digest_of(data)} size: {len(data)}"))
    emit(Pushed(tag, digest_of(data), len(data)))
    return digest_of(data)


async def find(remote: Repository, kind: Kind) -> Artifact:
    """What the repository has under the reference's tag or digest. Raises NotOfThatKind for an image or another artifact."""
    reference = remote.reference.with_default_tag()
    data, media_type, _ = await remote.manifest(reference.digest or reference.tag)
    manifest = parse_manifest(data, media_type)
    found = (manifest.artifact_type or manifest.config.media_type) if isinstance(manifest, Manifest) else manifest.media_type
    if not isinstance(manifest, Manifest) or found not in (kind.artifact, kind.config):
        raise NotOfThatKind(reference=reference.familiar, found=found or "of no known type", wanted=kind.artifact)
    if len(manifest.layers) != 1 or manifest.config.size > _CONFIG_LIMIT:
        raise ArchiveRefused(f"{reference.familiar} has {len(manifest.layers)} layers, and a config of {manifest.config.size} bytes: want one layer, a small config")
    config = b"".join([piece async for piece in pieces(remote, manifest.config, lambda _progress: None)])
    return Artifact(config, manifest.layers[0], manifest.annotations)


async def pieces(remote: Repository, blob: Descriptor, emit: Emit) -> AsyncIterator[bytes]:
    """A blob as it arrives. Raises ArchiveRefused after the last piece if it was not what its digest says: use nothing of it before."""
    short, received, hashed = encoded(blob.digest)[:12], 0, hashlib.sha256()
    report = _every(lambda count: emit(Progress("Downloading", short, count, blob.size)))
    async for data in remote.blob(blob.digest):
        hashed.update(data)
        received += len(data)
        if received > blob.size:
            raise ArchiveRefused(f"blob {blob.digest} of {remote.reference.name} is longer than the {blob.size} bytes that its manifest says")
        yield data
        report(received)
    if f"sha256:{hashed.hexdigest()}" != blob.digest:
        raise ArchiveRefused(f"the data's digest is sha256:{hashed.hexdigest()}, expected {blob.digest}: it was altered or cut off on its way")
    emit(Progress("Download complete", short))


def _every(say: Callable[[int], None]) -> Callable[[int], None]:
    """Pass a growing count on when it has grown enough to be seen."""
    reported = 0

    def report(count: int) -> None:
        nonlocal reported
        if count - reported >= _REPORT_EVERY:
            reported = count
            say(count)

    return report


async def _from_bytes(data: bytes) -> AsyncIterator[bytes]:
    yield data
