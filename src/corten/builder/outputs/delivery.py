"""One output of a build, made: a parcel for the client, or an image in registries. What the store keeps is export.py's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from corten.builder.outputs import oci_tar, tree_tar
from corten.builder.outputs.blob_folder import BlobFolder, BringBack
from corten.builder.outputs.documents import Documents, PlatformImage, Predicate, assemble, statement
from corten.builder.outputs.parcels import Parcel
from corten.builder.outputs.push import Remotes, push
from corten.errors import Invalid
from corten.registry.progress import Emit
from corten.spec.build_outputs import DOCKER, FILES, OCI, Compression, Output
from corten.spec.digest import digest_of
from corten.spec.image import Descriptor, parse_config
from corten.spec.layer_packing import PLAIN
from corten.spec.platform import Platform
from corten.spec.reference import Reference
from corten.spec.timestamps import parse_rfc3339
from corten.store.blobs import Blobs
from corten.store.image_writer import SAVE_JOB, SavedImage, SavedLayer, SavedName, SavePlan
from corten.store.layers import Layers
from corten.store.layout import Layout

_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Solved:
    """What a build for one platform gave: the image's config document (its rootfs names the layers), and what is attested."""

    platform: Platform
    config: bytes
    predicates: tuple[Predicate, ...] = ()

    @property
    def chain(self) -> tuple[str, ...]:
        """Diff ids, lowest first."""
        return tuple(parse_config(self.config).rootfs.diff_ids)


class Delivery:
    def __init__(self, layout: Layout, blobs: Blobs, layers: Layers, bring_back: BringBack) -> None:
        self._layout, self._blobs, self._layers, self._bring_back = layout, blobs, layers, bring_back

    async def parcel(self, solved: Sequence[Solved], output: Output, names: Sequence[Reference]) -> Parcel:
        """What the client is to be sent. Raises Invalid where the output cannot hold the result."""
        if output.type in FILES:
            return self._trees(solved, output)
        folder = BlobFolder(self._layout, self._blobs, self._layers, self._bring_back)
        try:
            if output.type == DOCKER:
                return await self._docker(solved, folder, names)
            return await self._oci(solved, output, folder, names)
        except BaseException:
            await folder.remove()
            raise

    def _trees(self, solved: Sequence[Solved], output: Output) -> Parcel:
        split = len(solved) > 1 if output.split is None else output.split
        if len(solved) > 1 and not split:
            raise Invalid("platform-split=false cannot hold several platforms in one tree")
        parts: list[tree_tar.TreePart] = []
        for each in solved:
            numbers = [self._layers.need(diff_id).number for diff_id in reversed(each.chain)]
            subjects = [("_", digest_of(each.config))]
            files = [tree_tar.TreeFile(output.prefix + made.file, statement(made, subjects)) for made in each.predicates]
            parts.append(tree_tar.TreePart(tree_tar.platform_folder(each.platform) if split else "", numbers, files))
        held = tuple(diff_id for each in solved for diff_id in each.chain)
        return Parcel(output.type, tree_tar.TREE_JOB, msgspec.msgpack.encode(parts), self._layout.layers, own=False, diff_ids=held)

    async def _docker(self, solved: Sequence[Solved], folder: BlobFolder, names: Sequence[Reference]) -> Parcel:
        """As `docker save` writes it."""
        if len(solved) > 1:
            raise Invalid("the output type docker holds one platform: use type=oci")
        config = parse_config(solved[0].config)
        layers: list[SavedLayer] = []
        for diff_id in solved[0].chain:
            layers.append(SavedLayer((await folder.layer(diff_id, Compression(PLAIN, force=True))).digest, diff_id))
        created = parse_rfc3339(config.created) // _SECOND if config.created else 0
        saved = [SavedName(f"{name.name}:{name.tag}", name.familiar, name.familiar_name, name.tag) for name in names]
        plan = SavePlan([SavedImage(folder.put(solved[0].config), created, layers, saved)])
        return Parcel(DOCKER, SAVE_JOB, msgspec.json.encode(plan), folder.path, own=True)

    async def _oci(self, solved: Sequence[Solved], output: Output, folder: BlobFolder, names: Sequence[Reference]) -> Parcel:
        documents, _ = await self._documents(solved, output, folder, names)
        for data in (documents.root_data, *documents.blobs.values(), *(data for _, data in documents.manifests.values())):
            folder.put(data)
        plan = oci_tar.OciPlan(oci_tar.layout_index(documents.root, names, output.annotations_of("index-descriptor") or {}), folder.digests())
        return Parcel(OCI, oci_tar.OCI_JOB, msgspec.json.encode(plan), folder.path, own=True)

    async def _documents(self, solved: Sequence[Solved], output: Output, folder: BlobFolder,
                         names: Sequence[Reference]) -> tuple[Documents, list[Descriptor]]:  # fmt: skip
        images: list[PlatformImage] = []
        for each in solved:
            layers = [await folder.layer(diff_id, output.compression, oci_types=output.oci_types) for diff_id in each.chain]
            images.append(PlatformImage(each.platform, each.config, tuple(layers), each.predicates))
        return assemble(images, output, [name.familiar for name in names]), [layer for image in images for layer in image.layers]

    async def push(self, solved: Sequence[Solved], output: Output, names: Sequence[Reference], remotes: Remotes, emit: Emit) -> str:
        """Under every name; the digest of what they point to. Raises Invalid without a name, and what a registry refuses."""
        if not names:
            raise Invalid(f"the output type {output.type} needs a name to push: name=REPOSITORY[:TAG], or a tag of the build")
        folder = BlobFolder(self._layout, self._blobs, self._layers, self._bring_back)
        try:
            documents, layers = await self._documents(solved, output, folder, names)
            for name in names:
                async with remotes(name) as remote:
                    await push(documents, layers, folder, remote, name.tag, emit)
            return documents.root.digest
        finally:
            await folder.remove()
