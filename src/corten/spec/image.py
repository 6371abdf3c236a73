"""OCI image types as frozen values: descriptor, manifest, index, image config. Pure: parse and serialise.

Source: OCI image-spec v1.1 (descriptor.md, manifest.md, image-index.md, config.md) and Docker's
"Image Manifest Version 2, Schema 2", whose documents have the same shape under other media types.
"""

from __future__ import annotations

from typing import Any

import msgspec

from corten.errors import ArchiveRefused
from corten.spec.digest import is_digest
from corten.spec.engine import Healthcheck
from corten.spec.foreign_json import decode
from corten.spec.platform import Platform

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
ACCEPTED_MANIFESTS = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))
FOREIGN_MARKS = ("foreign", "nondistributable")
MOST_LAYERS = 498  # overlayfs takes 500 below a writable one: the init layer is one of them, and a stopped container's own where tools look at it


_ALWAYS_2: int = msgspec.field(default_factory=lambda: 2)  # a factory's value is written out, a default would be left out


def is_compressed(media_type: str) -> bool:
    """Whether a layer's blob is packed; a plain tar's type has no suffix (image-spec layer.md; Docker's `.gzip`)."""
    return media_type.endswith(("gzip", "zstd"))


def packed_type(media_type: str) -> str:
    """The type of a plain tar layer once it is gzipped."""
    return media_type + (".gzip" if media_type == DOCKER_LAYER else "+gzip")


def zstd_type(media_type: str) -> str:
    """The type of a plain tar layer once zstd has packed it: OCI's, or the one that containerd has for Docker's."""
    return media_type + (".zstd" if media_type == DOCKER_LAYER else "+zstd")


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] | None = None
    urls: list[str] | None = None
    artifact_type: str = ""


def is_for_machines(entry: Descriptor) -> bool:
    """Whether an index's entry is an image to run; BuildKit lists attestations beside those, for platform unknown/unknown."""
    return entry.platform is None or entry.platform.os != "unknown"


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    config: Descriptor
    layers: list[Descriptor]
    schema_version: int = _ALWAYS_2
    media_type: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    manifests: list[Descriptor]
    schema_version: int = _ALWAYS_2
    media_type: str = ""
    annotations: dict[str, str] | None = None


class RunConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """What a container made from the image runs by default (config.md, `config`)."""

    user: str = ""
    env: list[str] | None = None
    cmd: list[str] | None = None
    entrypoint: list[str] | None = None
    working_dir: str = ""
    exposed_ports: dict[str, dict[str, Any]] | None = None
    volumes: dict[str, dict[str, Any]] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    on_build: list[str] | None = None
    shell: list[str] | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False


class RootFS(msgspec.Struct, frozen=True):
    diff_ids: list[str]
    type: str = "layers"


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """An image's config document. Its digest is the image id."""

    architecture: str
    rootfs: RootFS
    os: str = msgspec.field(default_factory=lambda: "linux")  # as with _ALWAYS_2
    variant: str = ""
    created: str = ""
    author: str = ""
    config: RunConfig | None = None
    history: list[History] | None = None
    comment: str = ""
    container: str = ""
    docker_version: str = ""

    @property
    def run(self) -> RunConfig:
        return self.config or RunConfig()

    @property
    def platform(self) -> Platform:
        return Platform(self.architecture, self.os, self.variant)


def parse_config(data: bytes) -> ImageConfig:
    """Raises ArchiveRefused naming the key that is wrong."""
    try:
        return decode(data, ImageConfig)
    except msgspec.DecodeError as error:
        raise ArchiveRefused(f"invalid image config: {error}") from None


def parse_manifest(data: bytes, media_type: str) -> Manifest | Index:
    """Parse a manifest or an index, told apart by media type, else by the keys present. Raises ArchiveRefused."""
    try:
        keys = decode(data, dict[str, msgspec.Raw])
        if media_type in INDEX_TYPES or (media_type not in MANIFEST_TYPES and "manifests" in keys):
            index = decode(data, Index)
            _check_descriptors(index.manifests)
            return index
        manifest = decode(data, Manifest)
    except msgspec.DecodeError as error:
        raise ArchiveRefused(f"invalid manifest: {error}") from None
    _check_descriptors([manifest.config, *manifest.layers])
    return manifest


def _check_descriptors(descriptors: list[Descriptor]) -> None:
    for row in descriptors:
        if not is_digest(row.digest) or not 0 <= row.size < 1 << 63:
            raise ArchiveRefused(f"invalid manifest: {row.digest!r} of {row.size} bytes: want a sha256 digest and a size that can be")
