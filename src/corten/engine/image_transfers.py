"""Images in and out: archives loaded, registries pulled from and pushed to."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import replace

from corten.engine.hello import hello_archive
from corten.engine.images import ImageService, familiar
from corten.errors import ArchiveRefused, Conflict, CortenError, NoSuchImage, NotFound, RegistryError
from corten.registry.auth import Credentials
from corten.registry.client import Repository, Unreachable
from corten.registry.hosts import Endpoint, RegistryHosts
from corten.registry.looking_up import Published, look_up
from corten.registry.progress import Emit, Progress, Pushed, stream
from corten.registry.push import Pusher
from corten.registry.refetch import Refetching
from corten.registry.search import Found, search
from corten.registry.transfer import named, pull
from corten.registry.trust import Trust
from corten.spec.digest import encoded
from corten.spec.image import Descriptor
from corten.spec.platform import Platform, matches, this_platform
from corten.spec.reference import Reference, parse_reference
from corten.spec.trust import Rule
from corten.store.blobs import Blobs
from corten.store.holds import Holds
from corten.store.image_archive import LoadedImage, read_image_archive
from corten.store.images import Image, Images, Listed
from corten.store.layers import Layers
from corten.store.layout import Layout
from corten.store.sweeping import Sweeping
from corten.store.worker_stream import read_in_thread

_log = logging.getLogger("corten.engine")


class NothingToPush(NotFound):
    template = "An image does not exist locally with the tag: {name}"


class NoSuchTag(NotFound):
    template = "tag does not exist: {name}"


class SeveralHere(Conflict):
    template = "multiple matching manifests found but no specific platform requested"


def _open(reference: Reference, credentials: Credentials, endpoint: Endpoint) -> Repository:
    """A mirror never sees the credentials."""
    return Repository(reference, Credentials() if endpoint.is_mirror else credentials, endpoint)


@asynccontextmanager
async def _opened(reference: Reference, credentials: Credentials, endpoint: Endpoint) -> AsyncIterator[Repository]:
    """To pull from: a registry that gives no token is told with the image that was wanted."""
    async with AsyncExitStack() as stack:
        try:
            remote = await stack.enter_async_context(_open(reference, credentials, endpoint))
        except Unreachable:
            raise
        except (ArchiveRefused, RegistryError) as error:
            raise named(error, reference, endpoint.host) from None
        yield remote


async def _tags(remote: Repository, reference: Reference) -> list[str]:
    try:
        return await remote.tags()
    except (ArchiveRefused, RegistryError) as error:
        raise named(error, reference, remote.host) from None


def _pass_over(mirror: Endpoint, reference: Reference, error: CortenError) -> None:
    """A mirror that has not, is not there or lies: the next place is asked. Raises the registry's own error."""
    if not mirror.is_mirror:
        raise error
    _log.warning("the mirror %s does not give %s: %s", mirror.bases[0], reference.familiar, error.message)


class ImageTransfers:
    def __init__(self, layout: Layout, blobs: Blobs, layers: Layers, images: Images, service: ImageService, holds: Holds,
                 sweeping: Sweeping, hosts: RegistryHosts, trust: Trust, refetching: Refetching) -> None:  # fmt: skip
        self._layout, self._blobs, self._layers, self._images = layout, blobs, layers, images
        self._service, self._holds, self._sweeping, self._hosts, self._trust = service, holds, sweeping, hosts, trust
        self._refetching = refetching

    async def load(self, pieces: AsyncIterator[bytes], platforms: Sequence[Platform] = (), emit: Emit = lambda _progress: None, *,
                   partial: bool = False) -> list[str]:  # fmt: skip
        """Load an archive as it arrives, of a `partial` one what the store lacks. Returns what to call each image. Raises ArchiveRefused, PlatformMissing; nothing half stays."""
        folder = f"{self._layout.temporary}/archive-{secrets.token_hex(8)}"
        os.mkdir(folder)
        try:
            with self._holds.lease():
                spare = self._layers.tars.spare() if partial else frozenset()
                loaded = await read_in_thread(pieces, lambda source: read_image_archive(source, folder, self._blobs, platforms, partial=partial, spare=spare))
                return list(dict.fromkeys([name for image in loaded for name in await self._finish(image, emit)]))
        finally:
            await asyncio.to_thread(shutil.rmtree, folder)

    async def _finish(self, image: LoadedImage, emit: Emit) -> list[str]:
        try:
            for blob, diff_id in image.layers:
                if self._layers.find(diff_id):
                    if not self._layers.tars.is_its_blob(blob, diff_id):
                        await self._layers.unpack(blob, diff_id)
                    continue
                short, size = encoded(diff_id)[:12], self._blobs.size(blob)
                emit(Progress("Loading layer", short, 0, size))
                await self._layers.unpack(blob, diff_id)
                emit(Progress("Loading layer", short, size, size))
        except ArchiveRefused:  # what came of it goes when the lease ends, unless a good image has it too
            self._sweeping.release([diff_id for _, diff_id in image.layers], {image.id, image.manifest.digest, *image.attested, *(blob for blob, _ in image.layers)})
            raise
        parent = image.parent if image.parent and self._images.get(image.parent) else ""
        self._images.store(image.id, image.manifest, image.names, parent, image.listed)
        for name in image.names or (image.id,):
            self._service.emit("load", image.id, familiar(name))
        return [familiar(name) for name in image.names or (image.id,)]

    async def pull(self, reference: Reference, credentials: Credentials, platform: Platform | None) -> AsyncGenerator[Progress | Pushed, None]:
        """From the first place that has it and is trusted with it; without tag and digest every tag of the repository."""
        wanted = platform or this_platform()
        for endpoint in self._hosts.endpoints(reference.domain):
            try:
                async with _opened(reference, credentials, endpoint) as remote:
                    tags = [reference.tag] if reference.tag or reference.digest else await _tags(remote, reference)
                    for tagged in [replace(reference, tag=tag) for tag in tags]:
                        rule = await self._trust.rule_for(tagged)
                        async with aclosing(self._pull_from(remote, tagged, wanted, rule)) as transfer:
                            async for progress in transfer:
                                yield progress
                break
            except CortenError as error:
                _pass_over(endpoint, reference, error)

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

    async def look_up(self, reference: Reference, credentials: Credentials) -> Published:
        """What a mirror or the registry has under the reference; nothing is stored."""
        for endpoint in self._hosts.endpoints(reference.domain):
            try:
                async with _open(reference, credentials, endpoint) as remote:
                    return await look_up(remote, reference)
            except CortenError as error:
                _pass_over(endpoint, reference, error)
        raise AssertionError("the last place is the registry itself, whose error is raised")

    async def search(self, term: str, limit: int, credentials: Credentials) -> list[Found]:
        """Raises Invalid, RegistryError."""
        return await search(term, limit, credentials, self._hosts)

    def check_platform(self, reference: Reference, platform: Platform) -> None:
        """Before a push: an image that is here, but not for the platform, is refused as such. Raises WrongPlatform."""
        with suppress(NoSuchImage):
            self._service.find(reference.familiar, platform)

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

            def bring_back(blob: Descriptor) -> Awaitable[str]:
                return self._refetching.bring_back(blob, credentials, tagged.domain)

            async def work(emit: Emit) -> None:
                pusher = Pusher(remote, self._blobs, self._layers, self._images, mountable, bring_back, emit)
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
        attested = {one.entry.digest for manifest in here for one in self._images.attestations(Listed(target, manifest))}
        if all(entry.digest in here or entry.digest in attested for entry in self._images.index(target).manifests):
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

        async def pieces() -> AsyncIterator[bytes]:
            yield hello_archive(this_platform())

        return (await self.load(pieces()))[0]
