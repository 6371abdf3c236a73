"""Images in and out: archives loaded, registries pulled from and pushed to."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace

from corten.engine.hello import hello_archive
from corten.engine.images import ImageService, familiar
from corten.errors import ArchiveRefused, Conflict, CortenError, NotFound
from corten.registry.auth import Credentials
from corten.registry.client import Repository
from corten.registry.hosts import RegistryHosts
from corten.registry.progress import Emit, Progress, Pushed, stream
from corten.registry.push import Pusher
from corten.registry.transfer import pull
from corten.registry.trust import Trust
from corten.spec.platform import Platform, matches, this_platform
from corten.spec.reference import Reference, parse_reference
from corten.spec.trust import Rule
from corten.store.blobs import Blobs
from corten.store.holds import Holds
from corten.store.image_archive import LoadedImage, read_image_archive
from corten.store.images import Image, Images
from corten.store.layers import Layers
from corten.store.layout import Layout
from corten.store.sweeping import Sweeping

_log = logging.getLogger("corten.engine")


class NothingToPush(NotFound):
    template = "An image does not exist locally with the tag: {name}"


class NoSuchTag(NotFound):
    template = "tag does not exist: {name}"


class SeveralHere(Conflict):
    template = "multiple matching manifests found but no specific platform requested"


class ImageTransfers:
    def __init__(self, layout: Layout, blobs: Blobs, layers: Layers, images: Images, service: ImageService, holds: Holds,
                 sweeping: Sweeping, hosts: RegistryHosts, trust: Trust) -> None:  # fmt: skip
        self._layout, self._blobs, self._layers, self._images = layout, blobs, layers, images
        self._service, self._holds, self._sweeping, self._hosts, self._trust = service, holds, sweeping, hosts, trust

    async def load(self, path: str, platforms: Sequence[Platform] = ()) -> list[str]:
        """Load an archive from a file. Returns what to call each image. Raises ArchiveRefused, PlatformMissing; nothing half stays."""
        with self._holds.lease():
            loaded = await asyncio.to_thread(read_image_archive, path, self._blobs, platforms)
            return list(dict.fromkeys([name for image in loaded for name in await self._finish(image)]))

    async def _finish(self, image: LoadedImage) -> list[str]:
        try:
            for blob, diff_id in image.layers:
                await self._layers.unpack(blob, diff_id)
        except ArchiveRefused:  # what came of it goes when the lease ends, unless a good image has it too
            self._sweeping.release([diff_id for _, diff_id in image.layers], {image.id, image.manifest.digest, *(blob for blob, _ in image.layers)})
            raise
        parent = image.parent if image.parent and self._images.get(image.parent) else ""
        self._images.store(image.id, image.manifest, image.names, parent, image.listed)
        for name in image.names or (image.id,):
            self._service.emit("load", image.id, familiar(name))
        return [familiar(name) for name in image.names or (image.id,)]

    async def pull(self, reference: Reference, credentials: Credentials, platform: Platform | None) -> AsyncGenerator[Progress | Pushed, None]:
        """From the first place that has it. A mirror that has not, is not there or lies is passed over; it never sees the credentials.

        Without tag and digest every tag of the repository.
        """
        wanted = platform or this_platform()
        for endpoint in self._hosts.endpoints(reference.domain):
            try:
                async with Repository(reference, Credentials() if endpoint.is_mirror else credentials, endpoint) as remote:
                    tags = [reference.tag] if reference.tag or reference.digest else await remote.tags()
                    for tagged in [replace(reference, tag=tag) for tag in tags]:
                        rule = await self._trust.rule_for(tagged)
                        async with aclosing(self._pull_from(remote, tagged, wanted, rule)) as transfer:
                            async for progress in transfer:
                                yield progress
                break
            except CortenError as error:
                if not endpoint.is_mirror:
                    raise
                _log.warning("the mirror %s does not give %s: %s", endpoint.bases[0], reference.familiar, error.message)

    async def _pull_from(self, remote: Repository, reference: Reference, platform: Platform,
                         rule: Rule | None) -> AsyncGenerator[Progress | Pushed, None]:  # fmt: skip
        def work(emit: Emit) -> Awaitable[None]:
            return pull(reference, remote, platform, self._blobs, self._layers, self._images, emit, rule)

        with self._holds.lease():
            async with aclosing(stream(work)) as transfer:
                async for progress in transfer:
                    yield progress
        image_id = self._images.resolve(reference)
        if image_id:
            self._service.emit("pull", image_id, reference.familiar, actor=reference.familiar)

    async def registry_manifest(self, reference: Reference, credentials: Credentials) -> tuple[bytes, str, str]:
        """What the registry itself says, nothing stored: (document, media type, digest)."""
        async with Repository(reference, credentials, self._hosts.origin(reference.domain)) as remote:
            return await remote.manifest(reference.digest or reference.tag)

    async def push(self, reference: Reference, credentials: Credentials, platform: Platform | None) -> AsyncGenerator[Progress | Pushed, None]:
        """One tag, or without a tag every tag of the repository. Raises NoSuchTag, WrongPlatform and what the registry refuses."""
        yield Progress(f"The push refers to repository [{reference.familiar_name}]")
        tags = sorted({known.tag for image in self._images.all() for full in image.tags if (known := parse_reference(full)).name == reference.name})
        if not tags:
            raise NothingToPush(name=reference.familiar_name)
        if reference.tag and reference.tag not in tags:
            raise NoSuchTag(name=reference.familiar)
        for tag in [reference.tag] if reference.tag else tags:
            tagged = replace(reference, tag=tag)
            with self._holds.lease():
                async with aclosing(self._push_tag(tagged, credentials, platform)) as transfer:
                    async for progress in transfer:
                        yield progress
            self._service.emit("push", self._service.find(tagged.familiar).id, tagged.familiar, actor=tagged.familiar)

    async def _push_tag(self, tagged: Reference, credentials: Credentials, platform: Platform | None) -> AsyncGenerator[Progress | Pushed, None]:
        image = self._service.find(tagged.familiar, platform)
        target = "" if platform else self._images.target(tagged)
        members = self._whole_index(target) if target else {}
        mountable = tuple(self._repositories_with([image, *members.values()], tagged))
        async with Repository(tagged, credentials, self._hosts.origin(tagged.domain), push=True, mountable=mountable) as remote:

            async def work(emit: Emit) -> None:
                pusher = Pusher(remote, self._blobs, self._layers, self._images, mountable, emit)
                digest = await (pusher.push_index(target, members, tagged.tag) if members else pusher.push(image, tagged.tag))
                self._images.tag(image.id, f"{tagged.name}@{digest}", target if digest == target else "")

            async with aclosing(stream(work)) as transfer:
                async for progress in transfer:
                    yield progress

    def _whole_index(self, target: str) -> dict[str, Image]:
        """The images of an index by its entries, if all that it lists are here. Else what goes out is what the name means by itself.

        Raises SeveralHere where that would be a choice between others' platforms.
        """
        here = {manifest: image for manifest, image_id in self._images.members(target).items() if (image := self._images.get(image_id))}
        if len(here) == len(self._images.index(target).manifests):
            return here
        if len(here) > 1 and not any(matches(this_platform(), image.config.platform) for image in here.values()):
            raise SeveralHere
        return {}

    def _repositories_with(self, images: Iterable[Image], reference: Reference) -> list[str]:
        """Other repositories of the registry that are known to have layers of the images."""
        layers = {diff_id for image in images for diff_id in image.config.rootfs.diff_ids}
        found = {parse_reference(full) for other in self._images.all() if layers & set(other.config.rootfs.diff_ids) for full in other.digests}
        return sorted({there.path for there in found if there.domain == reference.domain and there.path != reference.path})

    async def load_hello(self) -> str:
        """Assemble Corten's own image and store it as `hello`."""
        with tempfile.NamedTemporaryFile(dir=self._layout.temporary, suffix=".tar") as file:
            file.write(hello_archive(this_platform()))
            file.flush()
            return (await self.load(file.name))[0]
