"""Images: which there are, what they are called, and what they hold on to. Rows and blobs, nothing running."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from corten.errors import ArchiveRefused, CortenError, StoreCorrupt
from corten.spec.image import (
    MOST_LAYERS,
    OCI_INDEX,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    parse_config,
    parse_manifest,
)
from corten.spec.platform import matches, this_platform
from corten.spec.reference import Reference
from corten.spec.timestamps import now_ns
from corten.store.attestations import Attestation, Attestations
from corten.store.blobs import Blobs
from corten.store.database import Database, ImageRow, MemberRow, NameRow
from corten.store.holds import Hold
from corten.store.layers import Layers
from corten.store.layout import Layout

_log = logging.getLogger("corten.store")


class TooDeep(CortenError):
    """Docker's words, and its status."""

    template = "max depth exceeded: the image has {layers} layers, {most} are the most"


@dataclass(frozen=True)
class Listed:
    """An image's place in an index: both digests. The index is a stored blob."""

    target: str
    manifest: str


@dataclass(frozen=True)
class Image:
    """One image of one platform as stored. `tags` and `digests` are references in full (`docker.io/library/debian:latest`).

    `parent` is the id of the image that it was made from here, and empty for every other. `shown`: False for one that is here only
    as another platform of what its names mean. `targets`: indexes (digests) that it is a part of, `places` as what. `tagged`: when it was
    last given a tag here (not by a pull or a load), nanoseconds since the epoch, or 0.
    """

    row: ImageRow
    config: ImageConfig
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    parent: str = ""
    shown: bool = True
    targets: tuple[str, ...] = ()
    tagged: int = 0
    places: tuple[Listed, ...] = ()

    @property
    def id(self) -> str:
        return self.row.id


class Images:
    def __init__(self, layout: Layout, database: Database, blobs: Blobs, layers: Layers) -> None:
        self._layout, self._database, self._blobs, self._layers = layout, database, blobs, layers
        self.config = lru_cache(maxsize=256)(self._read_config)
        self._document = lru_cache(maxsize=1024)(self._read_document)
        self._attestations = Attestations(blobs, self._document)
        self._broken: set[str] = set()  # ids of those that the log has named

    def _read_config(self, image_id: str) -> ImageConfig:
        return parse_config(self._blobs.read(image_id))

    def _read_document(self, digest: str, media_type: str) -> Manifest | Index:
        return parse_manifest(self._blobs.read(digest), media_type)

    def manifest(self, image: Image) -> Manifest:
        return self.document_of(Descriptor(image.row.media_type, image.row.manifest, image.row.manifest_size))

    def document_of(self, which: Descriptor) -> Manifest:
        """A stored manifest of an image. Raises StoreCorrupt."""
        manifest = self._document(which.digest, which.media_type)
        if isinstance(manifest, Index):
            raise TypeError("an image's manifest is never an index")
        return manifest

    def listed_manifest(self, image: Image, place: Listed) -> Descriptor:
        """What an index lists for the image, if that is here; else its own manifest."""
        if place.manifest != image.row.manifest and self._blobs.has(place.manifest):
            return next(entry for entry in self.index(place.target).manifests if entry.digest == place.manifest)
        return Descriptor(image.row.media_type, image.row.manifest, image.row.manifest_size)

    def index(self, target: str) -> Index:
        index = self._document(target, OCI_INDEX)
        if not isinstance(index, Index):
            raise TypeError("what a name of several platforms stands for is an index")
        return index

    def all(self) -> list[Image]:
        """Newest first. One whose config is broken is left out, and the log says so: fsck finds and mends it."""
        assemble = self._assembler()
        return [image for row in self._database.images() if (image := self._if_sound(assemble, row))]

    def _if_sound(self, assemble: Callable[[ImageRow], Image], row: ImageRow) -> Image | None:
        try:
            image = assemble(row)
        except (StoreCorrupt, ArchiveRefused) as error:
            if row.id not in self._broken:
                _log.warning("image %s is left out: %s", row.id, error.message)
            self._broken.add(row.id)
            return None
        self._broken.discard(row.id)
        return image

    def get(self, image_id: str) -> Image | None:
        row = self._database.image(image_id)
        return self._assembler()(row) if row else None

    def _assembler(self) -> Callable[[ImageRow], Image]:
        """Makes images of rows, as names and indexes are now."""
        names, parents, retags = self._database.names(), self._database.parents(), self._database.retags()
        parts: dict[str, list[Listed]] = {}
        for member in self._database.members():
            parts.setdefault(member.image, []).append(Listed(member.target, member.manifest))

        def assemble(row: ImageRow) -> Image:
            places = tuple(parts.get(row.id, ()))
            targets = tuple(place.target for place in places)
            mine = [name for name in names if name.image == row.id or name.target in targets]
            references = [name.reference for name in mine]
            return Image(
                row,
                self.config(row.id),
                tuple(reference for reference in references if "@" not in reference),
                tuple(reference for reference in references if "@" in reference),
                parents.get(row.id, ""),
                not mine or any(name.image == row.id for name in mine),
                targets,
                retags.get(row.id, 0),
                places,
            )

        return assemble

    def _name(self, reference: Reference) -> NameRow | None:
        wanted = reference.with_default_tag()
        key = f"{wanted.name}@{wanted.digest}" if wanted.digest else f"{wanted.name}:{wanted.tag}"
        return next((name for name in self._database.names() if name.reference == key), None)

    def resolve(self, reference: Reference) -> str | None:
        """The image id behind a tag or a repository digest."""
        name = self._name(reference)
        return name.image if name else None

    def target(self, reference: Reference) -> str:
        """The index that a tag or a repository digest stands for; empty where it is a single manifest, or unknown."""
        name = self._name(reference)
        return name.target if name else ""

    def entries(self, target: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Of a stored index: (its descriptor, the descriptors that it lists), with all keys that they have."""
        data = self._blobs.read(target)
        document = msgspec.json.decode(data, type=dict[str, Any])
        return {"mediaType": document.get("mediaType", OCI_INDEX), "digest": target, "size": len(data)}, document["manifests"]

    def members(self, target: str) -> dict[str, str]:
        """Of an index, what is here: manifest digest -> image id, in the order that the index has."""
        here = {member.manifest: member.image for member in self._database.members() if member.target == target}
        return {entry.digest: here[entry.digest] for entry in self.index(target).manifests if entry.digest in here} if here else {}

    def under(self, target: str) -> list[Image]:
        """Every platform's image of an index that is here and sound, in the order that the index has."""
        assemble = self._assembler()
        rows = [row for image_id in self.members(target).values() if (row := self._database.image(image_id))]
        return [image for row in rows if (image := self._if_sound(assemble, row))]

    def platforms(self, image: Image) -> list[Image]:
        """It, and what is here as other platforms of what its names mean."""
        others = {other.id: other for target in image.targets for other in self.under(target) if other.id != image.id}
        return [image, *others.values()]

    def attestations(self, place: Listed) -> list[Attestation]:
        """What is here whole of what the index says of the manifest."""
        return self._attestations.of(self.index(place.target), place.manifest)

    # --- as rows say it, also where blobs are broken
    def rows(self) -> list[ImageRow]:
        return self._database.images()

    def pairs(self, row: ImageRow) -> list[tuple[str, str]]:
        """(blob, diff id) of its layers, read anew. Raises StoreCorrupt, ArchiveRefused."""
        manifest = self.document(row)
        layers = manifest.layers if isinstance(manifest, Manifest) else []
        return list(zip((layer.digest for layer in layers), self._read_config(row.id).rootfs.diff_ids, strict=False))

    def document(self, row: ImageRow) -> Manifest | Index:
        """Its manifest, read anew. Raises StoreCorrupt, ArchiveRefused."""
        return self._read_document(row.manifest, row.media_type)

    def targets_of(self, image_id: str) -> list[str]:
        """Indexes that it is a part of."""
        return [member.target for member in self._database.members() if member.image == image_id]

    def kept_beside(self, image_id: str) -> dict[str, Descriptor]:
        """By digest what indexes have of it beside its own manifest: another manifest of the same content, what is attested of it."""
        places = [Listed(member.target, member.manifest) for member in self._database.members() if member.image == image_id]
        return {digest: part for place in places for digest, part in self._beside(place).items()}

    def _beside(self, place: Listed) -> dict[str, Descriptor]:
        with suppress(StoreCorrupt, ArchiveRefused):  # of a broken index nothing is known
            index = self.index(place.target)
            own = {entry.digest: entry for entry in index.manifests if entry.digest == place.manifest and self._blobs.has(entry.digest)}
            return own | self._attestations.held(index, place.manifest)
        return {}

    def repository_digests(self, image_id: str) -> list[str]:
        """Where a registry had it, in full: `registry/repository@digest`."""
        targets = self.targets_of(image_id)
        return [name.reference for name in self._database.names() if "@" in name.reference and (name.image == image_id or name.target in targets)]

    def with_layer(self, diff_id: str) -> tuple[str, ...]:
        """Ids of the images that have it."""
        found: list[str] = []
        for row in self.rows():
            with suppress(StoreCorrupt, ArchiveRefused):
                found += [row.id] if diff_id in self._read_config(row.id).rootfs.diff_ids else []
        return tuple(found)

    # --- changes
    def store(self, image_id: str, manifest: Descriptor, names: Sequence[str], parent: str = "", listed: Listed | None = None, *,
              made_here: bool = False) -> None:  # fmt: skip
        """Make an image whose blobs and layers are complete visible, under its names, in one transaction. Raises TooDeep."""
        layers = len(set(self.config(image_id).rootfs.diff_ids))
        if layers > MOST_LAYERS:
            raise TooDeep(layers=layers, most=MOST_LAYERS)
        with self._database.transaction():
            self._database.put_image(ImageRow(image_id, manifest.digest, manifest.media_type, manifest.size, now_ns()))
            if parent:
                self._database.put_parent(image_id, parent)
            if made_here and names:
                self._database.put_retag(image_id, now_ns())
            self._point(image_id, names, listed)
        self.write_index()

    def point(self, image_id: str, names: Sequence[str], listed: Listed | None = None, *, made_here: bool = False) -> None:
        """Have names mean a stored image: its one manifest, or with `listed` an index that has it among others."""
        with self._database.transaction():
            if made_here and names:
                self._database.put_retag(image_id, now_ns())
            self._point(image_id, names, listed)
        self.write_index()

    def _point(self, image_id: str, names: Iterable[str], listed: Listed | None) -> None:
        self._database.touch(image_id, now_ns())
        if listed:
            self._database.put_member(MemberRow(listed.target, listed.manifest, image_id))
        for name in names:
            self._database.put_name(name, image_id, now_ns(), listed.target if listed else "")
        self._database.delete_loose_members()
        if listed:
            self._settle(listed.target)

    def _settle(self, target: str) -> None:
        """Have the index's names mean this machine's platform, or where it is not here the first that is."""
        here = list(self.members(target).values())
        best = next((image_id for image_id in here if matches(this_platform(), self.config(image_id).platform)), here[0])
        for name in self._database.names():
            if name.target == target and name.image != best:
                self._database.put_name(name.reference, best, now_ns(), target)

    def renew(self, image: Image, manifest: Manifest, data: bytes, media_type: str) -> None:
        """Another manifest of a stored image is its own from now on, if it names the same blobs; else the one that there is stays."""
        with suppress(StoreCorrupt):
            if [layer.digest for layer in manifest.layers] == [layer.digest for layer in self.manifest(image).layers]:
                row = ImageRow(image.id, self._blobs.put(data), media_type, len(data), image.row.stored)
                self._database.put_image(row)

    def touch(self, image_id: str) -> None:
        """It has been used: what was not for longest is collected first."""
        self._database.touch(image_id, now_ns())

    def uses(self) -> dict[str, int]:
        """Image id -> when it was last used, nanoseconds since the epoch; while a container stands on it, when that was made."""
        return self._database.uses()

    def pins(self) -> set[str]:
        """Ids of the images that are never collected because somebody said so."""
        return self._database.pins()

    def pin(self, image_id: str, *, pinned: bool) -> None:
        self._database.pin(image_id, pinned=pinned)

    def tag(self, image_id: str, name: str, target: str = "") -> None:
        """`target`: an index that has the image, for a name that means all that is here of it."""
        self._database.put_name(name, image_id, now_ns(), target)
        self._database.touch(image_id, now_ns())
        if "@" not in name:
            self._database.put_retag(image_id, now_ns())
        self._database.delete_loose_members()
        self.write_index()

    def untag(self, name: str) -> None:
        self._database.delete_name(name)
        self._database.delete_loose_members()
        self.write_index()

    def remove(self, image: Image) -> Hold:
        """Remove the image and the names that mean it alone. What it held is answered: releasing that is the caller's."""
        held = self.hold(image)
        with self._database.transaction():
            self._database.delete_members(image.id)
            left = {member.target for member in self._database.members()}
            for name in self._database.names():
                if name.image == image.id and name.target not in left:
                    self._database.delete_name(name.reference)
            for target in set(image.targets) & left:
                self._settle(target)
            self._database.delete_image(image.id)
        self.config.cache_clear()
        self.write_index()
        return held

    # --- what they hold
    def hold(self, image: Image) -> Hold:
        """What the image keeps on disk, of the indexes that it is part of the documents too, and what they have beside it."""
        blobs = {image.id, image.row.manifest, *image.targets, *(digest for place in image.places for digest in self._beside(place))}
        with suppress(StoreCorrupt):  # a manifest that is broken names nothing; removing such an image must be possible
            blobs |= {layer.digest for layer in self.manifest(image).layers}
        return Hold("image", image.id, frozenset(image.config.rootfs.diff_ids), frozenset(blobs))

    def holds(self) -> list[Hold]:
        """Raises StoreCorrupt, ArchiveRefused: what an image holds whose config is broken is not known."""
        return [self.hold(image) for image in map(self._assembler(), self._database.images())]

    def size(self, image: Image) -> int:
        """Bytes of the unpacked layers: what Docker's overlay2 store reports."""
        rows = [self._layers.find(diff_id) for diff_id in image.config.rootfs.diff_ids]
        return sum(row.size for row in rows if row)

    def packed_size(self, image: Image) -> int:
        """Bytes of manifest, config and the layers' blobs."""
        manifest = self.manifest(image)
        return image.row.manifest_size + manifest.config.size + sum(layer.size for layer in manifest.layers)

    def _has_blobs(self, row: ImageRow) -> bool:
        with suppress(StoreCorrupt, ArchiveRefused):
            manifest = self._document(row.manifest, row.media_type)
            return isinstance(manifest, Manifest) and all(self._blobs.has(layer.digest) for layer in manifest.layers)
        return False

    def write_index(self) -> None:
        """Keep `index.json` true, so that OCI tools see what the database says. An image whose layers are
        kept as folders only is not in it.
        """
        rows = {row.id: row for row in self._database.images()}
        manifests = [
            {
                "mediaType": rows[name.image].media_type,
                "digest": rows[name.image].manifest,
                "size": rows[name.image].manifest_size,
                "annotations": {"org.opencontainers.image.ref.name": name.reference},
            }
            for name in self._database.names()
            if "@" not in name.reference and self._has_blobs(rows[name.image])
        ]
        for name, document in (
            ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
            ("index.json", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}),
        ):
            temporary = f"{self._layout.temporary}/{name}"
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(document, file)
            os.rename(temporary, f"{self._layout.root}/{name}")
