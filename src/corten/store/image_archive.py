"""Reading image archives: `docker save` tars and OCI layouts in a tar. What is in them is data, never a path to write to.

Sources: Docker Engine 28.5 `POST /images/load`; OCI image-spec image-layout.md.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from typing import IO

import msgspec

from corten.errors import ArchiveRefused
from corten.spec.image import (
    DOCKER_CONFIG,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_config,
    parse_manifest,
)
from corten.spec.reference import parse_reference
from corten.store.blobs import Blobs

_DOCUMENT_LIMIT = 8 << 20
_CHUNK = 1 << 20
_MAX_LINKS = 8
_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"


class _SavedImage(msgspec.Struct, frozen=True, rename="pascal"):
    config: str
    layers: list[str]
    repo_tags: list[str] | None = None
    parent: str = ""


@dataclass(frozen=True)
class LoadedImage:
    """Blobs of one image, all in the store; the layers are still to be unpacked. `names` are full references."""

    id: str
    manifest: Descriptor
    layers: tuple[tuple[str, str], ...]  # (blob, diff id)
    names: tuple[str, ...]
    parent: str = ""  # id of an image of the same archive


class ImageArchive:
    """An archive opened for reading. Raises ArchiveRefused for whatever is wrong with it."""

    def __init__(self, archive: tarfile.TarFile, blobs: Blobs) -> None:
        self._archive, self._blobs = archive, blobs
        self._members = {member.name.removeprefix("./").rstrip("/"): member for member in archive}

    def load(self) -> list[LoadedImage]:
        if "manifest.json" in self._members:
            saved = self._parse("manifest.json", list[_SavedImage])
            return [self._saved(image) for image in saved]
        if "index.json" in self._members and "oci-layout" in self._members:
            index = parse_manifest(self._document("index.json"), "")
            if not isinstance(index, Index):
                raise ArchiveRefused("index.json is not an image index")
            return [self._from_layout(entry) for entry in index.manifests]
        raise ArchiveRefused("the archive holds neither manifest.json (docker save) nor index.json and oci-layout (OCI layout)")

    def _member(self, name: str) -> tarfile.TarInfo:
        member = self._members.get(name)
        if member is None:
            raise ArchiveRefused(f"{name!r} is missing from the archive")
        return member

    def _open(self, name: str) -> IO[bytes]:
        clean, member = name, self._member(name)
        for _ in range(_MAX_LINKS):
            if not (member.issym() or member.islnk()):
                break
            # Old `docker save` writes a layer twice as a link; links are names inside the archive and nothing else.
            folder = clean.rsplit("/", 1)[0] if member.issym() and "/" in clean else ""
            parts: list[str] = []
            for part in f"{folder}/{member.linkname}".split("/"):
                if part == ".." and parts:
                    parts.pop()
                elif part not in ("", ".", ".."):
                    parts.append(part)
            clean = "/".join(parts)
            member = self._member(clean)
        file = self._archive.extractfile(member) if member.isreg() else None
        if file is None:
            raise ArchiveRefused(f"{name!r} in the archive is not a file")
        return file

    def _document(self, name: str) -> bytes:
        with self._open(name) as file:
            data = file.read(_DOCUMENT_LIMIT + 1)
        if len(data) > _DOCUMENT_LIMIT:
            raise ArchiveRefused(f"{name!r} is larger than {_DOCUMENT_LIMIT >> 20} MiB")
        return data

    def _parse(self, name: str, kind: type[list[_SavedImage]]) -> list[_SavedImage]:
        try:
            return msgspec.json.decode(self._document(name), type=kind)
        except msgspec.DecodeError as error:
            raise ArchiveRefused(f"invalid {name}: {error}") from None

    def _copy(self, name: str, expected: str = "") -> tuple[str, int]:
        with self._open(name) as file, self._blobs.writer() as writer:
            while data := file.read(_CHUNK):
                writer.write(data)
            return writer.commit(expected), writer.size

    def _saved(self, image: _SavedImage) -> LoadedImage:
        config_data = self._document(image.config)
        config = parse_config(config_data)
        if len(config.rootfs.diff_ids) != len(image.layers):
            raise ArchiveRefused(f"invalid manifest, layers length mismatch: expected {len(config.rootfs.diff_ids)}, got {len(image.layers)}")
        image_id = self._blobs.put(config_data)
        copied = [self._copy(name) for name in image.layers]
        manifest = Manifest(
            config=Descriptor(OCI_CONFIG, image_id, len(config_data)),
            layers=[Descriptor(OCI_LAYER, digest, size) for digest, size in copied],
            media_type=OCI_MANIFEST,
        )
        names = tuple(self._full_name(tag) for tag in image.repo_tags or [])
        pairs = zip((digest for digest, _ in copied), config.rootfs.diff_ids, strict=True)
        return LoadedImage(image_id, self._put_manifest(msgspec.json.encode(manifest), OCI_MANIFEST), tuple(pairs), names, image.parent)

    def _from_layout(self, entry: Descriptor) -> LoadedImage:
        data = self._document(f"blobs/sha256/{entry.digest.partition(':')[2]}")
        manifest = parse_manifest(data, entry.media_type)
        if isinstance(manifest, Index):
            raise ArchiveRefused("an index with several platforms cannot be loaded yet; load one platform's manifest")
        if manifest.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
            raise ArchiveRefused(f"{entry.digest} is not an image: its config is {manifest.config.media_type}")
        for blob in (manifest.config, *manifest.layers):
            self._copy(f"blobs/sha256/{blob.digest.partition(':')[2]}", blob.digest)
        config = parse_config(self._blobs.read(manifest.config.digest))
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise ArchiveRefused(f"the manifest has {len(manifest.layers)} layers, the config {len(config.rootfs.diff_ids)}")
        annotations = entry.annotations or {}
        name = annotations.get(_CONTAINERD_NAME) or annotations.get(_NAME, "")
        names = (self._full_name(name),) if name else ()
        pairs = zip((layer.digest for layer in manifest.layers), config.rootfs.diff_ids, strict=True)
        return LoadedImage(manifest.config.digest, self._put_manifest(data, entry.media_type), tuple(pairs), names)

    def _put_manifest(self, data: bytes, media_type: str) -> Descriptor:
        return Descriptor(media_type, self._blobs.put(data), len(data))

    @staticmethod
    def _full_name(tag: str) -> str:
        reference = parse_reference(tag).with_default_tag()
        return f"{reference.name}:{reference.tag}"


def read_image_archive(path: str, blobs: Blobs) -> list[LoadedImage]:
    """Copy every image's blobs into the store. Raises ArchiveRefused."""
    try:
        with tarfile.open(path, "r:*") as archive:
            return ImageArchive(archive, blobs).load()
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ArchiveRefused(f"invalid archive: {error}") from None
