"""Images: which there are, what they are called, and what they hold on to. Rows and blobs, nothing running."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from corten.spec.image import OCI_INDEX, Descriptor, ImageConfig, Index, Manifest, parse_config, parse_manifest
from corten.spec.reference import Reference
from corten.spec.timestamps import now_ns
from corten.store.blobs import Blobs
from corten.store.database import Database, ImageRow, LayerRow
from corten.store.layers import Layers
from corten.store.layout import Layout


@dataclass(frozen=True)
class Image:
    """One image as stored. `tags` and `digests` are references in full (`docker.io/library/debian:latest`).

    `parent` is the id of the image that it was made from here, and empty for every other.
    """

    row: ImageRow
    config: ImageConfig
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    parent: str = ""

    @property
    def id(self) -> str:
        return self.row.id


class Images:
    def __init__(self, layout: Layout, database: Database, blobs: Blobs, layers: Layers) -> None:
        self._layout, self._database, self._blobs, self._layers = layout, database, blobs, layers
        self.config = lru_cache(maxsize=256)(self._read_config)

    def _read_config(self, image_id: str) -> ImageConfig:
        return parse_config(self._blobs.read(image_id))

    def manifest(self, image: Image) -> Manifest:
        manifest = parse_manifest(self._blobs.read(image.row.manifest), image.row.media_type)
        if isinstance(manifest, Index):
            raise TypeError("an image's manifest is never an index")
        return manifest

    def all(self) -> list[Image]:
        """Newest first."""
        names, parents = self._database.names(), self._database.parents()
        return [self._assemble(row, names, parents) for row in self._database.images()]

    def get(self, image_id: str) -> Image | None:
        row = self._database.image(image_id)
        return self._assemble(row, self._database.names(), self._database.parents()) if row else None

    def _assemble(self, row: ImageRow, names: Iterable[tuple[str, str]], parents: Mapping[str, str]) -> Image:
        mine = [reference for reference, image in names if image == row.id]
        return Image(
            row,
            self.config(row.id),
            tuple(name for name in mine if "@" not in name),
            tuple(name for name in mine if "@" in name),
            parents.get(row.id, ""),
        )

    def resolve(self, reference: Reference) -> str | None:
        """The image id behind a tag or a repository digest."""
        wanted = reference.with_default_tag()
        key = f"{wanted.name}@{wanted.digest}" if wanted.digest else f"{wanted.name}:{wanted.tag}"
        return dict(self._database.names()).get(key)

    def store(self, image_id: str, manifest: Descriptor, names: Iterable[str], parent: str = "") -> None:
        """Make an image whose blobs and layers are complete visible, under its names, in one transaction."""
        with self._database.transaction():
            self._database.put_image(ImageRow(image_id, manifest.digest, manifest.media_type, manifest.size, now_ns()))
            for name in names:
                self._database.put_name(name, image_id, now_ns())
            if parent:
                self._database.put_parent(image_id, parent)
        self._write_index()

    def tag(self, image_id: str, name: str) -> None:
        self._database.put_name(name, image_id, now_ns())
        self._write_index()

    def untag(self, name: str) -> None:
        self._database.delete_name(name)
        self._write_index()

    def remove(self, image: Image, keep_diff_ids: frozenset[str]) -> list[LayerRow]:
        """Remove the image, and every layer that neither another image nor `keep_diff_ids` needs. Returns those."""
        manifest = self.manifest(image)
        with self._database.transaction():
            for name in (*image.tags, *image.digests):
                self._database.delete_name(name)
            self._database.delete_image(image.id)
        self.config.cache_clear()
        rest = self.all()
        held = self._database.held_layers()
        used_blobs = self.used_blobs() | {row.blob for row in map(self._layers.find, held) if row}
        used_layers = keep_diff_ids | held | {diff_id for other in rest for diff_id in other.config.rootfs.diff_ids}
        gone: list[LayerRow] = []
        for diff_id in image.config.rootfs.diff_ids:
            row = self._layers.find(diff_id)
            if row and diff_id not in used_layers:
                self._layers.remove(row)
                gone.append(row)
        for digest in {image.id, image.row.manifest, *(layer.digest for layer in manifest.layers)} - used_blobs:
            self._blobs.remove(digest)
        self._write_index()
        return gone

    def forget_unused(self, diff_ids: Iterable[str], keep: frozenset[str]) -> list[LayerRow]:
        """Of layers that something has let go: the rows of those that no image, nobody who holds layers and not `keep` needs go now.

        Their folders and blobs are for remove_folders().
        """
        used = keep | self._database.held_layers() | {diff_id for image in self.all() for diff_id in image.config.rootfs.diff_ids}
        gone = [row for row in map(self._layers.find, set(diff_ids) - used) if row]
        for row in gone:
            self._layers.forget(row)
        used_blobs = self.used_blobs()
        for row in gone:
            if row.blob not in used_blobs:
                self._blobs.remove(row.blob)
        return gone

    def remove_folders(self, rows: list[LayerRow]) -> list[LayerRow]:
        """Of layers without a row any more; a crash before the end leaves the rest to the next start. For threads."""
        for row in rows:
            self._layers.remove_folder(row)
        return rows

    def used_blobs(self) -> set[str]:
        """Every blob that a stored image needs."""
        return {digest for image in self.all() for digest in self._blobs_of(image)}

    def _blobs_of(self, image: Image) -> set[str]:
        return {image.id, image.row.manifest, *(layer.digest for layer in self.manifest(image).layers)}

    def size(self, image: Image) -> int:
        """Bytes of the unpacked layers: what Docker's overlay2 store reports."""
        rows = [self._layers.find(diff_id) for diff_id in image.config.rootfs.diff_ids]
        return sum(row.size for row in rows if row)

    def _has_tars(self, image_id: str) -> bool:
        rows = [self._layers.find(diff_id) for diff_id in self.config(image_id).rootfs.diff_ids]
        return all(row is None or row.blob != row.diff_id or self._blobs.has(row.blob) for row in rows)

    def _write_index(self) -> None:
        """Keep `index.json` true, so that OCI tools see what the database says. An image whose layers' tars have not been made
        (layer_seal.py) is not in it before they are.
        """
        rows = {row.id: row for row in self._database.images()}
        manifests = [
            {
                "mediaType": rows[image].media_type,
                "digest": rows[image].manifest,
                "size": rows[image].manifest_size,
                "annotations": {"org.opencontainers.image.ref.name": reference},
            }
            for reference, image in self._database.names()
            if "@" not in reference and self._has_tars(image)
        ]
        for name, document in (
            ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
            ("index.json", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}),
        ):
            temporary = f"{self._layout.temporary}/{name}"
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(document, file)
            os.rename(temporary, f"{self._layout.root}/{name}")
