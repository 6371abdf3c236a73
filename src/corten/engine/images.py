"""Images as the engine's users see them: found by any name, tagged, removed by Docker's rules, loaded, pulled."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace

from corten.engine import states
from corten.engine.containers import Containers
from corten.engine.events import Events
from corten.engine.hello import hello_archive
from corten.engine.records import ContainerRecord
from corten.errors import ArchiveRefused, ImageInUse, ImageInUseById, Invalid, NoSuchImage, NotFound, WrongPlatform
from corten.registry.auth import Credentials
from corten.registry.client import Repository
from corten.registry.progress import Emit, Progress, Pushed, stream
from corten.registry.push import Pusher
from corten.registry.transfer import pull
from corten.spec.digest import encoded, is_digest
from corten.spec.platform import Platform, matches, this_platform
from corten.spec.reference import Reference, parse_reference
from corten.store.blobs import Blobs
from corten.store.image_archive import LoadedImage, read_image_archive
from corten.store.images import Image, Images
from corten.store.layers import Layers
from corten.store.layout import Layout


class NothingToPush(NotFound):
    template = "An image does not exist locally with the tag: {name}"


class NoSuchTag(NotFound):
    template = "tag does not exist: {name}"


_HEX = re.compile(r"[0-9a-f]{4,64}")


class ImageService:
    def __init__(self, layout: Layout, blobs: Blobs, layers: Layers, images: Images, containers: Containers, events: Events) -> None:
        self._layout, self._blobs, self._layers, self._images = layout, blobs, layers, images
        self._containers, self._events = containers, events

    def all(self) -> list[Image]:
        return self._images.all()

    def size(self, image: Image) -> int:
        return self._images.size(image)

    def layer_sizes(self, image: Image) -> list[int]:
        rows = [self._layers.find(diff_id) for diff_id in image.config.rootfs.diff_ids]
        return [row.size if row else 0 for row in rows]

    def users(self, image: Image) -> list[ContainerRecord]:
        return [record for record in self._containers.all() if record.image == image.id]

    def ancestors(self, image: Image) -> list[Image]:
        """What it was made from here, its parent first."""
        found: list[Image] = []
        while image.parent and (parent := self._images.get(image.parent)):
            found.append(parent)
            image = parent
        return found

    def _children(self, image: Image) -> list[Image]:
        return [other for other in self._images.all() if other.parent == image.id]

    def name_of(self, record: ContainerRecord) -> str:
        """The name a container was created with, or its image's id once the name means another image."""
        try:
            return record.config.image if self.find(record.config.image).id == record.image else record.image
        except (NoSuchImage, Invalid):
            return record.image

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
        self._emit("tag", image.id, reference.familiar)

    def remove(self, name: str, *, force: bool) -> list[dict[str, str]]:
        """Untag, and delete when the last name goes. Returns Docker's list of what was untagged and deleted."""
        image = self.find(name)
        by_id = _HEX.fullmatch(name.removeprefix("sha256:")) and encoded(image.id).startswith(name.removeprefix("sha256:"))
        if by_id:
            self._check_remove_by_id(image, force=force)
            names = [*image.tags, *image.digests]
        else:
            names = self._names_to_untag(image, name, force=force)
        report = [{"Untagged": _familiar(full)} for full in names]
        for full in names:
            self._emit("untag", image.id, image.id)
            self._images.untag(full)
        left = self._images.get(image.id)
        if left and not left.tags and (by_id or not left.digests):
            report += self._delete(left)
        return report

    def _delete(self, image: Image) -> list[dict[str, str]]:
        """Unless something needs it; then the images that it was made from, as far as they are left without a name."""
        if self.users(image) or self._children(image):
            return []
        kept = frozenset(diff_id for record in self._containers.all() for diff_id in record.layers)
        gone = self._images.remove(image, kept)
        self._emit("delete", image.id, image.id)
        report = [{"Deleted": image.id}, *({"Deleted": diff_id} for diff_id in gone)]
        parent = self._images.get(image.parent) if image.parent else None
        return report + (self._delete(parent) if parent and not parent.tags and not parent.digests else [])

    def _names_to_untag(self, image: Image, name: str, *, force: bool) -> list[str]:
        reference = parse_reference(name).with_default_tag()
        full = f"{reference.name}@{reference.digest}" if reference.digest else f"{reference.name}:{reference.tag}"
        same_repository = [digest for digest in image.digests if digest.startswith(f"{reference.name}@")]
        other_tags = [tag for tag in image.tags if tag != full]
        last = not other_tags
        if last and not force:
            users = self.users(image)
            if users:
                raise ImageInUse(name=name, container=users[0].short_id, image=encoded(image.id)[:12])
        drop_digests = not any(tag.startswith(f"{reference.name}:") for tag in other_tags)
        return [full, *(same_repository if drop_digests and full not in same_repository else [])]

    def _check_remove_by_id(self, image: Image, *, force: bool) -> None:
        short = encoded(image.id)[:12]
        users = self.users(image)
        running = next((record for record in users if states.is_running(record)), None)
        if running:
            raise ImageInUseById(image=short, how="cannot be forced", why=f"image is being used by running container {running.short_id}")
        if self._children(image):
            raise ImageInUseById(image=short, how="cannot be forced", why="image has dependent child images")
        if len({tag.rpartition(":")[0] for tag in image.tags}) > 1 and not force:
            raise ImageInUseById(image=short, how="must be forced", why="image is referenced in multiple repositories")
        if users and not force:
            raise ImageInUseById(image=short, how="must be forced", why=f"image is being used by stopped container {users[0].short_id}")

    async def load(self, path: str) -> list[str]:
        """Load an archive from a file. Returns what to call each image. Raises ArchiveRefused; nothing half stays."""
        loaded = await asyncio.to_thread(read_image_archive, path, self._blobs)
        return [await self._finish(image) for image in loaded]

    async def _finish(self, image: LoadedImage) -> str:
        try:
            for blob, diff_id in image.layers:
                await self._layers.unpack(blob, diff_id)
        except ArchiveRefused:
            self._discard(image)
            raise
        self._images.store(image.id, image.manifest, image.names)
        for name in image.names or (image.id,):
            self._emit("load", image.id, _familiar(name))
        return _familiar(image.names[0]) if image.names else image.id

    def _discard(self, image: LoadedImage) -> None:
        """A refused archive's blobs, unless a good image has them too."""
        for digest in {image.id, image.manifest.digest, *(blob for blob, _ in image.layers)} - self._images.used_blobs():
            self._blobs.remove(digest)

    async def pull(self, reference: Reference, credentials: Credentials, platform: Platform | None) -> AsyncIterator[Progress | Pushed]:
        wanted = platform or this_platform()
        async with Repository(reference, credentials) as remote:
            async for progress in stream(lambda emit: pull(reference, remote, wanted, self._blobs, self._layers, self._images, emit)):
                yield progress
        image_id = self._images.resolve(reference)
        if image_id:
            self._emit("pull", image_id, reference.with_default_tag().familiar, actor=reference.with_default_tag().familiar)

    async def push(self, reference: Reference, credentials: Credentials) -> AsyncIterator[Progress | Pushed]:
        """One tag, or without a tag every tag of the repository. Raises NoSuchTag and what the registry refuses."""
        yield Progress(f"The push refers to repository [{reference.familiar_name}]")
        tags = {parse_reference(full).tag: image for image in self._images.all() for full in image.tags
                if parse_reference(full).name == reference.name}  # fmt: skip
        if not tags:
            raise NothingToPush(name=reference.familiar_name)
        if reference.tag and reference.tag not in tags:
            raise NoSuchTag(name=reference.familiar)
        for tag in [reference.tag] if reference.tag else sorted(tags):
            image = tags[tag]
            mountable = tuple(self._repositories_with(image, reference))
            async with Repository(reference, credentials, push=True, mountable=mountable) as remote:

                async def work(emit: Emit, remote: Repository = remote, image: Image = image, tag: str = tag,
                               mountable: tuple[str, ...] = mountable) -> None:  # fmt: skip
                    pusher = Pusher(remote, self._blobs, self._layers, self._images, mountable, emit)
                    digest = await pusher.push(image, tag)
                    self._images.tag(image.id, f"{reference.name}@{digest}")

                async for progress in stream(work):
                    yield progress
            self._emit("push", image.id, replace(reference, tag=tag).familiar, actor=replace(reference, tag=tag).familiar)

    def _repositories_with(self, image: Image, reference: Reference) -> list[str]:
        """Other repositories of the registry that are known to have layers of the image."""
        layers = set(image.config.rootfs.diff_ids)
        found = {parse_reference(full) for other in self._images.all() if layers & set(other.config.rootfs.diff_ids) for full in other.digests}
        return sorted({there.path for there in found if there.domain == reference.domain and there.path != reference.path})

    async def load_hello(self) -> str:
        """Assemble Corten's own image and store it as `hello`."""
        path = f"{self._layout.temporary}/hello.tar"
        with open(path, "wb") as file:
            file.write(hello_archive(this_platform()))
        return (await self.load(path))[0]

    def _emit(self, action: str, image_id: str, name: str, actor: str = "") -> None:
        self._events.emit("image", action, actor or image_id, name=name)


def _familiar(full: str) -> str:
    return full if is_digest(full) else parse_reference(full).familiar


def check_platform(image: Image, wanted: Platform, called: str) -> None:
    """Raises WrongPlatform if the stored image is for another platform."""
    own = Platform(image.config.architecture, image.config.os or "linux", image.config.variant)
    if not matches(wanted, own):
        raise WrongPlatform(name=called, own=own, wanted=wanted)
