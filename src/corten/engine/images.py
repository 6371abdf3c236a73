"""Images as the engine's users see them: found by any name, tagged, removed by Docker's rules, loaded, pulled."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache

from corten.engine.containers import Containers
from corten.engine.events import Events
from corten.engine.records import ContainerRecord
from corten.errors import Invalid, NoSuchImage, WrongPlatform
from corten.spec.digest import encoded, is_digest
from corten.spec.platform import Platform, matches
from corten.spec.reference import parse_reference
from corten.store.images import Image, Images
from corten.store.layers import Layers

_HEX = re.compile(r"[0-9a-f]{4,64}")


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
        """Image id -> bytes of those of its layers that another image has too."""
        images = self.all()
        holders = Counter(diff_id for image in images for diff_id in set(image.config.rootfs.diff_ids))
        return {
            image.id: sum(size for diff_id, size in zip(image.config.rootfs.diff_ids, self.layer_sizes(image), strict=True) if holders[diff_id] > 1)
            for image in images
        }

    def users(self, image: Image) -> list[ContainerRecord]:
        return [record for record in self._containers.all() if record.image == image.id]

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
        meant = cache(self._id_of)
        return lambda record: record.config.image if meant(record.config.image) == record.image else record.image

    def _id_of(self, name: str) -> str:
        try:
            return self.find(name).id
        except (NoSuchImage, Invalid):
            return ""

    def find(self, name: str) -> Image:
        """By reference, id, or id prefix. Raises NoSuchImage with Docker's normalised name."""
        if is_digest(name):
            found = self._images.get(name)
            if found:
                return found
            raise NoSuchImage(name=name)
        try:
            reference = parse_reference(name)
        except Invalid:
            reference = None
        if reference:
            image_id = self._images.resolve(reference)
            if image_id and (found := self._images.get(image_id)):
                return found
        prefix = name.removeprefix("sha256:")
        if _HEX.fullmatch(prefix):
            matching = [image for image in self._images.all() if encoded(image.id).startswith(prefix)]
            if len(matching) == 1:
                return matching[0]
        if reference is None and not _HEX.fullmatch(prefix):
            parse_reference(name)
        raise NoSuchImage(name=reference.with_default_tag().familiar if reference else name)

    def tag(self, image: Image, repository: str, tag: str) -> None:
        reference = parse_reference(f"{repository}:{tag}" if tag else repository).with_default_tag()
        if reference.digest:
            raise Invalid("refusing to create a tag with a digest reference")
        self._images.tag(image.id, f"{reference.name}:{reference.tag}")
        self.emit("tag", image.id, reference.familiar)

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


def check_platform(image: Image, wanted: Platform, called: str) -> None:
    """Raises WrongPlatform if the stored image is for another platform."""
    own = Platform(image.config.architecture, image.config.os or "linux", image.config.variant)
    if not matches(wanted, own):
        raise WrongPlatform(name=called, own=own, wanted=wanted)
