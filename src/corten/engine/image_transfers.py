"""Images in and out: archives loaded, registries pulled from and pushed to."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from corten.engine.hello import hello_archive
from corten.engine.images import ImageService, familiar
from corten.errors import ArchiveRefused, CortenError, NotFound
from corten.registry.auth import Credentials
from corten.registry.client import Repository
from corten.registry.hosts import RegistryHosts
from corten.registry.progress import Emit, Progress, Pushed, stream
from corten.registry.push import Pusher
from corten.registry.transfer import pull
from corten.registry.trust import Trust
from corten.spec.platform import Platform, this_platform
from corten.spec.reference import Reference, parse_reference
from corten.spec.trust import Rule
from corten.store.blobs import Blobs
from corten.store.image_archive import LoadedImage, read_image_archive
from corten.store.images import Image, Images
from corten.store.layers import Layers
from corten.store.layout import Layout

_log = logging.getLogger("corten.engine")


class NothingToPush(NotFound):
    template = "An image does not exist locally with the tag: {name}"


class NoSuchTag(NotFound):
    template = "tag does not exist: {name}"


class ImageTransfers:
    def __init__(self, layout: Layout, blobs: Blobs, layers: Layers, images: Images, service: ImageService, hosts: RegistryHosts,
                 trust: Trust) -> None:  # fmt: skip
        self._layout, self._blobs, self._layers, self._images = layout, blobs, layers, images
        self._service, self._hosts, self._trust = service, hosts, trust

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
        parent = image.parent if image.parent and self._images.get(image.parent) else ""
        self._images.store(image.id, image.manifest, image.names, parent)
        for name in image.names or (image.id,):
            self._service.emit("load", image.id, familiar(name))
        return familiar(image.names[0]) if image.names else image.id

    def _discard(self, image: LoadedImage) -> None:
        """A refused archive's blobs, unless a good image has them too."""
        for digest in {image.id, image.manifest.digest, *(blob for blob, _ in image.layers)} - self._images.used_blobs():
            self._blobs.remove(digest)

    async def pull(self, reference: Reference, credentials: Credentials, platform: Platform | None) -> AsyncGenerator[Progress | Pushed, None]:
        """From the first place that has it. A mirror that has not, is not there or lies is passed over; it never sees the credentials."""
        wanted, rule = platform or this_platform(), await self._trust.rule_for(reference)
        endpoints = self._hosts.endpoints(reference.domain)
        for endpoint in endpoints:
            try:
                async with Repository(reference, Credentials() if endpoint.is_mirror else credentials, endpoint) as remote:
                    async with aclosing(self._pull_from(remote, wanted, rule)) as transfer:
                        async for progress in transfer:
                            yield progress
                break
            except CortenError as error:
                if not endpoint.is_mirror:
                    raise
                _log.warning("the mirror %s does not give %s: %s", endpoint.bases[0], reference.familiar, error.message)
        image_id = self._images.resolve(reference)
        if image_id:
            self._service.emit("pull", image_id, reference.with_default_tag().familiar, actor=reference.with_default_tag().familiar)

    def _pull_from(self, remote: Repository, platform: Platform, rule: Rule | None) -> AsyncGenerator[Progress | Pushed, None]:
        return stream(lambda emit: pull(remote.reference, remote, platform, self._blobs, self._layers, self._images, emit, rule))

    async def registry_manifest(self, reference: Reference, credentials: Credentials) -> tuple[bytes, str, str]:
        """What the registry itself says, nothing stored: (document, media type, digest)."""
        async with Repository(reference, credentials, self._hosts.origin(reference.domain)) as remote:
            return await remote.manifest(reference.digest or reference.tag)

    async def push(self, reference: Reference, credentials: Credentials) -> AsyncGenerator[Progress | Pushed, None]:
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
            async with Repository(reference, credentials, self._hosts.origin(reference.domain), push=True, mountable=mountable) as remote:

                async def work(emit: Emit, remote: Repository = remote, image: Image = image, tag: str = tag,
                               mountable: tuple[str, ...] = mountable) -> None:  # fmt: skip
                    pusher = Pusher(remote, self._blobs, self._layers, self._images, mountable, emit)
                    digest = await pusher.push(image, tag)
                    self._images.tag(image.id, f"{reference.name}@{digest}")

                async with aclosing(stream(work)) as transfer:
                    async for progress in transfer:
                        yield progress
            self._service.emit("push", image.id, replace(reference, tag=tag).familiar, actor=replace(reference, tag=tag).familiar)

    def _repositories_with(self, image: Image, reference: Reference) -> list[str]:
        """Other repositories of the registry that are known to have layers of the image."""
        layers = set(image.config.rootfs.diff_ids)
        found = {parse_reference(full) for other in self._images.all() if layers & set(other.config.rootfs.diff_ids) for full in other.digests}
        return sorted({there.path for there in found if there.domain == reference.domain and there.path != reference.path})

    async def load_hello(self) -> str:
        """Assemble Corten's own image and store it as `hello`."""
        with tempfile.NamedTemporaryFile(dir=self._layout.temporary, suffix=".tar") as file:
            file.write(hello_archive(this_platform()))
            file.flush()
            return (await self.load(file.name))[0]
