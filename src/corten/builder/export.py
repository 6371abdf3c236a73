"""What a build has made, as an image of the store: config, manifest, and the name last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from corten.builder.graph import Vertex
from corten.builder.outputs.documents import Predicate, attestation
from corten.builder.plan import BuildPlan
from corten.builder.results import MadeLayer, Result
from corten.spec.image import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    History,
    ImageConfig,
    Index,
    Manifest,
    RootFS,
    packed_type,
)
from corten.spec.platform import this_platform
from corten.spec.reference import Reference
from corten.store.blobs import Blobs
from corten.store.images import Images, Listed
from corten.store.layers import Layers

_SECOND = 1_000_000_000


def moment(nanoseconds: int) -> str:
    """RFC 3339 in whole seconds, UTC."""
    return datetime.fromtimestamp(nanoseconds // _SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def config_document(plan: BuildPlan, result: Result, made: Mapping[Vertex, MadeLayer], created: int) -> bytes:
    """`created` is nanoseconds since the epoch. Its digest is the image's id."""
    return msgspec.json.encode(make_config(plan, result, made, moment(created)))


def make_config(plan: BuildPlan, result: Result, made: Mapping[Vertex, MadeLayer], created: str) -> ImageConfig:
    """Pure. Every time in it is `created`: nothing tells when the build took place."""
    lines = list(plan.base.config.history or []) if plan.base else []
    for line in plan.history:
        changed = line.vertex is not None and bool(made[line.vertex].diff_id)
        lines.append(History(created, line.created_by, line.author, line.comment, not changed))
    return ImageConfig(
        architecture=plan.platform.architecture, os=plan.platform.os, variant=plan.platform.variant, created=created, author=plan.author,
        config=plan.config, rootfs=RootFS(list(result.chain)), history=lines,
    )  # fmt: skip


class Exporter:
    def __init__(self, blobs: Blobs, layers: Layers, images: Images) -> None:
        self._blobs, self._layers, self._images = blobs, layers, images

    def store(self, plan: BuildPlan, result: Result, made: Mapping[Vertex, MadeLayer], data: bytes, names: Sequence[str],
              annotations: dict[str, str] | None = None) -> str:  # fmt: skip
        """Make the image of this config visible under its names (in full), in one transaction; its id. `annotations` are its manifest's."""
        image_id = self._blobs.put(data)
        base = self._images.get(plan.base.id) if plan.base else None
        docker = base is not None and base.row.media_type == DOCKER_MANIFEST  # one manifest does not mix the two vocabularies
        known = dict(zip(base.config.rootfs.diff_ids, self._images.manifest(base).layers, strict=True)) if base else {}
        lengths = {layer.diff_id: layer.length for layer in made.values()}
        layer_type = DOCKER_LAYER if docker else OCI_LAYER
        manifest = Manifest(
            config=Descriptor(DOCKER_CONFIG if docker else OCI_CONFIG, image_id, len(data)),
            layers=[known.get(diff_id) or self._descriptor(diff_id, layer_type, lengths) for diff_id in result.chain],
            media_type=DOCKER_MANIFEST if docker else OCI_MANIFEST, annotations=annotations,
        )
        written = msgspec.json.encode(manifest)
        self._images.store(image_id, Descriptor(manifest.media_type, self._blobs.put(written), len(written)), names, made_here=True)
        return image_id

    def name_together(self, made: Mapping[str, Sequence[Predicate]], names: Sequence[Reference]) -> None:
        """Have the names mean stored images (id -> what is attested of it): an index over them and over that."""
        images = [image for image_id in made if (image := self._images.get(image_id))]
        entries = {image.id: Descriptor(image.row.media_type, image.row.manifest, image.row.manifest_size, image.config.platform) for image in images}
        attested = [self._attest(made[image.id], entries[image.id], names) for image in images if made[image.id]]
        target = self._blobs.put(msgspec.json.encode(Index([*entries.values(), *attested], media_type=OCI_INDEX)))
        full = [f"{name.name}:{name.tag}" for name in names]
        for image in images:
            self._images.point(image.id, full, Listed(target, image.row.manifest), made_here=True)

    def _attest(self, predicates: Sequence[Predicate], about: Descriptor, names: Sequence[Reference]) -> Descriptor:
        """What the index is to list."""
        found = attestation(predicates, about.platform or this_platform(), about, [name.familiar for name in names])
        for data in (*found.blobs.values(), found.manifest):
            self._blobs.put(data)
        return found.entry

    def _descriptor(self, diff_id: str, layer_type: str, lengths: Mapping[str, int]) -> Descriptor:
        """A layer made here is a tar that need not be there yet; one that was there before has the blob that it came with."""
        row = self._layers.find(diff_id)
        size = self._layers.tars.blob_size(row.blob) if row and row.blob != diff_id else None
        if row is None or size is None:
            tar = self._layers.tars.find(diff_id)
            return Descriptor(layer_type, diff_id, tar.length if tar else lengths[diff_id])
        return Descriptor(packed_type(layer_type), row.blob, size)
