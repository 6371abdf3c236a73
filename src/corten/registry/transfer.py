"""Pull: copy an image from a registry into the store, saying what it does.

The name is written last: an interrupted pull is invisible, and the blobs and layers that are complete are found again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from corten.errors import ArchiveRefused, CortenError, KernelRefused, NotFound, RegistryError
from corten.registry import attestations, trust
from corten.registry.blob_download import fetch_blob, receive
from corten.registry.client import Repository
from corten.registry.progress import Emit, Progress, first_error
from corten.registry.upload import has_blob
from corten.spec.attestations import about
from corten.spec.digest import encoded
from corten.spec.image import FOREIGN_MARKS, MOST_LAYERS, Descriptor, Index, Manifest, parse_config, parse_manifest
from corten.spec.platform import Platform, matches
from corten.spec.reference import Reference
from corten.spec.trust import Rule
from corten.store.blobs import Blobs
from corten.store.images import Images, Listed
from corten.store.layers import Layers

_AT_ONCE = 3
_REPORT_EVERY = 1 << 19
_CONFIG_LIMIT = 8 << 20


class NoMatchingPlatform(NotFound):
    template = "no matching manifest for {platform} in the manifest list entries"


async def pull(reference: Reference, remote: Repository, platform: Platform, blobs: Blobs, layers: Layers,
               images: Images, emit: Emit, rule: Rule | None = None) -> None:  # fmt: skip
    """Copy one image, if the trust policy's rule for it lets it pass.

    Raises what the registry refuses, ArchiveRefused for what is not what it says, both naming image and registry, and Untrusted.
    """
    try:
        await _pull(reference.with_default_tag(), remote, platform, blobs, layers, images, emit, rule)
    except (ArchiveRefused, RegistryError, KernelRefused, OSError, ExceptionGroup) as failed:
        raise named(first_error(failed), reference.with_default_tag(), remote.host) from None


def named(error: Exception, reference: Reference, host: str) -> Exception:
    """What went wrong with which image, at which registry."""
    what = f"{reference.familiar} from {host}"
    match error:
        case ArchiveRefused():
            return ArchiveRefused(f"{what}: {error.message}")
        case RegistryError():
            return RegistryError(f"{what}: {error.message}", status=error.http_status)
        case KernelRefused():
            return CortenError(f"{what}: {error.message}")
        case OSError():
            return CortenError(f"{what}: the store cannot be written: {error.strerror}")
    return error


async def _pull(wanted: Reference, remote: Repository, platform: Platform, blobs: Blobs, layers: Layers,
                images: Images, emit: Emit, rule: Rule | None) -> None:  # fmt: skip
    label = wanted.tag or wanted.digest
    emit(Progress(f"Pulling from {wanted.path}", label))
    data, media_type, top_digest = await remote.manifest(wanted.digest or wanted.tag)
    if remote.rate_limit:
        emit(Progress(f"Rate limit of {remote.host}: {remote.rate_limit}"))
    document, digests, index = parse_manifest(data, media_type), [top_digest], b""
    listed: Listed | None = None
    attested: list[Descriptor] = []
    if isinstance(document, Index):
        chosen, index = _choose(document, platform), data
        attested = about(document, chosen.digest)
        listed = Listed(top_digest, chosen.digest)
        data, media_type, digest = await remote.manifest(chosen.digest)
        if len(data) != chosen.size:
            raise ArchiveRefused(f"manifest {digest} has {len(data)} bytes, and the index says {chosen.size}")
        document = parse_manifest(data, media_type or chosen.media_type)
        digests.append(digest)
        if isinstance(document, Index):
            raise ArchiveRefused(f"the index {top_digest} names another index, {chosen.digest}, for {platform}: that is not supported")
    if rule and not await trust.check(remote, wanted, digests, rule, emit) and attested:
        emit(Progress(f"What is attested of {chosen.digest} is left out: only the manifest is vouched for, not the index that lists that ({rule.place})"))
        attested = []
    if index:
        blobs.put(index)
    names = [f"{wanted.name}@{top_digest}"]
    if wanted.tag:
        names.append(f"{wanted.name}:{wanted.tag}")
    known = images.get(document.config.digest)
    if known:  # the same id is the same content, however its layers are packed there
        up_to_date = set(names) <= {*known.tags, *known.digests} and (listed is None or listed.target in known.targets)
        await attestations.fetch(remote, attested, blobs, emit)
        images.renew(known, document, data, media_type or document.media_type)
        images.point(known.id, names, listed)
        for layer in document.layers:
            await _note_origin(remote, layer, wanted.name, blobs, layers)
        for layer in [] if up_to_date else document.layers:
            emit(Progress("Already exists", encoded(layer.digest)[:12]))
    else:
        up_to_date = False
        async with asyncio.TaskGroup() as group:
            group.create_task(attestations.fetch(remote, attested, blobs, emit))
            group.create_task(_fetch_image(remote, wanted.name, document, blobs, layers, emit))
        manifest = Descriptor(media_type or document.media_type, blobs.put(data), len(data))
        images.store(document.config.digest, manifest, names, listed=listed)
    emit(Progress(f"Digest: {top_digest}"))
    how = "Image is up to date" if up_to_date else "Downloaded newer image"
    emit(Progress(f"Status: {how} for {wanted.familiar}"))


def _choose(index: Index, platform: Platform) -> Descriptor:
    candidates = [entry for entry in index.manifests if entry.platform and matches(platform, entry.platform)]
    if not candidates:
        raise NoMatchingPlatform(platform=platform)
    exact = [entry for entry in candidates if entry.platform and entry.platform.variant == platform.variant]
    return (exact or candidates)[0]


async def _fetch_image(remote: Repository, name: str, manifest: Manifest, blobs: Blobs, layers: Layers, emit: Emit) -> None:
    """`name` is the repository's in full."""
    if len(manifest.layers) > MOST_LAYERS:
        raise ArchiveRefused(f"max depth exceeded: the image has {len(manifest.layers)} layers, {MOST_LAYERS} are the most")
    if manifest.config.size > _CONFIG_LIMIT:
        raise ArchiveRefused(f"the config is said to have {manifest.config.size} bytes, {_CONFIG_LIMIT >> 20} MiB are the most")
    for layer in manifest.layers:
        if any(mark in layer.media_type for mark in FOREIGN_MARKS):
            raise ArchiveRefused(f"layer {layer.digest} is a foreign layer ({layer.media_type}): it must not be stored, get the image from its vendor")
    await fetch_blob(remote, manifest.config, blobs)
    config = parse_config(blobs.read(manifest.config.digest))
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        raise ArchiveRefused(f"the manifest has {len(manifest.layers)} layers, the config {len(config.rootfs.diff_ids)}")
    gate = asyncio.Semaphore(_AT_ONCE)

    async def layer_task(layer: Descriptor, diff_id: str) -> None:
        short = encoded(layer.digest)[:12]
        if layers.tars.is_its_blob(layer.digest, diff_id) and (blobs.has(layer.digest) or layers.tars.can_be_had(layer.digest, diff_id)):
            await _note_origin(remote, layer, name, blobs, layers)
            emit(Progress("Already exists", short))
            return
        emit(Progress("Pulling fs layer", short))
        async with gate:
            await _fetch(remote, layer, blobs, emit, layers, diff_id)
            await layers.unpack(layer.digest, diff_id)
            layers.tars.add_origin(layer.digest, name, layer.size)
            emit(Progress("Extracting", short, layer.size, layer.size))
            emit(Progress("Pull complete", short))

    async with asyncio.TaskGroup() as group:
        for layer, diff_id in zip(manifest.layers, config.rootfs.diff_ids, strict=True):
            group.create_task(layer_task(layer, diff_id))


async def _note_origin(remote: Repository, layer: Descriptor, repository: str, blobs: Blobs, layers: Layers) -> None:
    """A manifest says that the registry has a layer that is here. Where no registry is known yet it is asked: a blob may go because of that."""
    known = bool(layers.tars.origins(layer.digest))
    if not known and blobs.has(layer.digest):
        with suppress(CortenError):  # who does not answer that is not known to have it; the pull needs nothing of it
            known = await has_blob(remote, layer.digest)
    if known:
        layers.tars.add_origin(layer.digest, repository, layer.size)


async def _fetch(remote: Repository, blob: Descriptor, blobs: Blobs, emit: Emit, layers: Layers, diff_id: str) -> None:
    """Download a layer if it is not there, and unpack it meanwhile. What an earlier try got is not fetched again."""
    async with blobs.exclusive(blob.digest):
        if blobs.has(blob.digest):
            return
        short = encoded(blob.digest)[:12]
        with await asyncio.to_thread(blobs.resume, blob.digest) as writer:
            async with layers.unpack_growing(writer.reader(), blob.digest, diff_id) as growing:
                reported = writer.size

                def received() -> None:
                    nonlocal reported
                    if growing:
                        growing.more()
                    if writer.size - reported >= _REPORT_EVERY:
                        reported = writer.size
                        emit(Progress("Downloading", short, writer.size, blob.size))

                await receive(remote, blob, writer, received)
                if growing:
                    growing.complete()
                emit(Progress("Verifying Checksum", short))
                await asyncio.to_thread(writer.commit, blob.digest)
                emit(Progress("Download complete", short))
                emit(Progress("Extracting", short, 0, blob.size))
