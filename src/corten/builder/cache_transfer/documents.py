"""What a travelling cache consists of, as documents: an OCI manifest over the list of steps, their layers, and folders of cache mounts. Pure.

docs/build-cache.md describes the format. What is read here came from elsewhere: everything is checked, nothing is believed that a
digest does not vouch for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import zstandard

from corten.builder.ingredients import key_of
from corten.errors import ArchiveRefused
from corten.spec.digest import digest_of, is_digest
from corten.spec.foreign_json import decode
from corten.spec.image import OCI_MANIFEST, Descriptor

ARTIFACT = "application/vnd.corten.build-cache.v1"
STEPS = "application/vnd.corten.build-cache.steps.v1+zstd"
MOUNT = "application/vnd.corten.build-cache.mount.v1.tar+zstd"
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"
DIFF_ID, MOUNT_NAME, MOUNT_OWNER, MOUNT_ABOUT = "corten.diff-id", "corten.mount.name", "corten.mount.owner", "corten.mount.description"
INLINE = "corten.build-cache.v1"  # a manifest's annotation: [[key, diff id], ...]
_STEPS_LIMIT = 256 << 20
_FOLDER = re.compile(r"[0-9a-f]{32}")  # cache_mounts.folder_name: it becomes a path


class CachedStep(msgspec.Struct, frozen=True):
    """As a cache row has it; `inputs` are its ingredients. `layer` is empty where the step changed nothing."""

    key: str
    description: str
    place: str
    layer: str
    base: list[str]
    length: int
    size: int
    inputs: list[tuple[str, str]]


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    config: Descriptor
    layers: list[Descriptor]
    schema_version: int = msgspec.field(default_factory=lambda: 2)
    media_type: str = msgspec.field(default_factory=lambda: OCI_MANIFEST)
    artifact_type: str = msgspec.field(default_factory=lambda: ARTIFACT)


class TravellingCache(msgspec.Struct, frozen=True):
    """`layers`: diff id -> blob; `mounts`: the names of their folders -> blob."""

    steps: dict[str, CachedStep]
    layers: dict[str, Descriptor]
    mounts: dict[str, Descriptor]


def pack_steps(steps: Iterable[CachedStep]) -> bytes:
    ordered = sorted(steps, key=lambda step: step.key)
    return zstandard.ZstdCompressor(level=6).compress(msgspec.json.encode(ordered))


def manifest_of(steps: bytes, layers: Mapping[str, Descriptor], mounts: Sequence[Descriptor]) -> bytes:
    """`layers`: diff id -> the blob as it is stored."""
    marked = [msgspec.structs.replace(blob, annotations={DIFF_ID: diff_id}) for diff_id, blob in sorted(layers.items())]
    listed = [Descriptor(STEPS, digest_of(steps), len(steps)), *marked, *mounts]
    return msgspec.json.encode(Manifest(Descriptor(EMPTY_CONFIG, digest_of(EMPTY), len(EMPTY)), listed))


def read_manifest(data: bytes) -> Manifest:
    """Raises ArchiveRefused for what is not Corten's cache."""
    try:
        found = decode(data, Manifest)
    except msgspec.DecodeError as error:
        raise ArchiveRefused(f"invalid build cache: {error}") from None
    if not found.layers or found.layers[0].media_type != STEPS or not all(is_digest(blob.digest) and blob.size >= 0 for blob in found.layers):
        raise ArchiveRefused("this is no build cache of Corten's: its first blob would be the list of steps")
    return found


def read_cache(manifest: Manifest, steps: bytes) -> TravellingCache:
    """Raises ArchiveRefused for a list that is not what the manifest says, or not whole. A step whose key is not its ingredients', and a
    mount whose name is none, are left out.
    """
    if digest_of(steps) != manifest.layers[0].digest:
        raise ArchiveRefused(f"the build cache's list of steps is not {manifest.layers[0].digest}: it was altered or cut off on its way")
    try:
        plain = zstandard.ZstdDecompressor().stream_reader(steps).read(_STEPS_LIMIT + 1)
        listed = decode(plain, list[CachedStep]) if len(plain) <= _STEPS_LIMIT else []
    except (zstandard.ZstdError, msgspec.DecodeError) as error:
        raise ArchiveRefused(f"invalid build cache: {error}") from None
    layers = {(blob.annotations or {}).get(DIFF_ID, ""): blob for blob in manifest.layers[1:] if blob.media_type != MOUNT}
    mounts = {(blob.annotations or {}).get(MOUNT_NAME, ""): blob for blob in manifest.layers[1:] if blob.media_type == MOUNT}
    mounts = {name: blob for name, blob in mounts.items() if _FOLDER.fullmatch(name)}
    return TravellingCache({step.key: step for step in listed if is_sound(step)}, layers, mounts)


def is_sound(step: CachedStep) -> bool:
    """Whether the key is that of the ingredients, and the layers are digests."""
    return key_of(step.inputs) == step.key and all(map(is_digest, (*step.base, *([step.layer] if step.layer else ()))))


# --- inline
def inline_annotation(steps: Iterable[tuple[str, str]]) -> str:
    """`steps`: (key, diff id), in the order of the layers."""
    return msgspec.json.encode(list(steps)).decode()


def read_inline(text: str) -> list[tuple[str, str]]:
    """Raises ArchiveRefused."""
    try:
        return decode(text, list[tuple[str, str]])
    except msgspec.DecodeError as error:
        raise ArchiveRefused(f"invalid inline build cache: {error}") from None
