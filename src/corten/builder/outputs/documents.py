"""The documents of a built image outside of the store: manifests, attestation manifests, and an index over them. Pure.

Sources: OCI image-spec manifest.md, image-index.md; BuildKit docs/attestations/attestation-storage.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from corten.spec.attestations import ATTESTATION, IN_TOTO, PREDICATE_TYPE, REFERENCE_DIGEST, REFERENCE_TYPE
from corten.spec.build_outputs import Output
from corten.spec.digest import digest_of, encoded
from corten.spec.image import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    RootFS,
)
from corten.spec.platform import Platform

STATEMENT = "https://in-toto.io/Statement/v0.1"
_UNKNOWN = Platform("unknown", "unknown")


@dataclass(frozen=True)
class Predicate:
    """What is attested (JSON), and its type. `file` is its name where the result is a file tree."""

    type: str
    body: bytes
    file: str


@dataclass(frozen=True)
class PlatformImage:
    """One platform's image: its config as it is stored, its layers as they go out, and what is attested of it."""

    platform: Platform
    config: bytes
    layers: tuple[Descriptor, ...]
    predicates: tuple[Predicate, ...] = ()


@dataclass(frozen=True)
class Documents:
    """`root` is what a name points to. `blobs` are the small ones (configs, statements), `manifests` all manifests and indexes but the root."""

    root: Descriptor
    root_data: bytes
    blobs: Mapping[str, bytes]
    manifests: Mapping[str, tuple[str, bytes]]  # digest -> (media type, document)


class _Statement(msgspec.Struct, frozen=True, rename="camel"):
    subject: list[dict[str, Any]]
    predicate_type: str
    predicate: msgspec.Raw
    type_: str = msgspec.field(name="_type", default=STATEMENT)


def statement(predicate: Predicate, subjects: Sequence[tuple[str, str]]) -> bytes:
    """An in-toto statement; `subjects` are (name, digest)."""
    named = [{"name": name, "digest": {"sha256": encoded(digest)}} for name, digest in subjects]
    return msgspec.json.encode(_Statement(named, predicate.type, msgspec.Raw(predicate.body)))


def assemble(images: Sequence[PlatformImage], output: Output, names: Sequence[str]) -> Documents:
    """One manifest; or an index, where there are several images, attestations, or annotations of an index. `names` are shown in purls."""
    blobs: dict[str, bytes] = {}
    manifests: dict[str, tuple[str, bytes]] = {}
    runnable: list[Descriptor] = []
    attested: list[Descriptor] = []
    for image in images:
        found = _manifest(image, output, blobs, manifests)
        runnable.append(found)
        if image.predicates:
            made = attestation(image.predicates, image.platform, found, names)
            blobs |= made.blobs
            manifests[made.entry.digest] = (made.entry.media_type, made.manifest)
            attested.append(made.entry)
    if len(runnable) == 1 and not attested and not _needs_index(output):
        media_type, data = manifests.pop(runnable[0].digest)
        return Documents(Descriptor(media_type, digest_of(data), len(data)), data, blobs, manifests)
    media_type = OCI_INDEX if output.oci_types else DOCKER_LIST
    index = msgspec.json.encode(Index([*runnable, *attested], media_type=media_type, annotations=output.annotations_of("index")))
    return Documents(Descriptor(media_type, digest_of(index), len(index)), index, blobs, manifests)


def _needs_index(output: Output) -> bool:
    return any(each.target in ("index", "manifest-descriptor") for each in output.annotations)


def _manifest(image: PlatformImage, output: Output, blobs: dict[str, bytes], manifests: dict[str, tuple[str, bytes]]) -> Descriptor:
    config = digest_of(image.config)
    blobs[config] = image.config
    media_type, config_type = (OCI_MANIFEST, OCI_CONFIG) if output.oci_types else (DOCKER_MANIFEST, DOCKER_CONFIG)
    described = Descriptor(config_type, config, len(image.config))
    document = Manifest(described, list(image.layers), media_type=media_type, annotations=output.annotations_of("manifest", image.platform))
    data = msgspec.json.encode(document)
    manifests[digest_of(data)] = (media_type, data)
    return Descriptor(media_type, digest_of(data), len(data), image.platform, output.annotations_of("manifest-descriptor", image.platform))


@dataclass(frozen=True)
class Attested:
    """An attestation: an index's entry, its manifest, and config and statements by digest."""

    entry: Descriptor
    manifest: bytes
    blobs: Mapping[str, bytes]


def attestation(predicates: Sequence[Predicate], platform: Platform, about: Descriptor, names: Sequence[str]) -> Attested:
    """What is attested of the manifest `about`. `names` are shown in purls."""
    subjects = [(purl_of(name, platform), about.digest) for name in names] or [("_", about.digest)]
    layers: list[Descriptor] = []
    blobs: dict[str, bytes] = {}
    for predicate in predicates:
        data = statement(predicate, subjects)
        blobs[digest_of(data)] = data
        layers.append(Descriptor(IN_TOTO, digest_of(data), len(data), annotations={PREDICATE_TYPE: predicate.type}))
    config = msgspec.json.encode(ImageConfig("unknown", RootFS([layer.digest for layer in layers]), os="unknown"))
    blobs[digest_of(config)] = config
    data = msgspec.json.encode(Manifest(Descriptor(OCI_CONFIG, digest_of(config), len(config)), layers, media_type=OCI_MANIFEST))
    annotations = {REFERENCE_DIGEST: about.digest, REFERENCE_TYPE: ATTESTATION}
    return Attested(Descriptor(OCI_MANIFEST, digest_of(data), len(data), _UNKNOWN, annotations), data, blobs)


def purl_of(name: str, platform: Platform) -> str:
    """`pkg:docker/NAME@TAG?platform=linux%2Famd64`, of a familiar name (purl-spec, type docker)."""
    head, _, tag = name.rpartition(":")
    if not head or "/" in tag:
        head, tag = name, "latest"
    return f"pkg:docker/{head}@{tag}?platform={str(platform).replace('/', '%2F')}"
