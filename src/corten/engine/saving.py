"""`docker save`: which images a list of names means, and their archive in pieces, from a worker (store/image_writer.py)."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import msgspec

from corten.engine.images import ImageService
from corten.errors import CortenError, Invalid, NoSuchImage, NotFound
from corten.spec.digest import is_digest
from corten.spec.platform import Platform, matches
from corten.spec.reference import Reference, parse_reference
from corten.spec.timestamps import parse_rfc3339
from corten.store.blobs import Blobs
from corten.store.holds import Holds
from corten.store.image_writer import (
    SAVE_JOB,
    SavedImage,
    SavedIndex,
    SavedLayer,
    SavedMember,
    SavedName,
    SavePlan,
    known_parents,
)
from corten.store.images import Image, Images
from corten.store.layers import Layers
from corten.store.layout import Layout
from corten.store.worker_stream import read_from_worker
from corten.store.workers import RunJob, run_on_archive

_HEX = re.compile(r"(sha256:)?[0-9a-f]{4,64}")
_SECOND = 1_000_000_000


class NoSuchReference(NotFound):
    template = "reference does not exist"


class NothingForPlatform(CortenError):
    template = "no suitable export target found for platform {platform}"


@dataclass(frozen=True)
class _Meant:
    """What a name of the request means: one image, or those of several platforms; `own` is the id of what it means by itself, `target` their index."""

    images: list[Image]
    tag: str = ""
    own: str = ""
    target: str = ""

    @property
    def named(self) -> Image:
        """The one that docker archives shall have under the tag."""
        return next((image for image in self.images if image.id == self.own), self.images[0])

    def only(self, platforms: Sequence[Platform]) -> _Meant:
        """Raises NothingForPlatform for one of the platforms that is not here."""
        for platform in platforms:
            if not any(matches(platform, image.config.platform) for image in self.images):
                raise NothingForPlatform(platform=platform)
        wanted = [image for image in self.images if not platforms or any(matches(platform, image.config.platform) for platform in platforms)]
        return _Meant(wanted, self.tag, self.own, self.target)


class Saving:
    def __init__(self, service: ImageService, images: Images, blobs: Blobs, layers: Layers, holds: Holds, layout: Layout,
                 run_job: RunJob) -> None:  # fmt: skip
        self._service, self._images, self._blobs, self._layers, self._holds = service, images, blobs, layers, holds
        self._layout, self._run_job = layout, run_job

    def plan(self, names: Sequence[str], platforms: Sequence[Platform]) -> SavePlan:
        """Of a name's platforms those asked for, or all that are here. Raises NoSuchImage, NoSuchReference, NothingForPlatform."""
        tags: dict[str, list[str]] = {}
        found: dict[str, Image] = {}
        groups: dict[tuple[SavedMember, ...], list[str]] = {}
        for meant in [one.only(platforms) for name in names for one in self._named(name)]:
            for image in meant.images:
                found[image.id] = image
                tags.setdefault(image.id, [])
            known = tags[meant.named.id]
            if meant.tag and meant.tag not in known:
                known.append(meant.tag)
            members = tuple(self._member(image, meant.target) for image in meant.images)
            if len(members) > 1 or any(member.attested for member in members):
                groups.setdefault(members, []).append(meant.tag)
        indexes = [SavedIndex([_saved_name(tag) for tag in names if tag], list(members)) for members, names in groups.items()]
        return SavePlan(known_parents([self._saved(image, tags[image.id]) for image in found.values()]), indexes)

    def _member(self, image: Image, target: str) -> SavedMember:
        place = next((place for place in image.places if place.target == target), None)
        found = self._images.attestations(place) if place else []
        entries = tuple(msgspec.json.encode(one.entry).decode() for one in found)
        return SavedMember(image.id, image.config.platform, place.manifest if place and entries else "", entries)

    def _named(self, name: str) -> list[_Meant]:
        """What a tag, every tag of a repository, or an id means."""
        if is_digest(name):
            return [_Meant([self._service.find(name)])]
        try:
            reference = parse_reference(name)
        except Invalid:
            if _HEX.fullmatch(name):
                return [_Meant([self._service.find(name)])]
            raise
        if reference.digest or reference.tag:
            found = self._under(reference)
            if found is None:
                raise NoSuchReference
            return [found]
        tags = sorted({tag for image in self._images.all() for tag in image.tags if tag.rpartition(":")[0] == reference.name})
        if tags:
            return [found for tag in tags if (found := self._under(parse_reference(tag)))]
        if _HEX.fullmatch(name):
            return [_Meant([self._service.find(name)])]
        raise NoSuchImage(name=name)

    def _under(self, reference: Reference) -> _Meant | None:
        image_id, target = self._images.resolve(reference), self._images.target(reference)
        image = self._images.get(image_id) if image_id else None
        if image is None:
            return None
        images = self._images.under(target) if target else [image]
        return _Meant(images, "" if reference.digest else f"{reference.name}:{reference.tag}", image.id, target)

    def _saved(self, image: Image, tags: Sequence[str]) -> SavedImage:
        blobs = [layer.digest for layer in self._images.manifest(image).layers]
        layers = [SavedLayer(blob, diff_id) for blob, diff_id in zip(blobs, image.config.rootfs.diff_ids, strict=True)]
        created = parse_rfc3339(image.config.created) // _SECOND if image.config.created else 0
        return SavedImage(image.id, max(created, 0), layers, [_saved_name(tag) for tag in tags], image.parent)

    async def save(self, plan: SavePlan) -> AsyncGenerator[bytes, None]:
        """The archive in pieces. Raises ArchiveRefused if a blob is not what it was."""
        folders = [os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in (self._layout.blobs, self._layout.layers, self._layout.records)]
        try:
            with self._holds.lease():
                argument = msgspec.json.encode(await self._with_sources(plan))
                async for data in read_from_worker(
                    lambda output: run_on_archive(self._run_job, SAVE_JOB, (folders[0], output, *folders[1:]), argument)
                ):
                    yield data
        finally:
            for folder in folders:
                os.close(folder)
        for image in plan.images:
            self._service.emit("save", image.id, image.id)


    async def _with_sources(self, plan: SavePlan) -> SavePlan:
        """Which layers come from their folders: those that are not there as plain tars, which are read faster."""
        images = [msgspec.structs.replace(image, layers=[await self._source(layer) for layer in image.layers]) for image in plan.images]
        return msgspec.structs.replace(plan, images=images)

    async def _source(self, layer: SavedLayer) -> SavedLayer:
        if self._blobs.has(layer.diff_id):
            return SavedLayer(layer.diff_id, layer.diff_id)
        if not self._layers.tars.is_made(layer.diff_id):
            return layer
        row = self._layers.need(layer.diff_id)
        tar = await self._layers.tars.settle(row)
        return SavedLayer("", layer.diff_id, row.number, tar.length, bool(tar.recorded))


def _saved_name(tag: str) -> SavedName:
    reference = parse_reference(tag)
    return SavedName(tag, reference.familiar, reference.familiar_name, reference.tag)
