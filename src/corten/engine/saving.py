"""`docker save`: which images a list of names means, and their archive in pieces, from a worker (store/image_writer.py)."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Sequence

import msgspec

from corten.engine.images import ImageService
from corten.errors import CortenError, Invalid, NoSuchImage, NotFound
from corten.spec.digest import is_digest
from corten.spec.platform import Platform, matches
from corten.spec.reference import parse_reference
from corten.spec.timestamps import parse_rfc3339
from corten.store.image_writer import SAVE_JOB, SavedImage, SavedLayer, SavedName, SavePlan, known_parents
from corten.store.images import Image, Images
from corten.store.layers import Layers, RunJob, run_on_archive
from corten.store.layout import Layout
from corten.store.worker_stream import read_from_worker

_HEX = re.compile(r"(sha256:)?[0-9a-f]{4,64}")
_SECOND = 1_000_000_000


class NoSuchReference(NotFound):
    template = "reference does not exist"


class NothingForPlatform(CortenError):
    template = "no suitable export target found for platform {platform}"


class Saving:
    def __init__(self, service: ImageService, images: Images, layers: Layers, layout: Layout, run_job: RunJob) -> None:
        self._service, self._images, self._layers = service, images, layers
        self._layout, self._run_job = layout, run_job

    def plan(self, names: Sequence[str], platform: Platform | None) -> SavePlan:
        """Raises NoSuchImage, NoSuchReference, NothingForPlatform."""
        tags: dict[str, list[str]] = {}
        found: dict[str, Image] = {}
        for name in names:
            image_tags = self._named(name)
            for image, tag in image_tags:
                found[image.id] = image
                known = tags.setdefault(image.id, [])
                if tag and tag not in known:
                    known.append(tag)
        for image in found.values():
            if platform and not matches(platform, image.config.platform):
                raise NothingForPlatform(platform=platform)
        return SavePlan(known_parents([self._saved(image, tags[image.id]) for image in found.values()]))

    def _named(self, name: str) -> list[tuple[Image, str]]:
        """(image, tag in full or none) for a tag, for every tag of a repository, or for an id."""
        if is_digest(name):
            return [(self._service.find(name), "")]
        try:
            reference = parse_reference(name)
        except Invalid:
            if _HEX.fullmatch(name):
                return [(self._service.find(name), "")]
            raise
        everything = self._images.all()
        if reference.digest:
            image = next((image for image in everything if f"{reference.name}@{reference.digest}" in image.digests), None)
            if image is None:
                raise NoSuchReference
            return [(image, "")]
        if reference.tag:
            tag = f"{reference.name}:{reference.tag}"
            image = next((image for image in everything if tag in image.tags), None)
            if image is None:
                raise NoSuchReference
            return [(image, tag)]
        tagged = sorted((tag, image) for image in everything for tag in image.tags if tag.rpartition(":")[0] == reference.name)
        if tagged:
            return [(image, tag) for tag, image in tagged]
        if _HEX.fullmatch(name):
            return [(self._service.find(name), "")]
        raise NoSuchImage(name=name)

    def _saved(self, image: Image, tags: Sequence[str]) -> SavedImage:
        blobs = [layer.digest for layer in self._images.manifest(image).layers]
        layers = [SavedLayer(blob, diff_id) for blob, diff_id in zip(blobs, image.config.rootfs.diff_ids, strict=True)]
        names: list[SavedName] = []
        for tag in tags:
            reference = parse_reference(tag)
            names.append(SavedName(tag, reference.familiar, reference.familiar_name, reference.tag))
        created = parse_rfc3339(image.config.created) // _SECOND if image.config.created else 0
        return SavedImage(image.id, max(created, 0), layers, names, image.parent)

    async def save(self, plan: SavePlan) -> AsyncIterator[bytes]:
        """The archive in pieces. Raises ArchiveRefused if a blob is not what it was."""
        for layer in {layer for image in plan.images for layer in image.layers}:
            await self._layers.ensure_blob(layer.diff_id)
        folder = os.open(self._layout.blobs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            argument = msgspec.json.encode(plan)
            async for data in read_from_worker(lambda output: run_on_archive(self._run_job, SAVE_JOB, (folder, output), argument)):
                yield data
        finally:
            os.close(folder)
        for image in plan.images:
            self._service.emit("save", image.id, image.id)
