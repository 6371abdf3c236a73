"""Images as the engine's users see them: found by any name and platform, tagged, counted.

A name may mean several platforms' images (decisions/0030); it means this machine's where nothing else is asked for. An id means one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from corten.engine.containers import Containers
from corten.engine.events import Events
from corten.engine.records import ContainerRecord
from corten.errors import Invalid, NoSuchImage, WrongPlatform
from corten.spec.digest import encoded, is_digest
from corten.spec.platform import Platform, matches
from corten.spec.reference import Reference, parse_reference
from corten.store.images import Image, Images, Listed
from corten.store.layers import Layers

_HEX = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True)
class PlatformManifest:
    """One entry of an index: its descriptor as the index has it, and the image if it is one that is here. `packed`, `unpacked`: bytes; `containers`: ids.

    `available`: whether it is here; what attests something of an image has no image.
    """

    descriptor: dict[str, Any]
    image: Image | None = None
    available: bool = False
    packed: int = 0
    unpacked: int = 0
    containers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifests:
    """What a name stands for (its descriptor), and all that it lists."""

    descriptor: dict[str, Any]
    rows: list[PlatformManifest]


class ImageService:
    def __init__(self, layers: Layers, images: Images, containers: Containers, events: Events) -> None:
        self._layers, self._images = layers, images
        self._containers, self._events = containers, events

    def all(self) -> list[Image]:
        return self._images.all()

    def size(self, image: Image) -> int:
        return self._images.size(image)

    def layer_sizes(self, image: Image) -> list[int]:
        rows = [self._layers.find(diff_id) for diff_id in image.config.rootfs.diff_ids]
        return [row.size if row else 0 for row in rows]

    def shared_sizes(self) -> dict[str, int]:
        """Image id -> bytes of those of its layers that another image has too. Platforms of one name count as one."""
        rows = {image.id: self._layer_table(image) for image in self.all() if image.shown}
        holders = Counter(diff_id for layers in rows.values() for diff_id in layers)
        return {image_id: sum(size for diff_id, size in layers.items() if holders[diff_id] > 1) for image_id, layers in rows.items()}

    def _layer_table(self, image: Image) -> dict[str, int]:
        """Diff id -> bytes, of the layers of all its platforms."""
        return {diff_id: size for one in self.platforms(image) for diff_id, size in zip(one.config.rootfs.diff_ids, self.layer_sizes(one), strict=True)}

    def users(self, image: Image) -> list[ContainerRecord]:
        return [record for record in self._containers.all() if record.image == image.id]

    def platforms(self, image: Image) -> list[Image]:
        """What a row of the image list stands for: the image, and the other platforms that its names mean."""
        return self._images.platforms(image) if image.shown else [image]

    def whole_size(self, image: Image) -> int:
        """Bytes of the unpacked layers of all its platforms."""
        return sum(self._layer_table(image).values())

    def manifests(self, image: Image) -> Manifests:
        """Of an image's first index, here or not; of one without, itself."""
        if not image.targets:
            row = image.row
            own = {"mediaType": row.media_type, "digest": row.manifest, "size": row.manifest_size}
            return Manifests(own, [self._platform_manifest(own, image, {})])
        target = image.targets[0]
        head, entries = self._images.entries(target)
        members = self._images.members(target)
        here = {image.id: image for image in self._images.under(target)}
        attested = {one.entry.digest: one.size for manifest in members for one in self._images.attestations(Listed(target, manifest))}
        return Manifests(head, [self._platform_manifest(entry, here.get(members.get(entry["digest"], "")), attested) for entry in entries])

    def _platform_manifest(self, descriptor: dict[str, Any], image: Image | None, attested: Mapping[str, int]) -> PlatformManifest:
        if image is None:
            size = attested.get(descriptor["digest"])
            return PlatformManifest(descriptor, None, size is not None, size or 0)
        users = tuple(record.id for record in self.users(image))
        return PlatformManifest(descriptor, image, True, self._images.packed_size(image), self._images.size(image), users)

    def ancestors(self, image: Image) -> list[Image]:
        """What it was made from here, its parent first."""
        found: list[Image] = []
        while image.parent and (parent := self._images.get(image.parent)):
            found.append(parent)
            image = parent
        return found

    def children(self, image: Image) -> list[Image]:
        return [other for other in self._images.all() if other.parent == image.id]

    def namer(self) -> Callable[[ContainerRecord], str]:
        """Tells the name a container was created with, or its image's id once the name means another image.

        For the containers of one moment: each name is looked up once.
        """
        meant = cache(self.meant)
        return lambda record: record.config.image if record.image in meant(record.config.image) else record.image

    def meant(self, name: str) -> frozenset[str]:
        """The ids of every platform's image that a name means; none for one that means nothing."""
        try:
            image, target = self._look_up(name)
        except (NoSuchImage, Invalid):
            return frozenset()
        return frozenset({image.id, *(self._images.members(target).values() if target else ())})

    def find(self, name: str, platform: Platform | None = None) -> Image:
        """By reference, id, or id prefix. Raises NoSuchImage with Docker's normalised name; WrongPlatform if it is not here for that platform."""
        image, target = self._look_up(name)
        if platform is None:
            return image
        offered = self._images.under(target) if target else [image]
        fitting = [one for one in offered if matches(platform, one.config.platform)]
        if not fitting:
            raise WrongPlatform(name=name, own=image.config.platform, wanted=platform)
        return next((one for one in fitting if one.config.variant == platform.variant), fitting[0])

    def _look_up(self, name: str) -> tuple[Image, str]:
        """(image, the index that the name stands for, if it is a name of one)."""
        if is_digest(name):
            found = self._images.get(name)
            if found:
                return found, ""
            raise NoSuchImage(name=name)
        try:
            reference = parse_reference(name)
        except Invalid:
            reference = None
        if reference:
            image_id = self._images.resolve(reference)
            if image_id and (found := self._images.get(image_id)):
                return found, self._images.target(reference)
        prefix = name.removeprefix("sha256:")
        if _HEX.fullmatch(prefix):
            matching = [image for image in self._images.all() if encoded(image.id).startswith(prefix)]
            if len(matching) == 1:
                return matching[0], ""
        if reference is None and not _HEX.fullmatch(prefix):
            parse_reference(name)
        raise NoSuchImage(name=reference.with_default_tag().familiar if reference else name)

    def tag(self, name: str, reference: Reference) -> None:
        """Another name for what `name` means: all its platforms, or one image where it is an id."""
        image, target = self._look_up(name)
        self._images.tag(image.id, f"{reference.name}:{reference.tag}", target)
        self.emit("tag", image.id, reference.familiar)

    def pin(self, name: str, *, pinned: bool) -> None:
        """An image that is pinned is never collected; with a name, all its platforms."""
        image = self.find(name)
        for one in self.platforms(image):
            self._images.pin(one.id, pinned=pinned)

    def emit(self, action: str, image_id: str, name: str, actor: str = "") -> None:
        """An image event with Docker's attributes: name and labels."""
        image = self._images.get(image_id)
        labels = (image.config.run.labels if image else None) or {}
        self._events.emit("image", action, actor or image_id, **{**labels, "name": name})


def is_id(image: Image, name: str) -> bool:
    """Whether `name`, which has found the image, is (the beginning of) its id."""
    prefix = name.removeprefix("sha256:")
    return bool(_HEX.fullmatch(prefix)) and encoded(image.id).startswith(prefix)


def familiar(full: str) -> str:
    return full if is_digest(full) else parse_reference(full).familiar
