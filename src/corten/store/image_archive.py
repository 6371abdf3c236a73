"""Reading image archives: `docker save` tars and OCI layouts in a tar. What is in them is data, never a path to write to.

Sources: Docker Engine 28.5 `POST /images/load`; OCI image-spec image-layout.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO

import msgspec

from corten.errors import ArchiveRefused, NotFound
from corten.spec.attestations import about
from corten.spec.digest import digest_of
from corten.spec.foreign_json import decode
from corten.spec.image import (
    DOCKER_CONFIG,
    INDEX_TYPES,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    is_for_machines,
    parse_config,
    parse_manifest,
)
from corten.spec.platform import Platform, matches
from corten.spec.reference import parse_reference
from corten.store.arriving import ArrivedFiles
from corten.store.blobs import Blobs
from corten.store.images import Listed

_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"


class PlatformMissing(NotFound):
    template = "requested platform ({platform}) not found"


class _SavedImage(msgspec.Struct, frozen=True, rename="pascal"):
    config: str
    layers: list[str]
    repo_tags: list[str] | None = None
    parent: str = ""


@dataclass(frozen=True)
class LoadedImage:
    """Blobs of one image, all in the store; the layers are still to be unpacked. `names` are full references.

    `listed`: its place in the index that the names stand for; `attested`: digests of what came with it of what that attests of it.
    """

    id: str
    manifest: Descriptor
    layers: tuple[tuple[str, str], ...]  # (blob, diff id)
    names: tuple[str, ...]
    parent: str = ""  # id of an image of the same archive
    listed: Listed | None = None
    attested: tuple[str, ...] = ()


class ImageArchive:
    """An archive whose files have arrived. Raises ArchiveRefused for whatever is wrong with it. `partial`: blobs that the store has need not be in it, nor those that
    are `spare`: (blob, diff id) that it can do without.
    """

    def __init__(self, files: ArrivedFiles, blobs: Blobs, platforms: Sequence[Platform] = (), *, partial: bool = False,
                 spare: Collection[tuple[str, str]] = ()) -> None:  # fmt: skip
        self._files, self._blobs, self._platforms, self._partial, self._spare = files, blobs, platforms, partial, spare

    def load(self) -> list[LoadedImage]:
        """Of every image, or of those for one of the platforms. An archive that has indexes too is read as an OCI layout."""
        saved = self._parse("manifest.json", list[_SavedImage]) if "manifest.json" in self._files else None
        entries = self._entries() if "index.json" in self._files and "oci-layout" in self._files else None
        if saved is None and entries is None:
            raise ArchiveRefused("the archive holds neither manifest.json (docker save) nor index.json and oci-layout (OCI layout)")
        if entries is not None and (saved is None or any(entry.media_type in INDEX_TYPES for entry in entries)):
            parents = {f"sha256:{image.config.rpartition('/')[2]}": image.parent for image in saved or []}
            found = [replace(image, parent=parents.get(image.id, "")) for entry in entries for image in self._from_layout(entry)]
        else:
            found = [loaded for image in saved or [] if (loaded := self._saved(image))]
        if not found and self._platforms:
            raise PlatformMissing(platform=", ".join(map(str, self._platforms)))
        return found

    def _entries(self) -> list[Descriptor]:
        index = parse_manifest(self._files.document("index.json"), "")
        if not isinstance(index, Index):
            raise ArchiveRefused("index.json is not an image index")
        return index.manifests

    def _is_wanted(self, platform: Platform) -> bool:
        return not self._platforms or any(matches(wanted, platform) for wanted in self._platforms)

    def _parse(self, name: str, kind: type[list[_SavedImage]]) -> list[_SavedImage]:
        try:
            return decode(self._files.document(name), kind)
        except msgspec.DecodeError as error:
            raise ArchiveRefused(f"invalid {name}: {error}") from None

    def _keep(self, name: str, expected: str = "") -> tuple[str, int]:
        """Make a file of the archive a blob; (digest, bytes)."""
        if self._partial and expected and name not in self._files and self._blobs.has(expected):
            return expected, self._blobs.size(expected)
        found = self._files.find(name)
        if expected and found.digest != expected:
            raise ArchiveRefused(f"the data's digest is {found.digest}, expected {expected}: it was altered or cut off on its way")
        self._blobs.adopt(found.path, found.digest)
        return found.digest, found.size

    def _saved(self, image: _SavedImage) -> LoadedImage | None:
        """None for another platform than those that are wanted."""
        config_data = self._files.document(image.config)
        config = parse_config(config_data)
        if not self._is_wanted(config.platform):
            return None
        if len(config.rootfs.diff_ids) != len(image.layers):
            raise ArchiveRefused(f"invalid manifest, layers length mismatch: expected {len(config.rootfs.diff_ids)}, got {len(image.layers)}")
        image_id = self._blobs.put(config_data)
        copied = [self._keep(name) for name in image.layers]
        manifest = Manifest(
            config=Descriptor(OCI_CONFIG, image_id, len(config_data)),
            layers=[Descriptor(OCI_LAYER, digest, size) for digest, size in copied],
            media_type=OCI_MANIFEST,
        )
        names = tuple(self._full_name(tag) for tag in image.repo_tags or [])
        pairs = zip((digest for digest, _ in copied), config.rootfs.diff_ids, strict=True)
        return LoadedImage(image_id, self._put_manifest(msgspec.json.encode(manifest), OCI_MANIFEST), tuple(pairs), names, image.parent)

    def _from_layout(self, entry: Descriptor) -> list[LoadedImage]:
        """Of a manifest its image, of an index those of its platforms that the archive has."""
        annotations = entry.annotations or {}
        name = annotations.get(_CONTAINERD_NAME) or annotations.get(_NAME, "")
        names = (self._full_name(name),) if name else ()
        data = self._files.document(_blob_name(entry.digest))
        document = parse_manifest(data, entry.media_type)
        if isinstance(document, Manifest):
            image = self._image(document, data, entry, names)
            return [image] if image else []
        if digest_of(data) != entry.digest:
            raise ArchiveRefused(f"{entry.digest} in the archive does not match its digest")
        target = self._blobs.put(data)
        found: list[LoadedImage] = []
        for part in document.manifests:
            if _blob_name(part.digest) not in self._files or not is_for_machines(part):
                continue
            inner = self._files.document(_blob_name(part.digest))
            manifest = parse_manifest(inner, part.media_type)
            if isinstance(manifest, Index):
                raise ArchiveRefused("an index inside an index is not supported")
            image = self._image(manifest, inner, part, names, Listed(target, part.digest))
            if image:
                found.append(replace(image, attested=tuple(self._attested(document, part.digest))))
        return found

    def _attested(self, index: Index, manifest: str) -> Iterator[str]:
        """Keep what the archive has of what its index says of one of its manifests: each whole or not at all. Digests."""
        for entry in about(index, manifest):
            if _blob_name(entry.digest) not in self._files:
                continue
            document = parse_manifest(self._files.document(_blob_name(entry.digest)), entry.media_type)
            parts = [document.config, *document.layers] if isinstance(document, Manifest) else []
            if parts and all(_blob_name(part.digest) in self._files for part in parts):
                for part in (*parts, entry):
                    yield self._keep(_blob_name(part.digest), part.digest)[0]

    def _image(self, manifest: Manifest, data: bytes, entry: Descriptor, names: tuple[str, ...], listed: Listed | None = None) -> LoadedImage | None:
        """None for another platform than those that are wanted. `data` is the manifest's."""
        if manifest.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
            raise ArchiveRefused(f"{entry.digest} is not an image: its config is {manifest.config.media_type}")
        config = parse_config(self._config(manifest.config.digest))
        if not self._is_wanted(config.platform):
            return None
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise ArchiveRefused(f"the manifest has {len(manifest.layers)} layers, the config {len(config.rootfs.diff_ids)}")
        pairs = tuple(zip((layer.digest for layer in manifest.layers), config.rootfs.diff_ids, strict=True))
        self._keep(_blob_name(manifest.config.digest), manifest.config.digest)
        for blob, diff_id in pairs:
            if not self._partial or _blob_name(blob) in self._files or (blob, diff_id) not in self._spare:
                self._keep(_blob_name(blob), blob)
        return LoadedImage(manifest.config.digest, self._put_manifest(data, entry.media_type), pairs, names, listed=listed)

    def _config(self, digest: str) -> bytes:
        name = _blob_name(digest)
        return self._blobs.read(digest) if self._partial and name not in self._files and self._blobs.has(digest) else self._files.document(name)

    def _put_manifest(self, data: bytes, media_type: str) -> Descriptor:
        return Descriptor(media_type, self._blobs.put(data), len(data))

    @staticmethod
    def _full_name(tag: str) -> str:
        reference = parse_reference(tag).with_default_tag()
        return f"{reference.name}:{reference.tag}"


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest.partition(':')[2]}"


def read_image_archive(source: IO[bytes], folder: str, blobs: Blobs, platforms: Sequence[Platform] = (), *, partial: bool = False,
                       spare: Collection[tuple[str, str]] = ()) -> list[LoadedImage]:  # fmt: skip
    """Take in every image's blobs from a stream, or those of images for `platforms`. `folder` is an empty one on the store's file system.

    `partial`: what the store has, or can do without (`spare`: blob, diff id), may be missing from it; whoever asks keeps it so meanwhile. Raises ArchiveRefused, PlatformMissing.
    """
    return ImageArchive(ArrivedFiles(source, folder), blobs, platforms, partial=partial, spare=spare).load()
