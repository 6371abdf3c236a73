"""Images made here without a Dockerfile: committed from a container, imported from a tar. As Docker Engine 28.5 makes them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from corten.engine import states
from corten.engine.containers import Containers
from corten.engine.images import ImageService
from corten.engine.records import ContainerRecord
from corten.engine.stopping import Stopping
from corten.engine.system import SERVER_VERSION
from corten.errors import CortenError, Invalid, NoSuchImage
from corten.spec.change_lines import apply_change_lines
from corten.spec.engine import Config, Healthcheck
from corten.spec.image import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    History,
    ImageConfig,
    Manifest,
    RootFS,
    RunConfig,
)
from corten.spec.platform import Platform, this_platform
from corten.spec.reference import Reference, parse_reference
from corten.spec.timestamps import now_ns, rfc3339_nano
from corten.store.blobs import Blobs
from corten.store.holds import Holds
from corten.store.images import Image, Images
from corten.store.layer_maker import EMPTY_LAYER, LayerMaker
from corten.store.snapshots import Snapshots


@dataclass(frozen=True)
class CommitRequest:
    """`config` stands in for the container's own where it is given; `reference` None leaves the image without a name."""

    reference: Reference | None
    author: str
    comment: str
    pause: bool
    config: Config | None
    changes: Sequence[str]


class Making:
    def __init__(self, containers: Containers, service: ImageService, images: Images, blobs: Blobs, maker: LayerMaker,
                 snapshots: Snapshots, stopping: Stopping, holds: Holds) -> None:  # fmt: skip
        self._containers, self._service, self._images, self._blobs = containers, service, images, blobs
        self._maker, self._snapshots, self._stopping, self._holds = maker, snapshots, stopping, holds

    async def commit(self, record: ContainerRecord, request: CommitRequest) -> str:
        """An image of a container's root as it is now; its id. Raises Invalid, what states.py says, NoSuchImage."""
        with self._holds.lease():
            return await self._commit(record, request)

    async def _commit(self, record: ContainerRecord, request: CommitRequest) -> str:
        states.check("commit", record)
        config = merged(apply_change_lines(request.config or record.config, request.changes), record.config)
        layer = await self._freeze_and_copy(record, pause=request.pause)
        parent = self._images.get(record.image)
        if parent is None:
            raise NoSuchImage(name=record.image)
        created = rfc3339_nano(now_ns())
        empty = layer.digest == EMPTY_LAYER
        entry = History(created, " ".join(record.config.cmd or []), request.author, request.comment, empty)
        base = parent.config
        document = ImageConfig(
            architecture=base.architecture, os=base.os, variant=base.variant, created=created, author=request.author,
            config=run_config(config), container=record.id, docker_version=SERVER_VERSION,
            rootfs=RootFS([*base.rootfs.diff_ids, *([] if empty else [layer.digest])]), history=[*(base.history or []), entry],
        )  # fmt: skip
        image_id = self._store(document, None if empty else layer, parent, request.reference, "create")
        name = request.reference.familiar if request.reference else ""
        current = self._containers.current(record.id) or record
        self._containers.emit("commit", current, comment=request.comment, imageID=image_id, imageRef=name)
        return image_id

    async def _freeze_and_copy(self, record: ContainerRecord, *, pause: bool) -> Descriptor:
        """Its writable layer as a layer of an image: a tar that is not packed. Paused only while it is read, unless somebody else has paused it."""
        paused = False
        if pause and states.is_running(record) and not states.is_paused(record):
            with suppress(CortenError):  # it has just ended: then nothing writes any more
                await self._stopping.pause(record)
                paused = True
        try:
            return Descriptor(OCI_LAYER, *await self._maker.from_upper(self._snapshots.upper(record.id)))
        finally:
            if paused:
                with suppress(CortenError):  # killed, removed or resumed meanwhile
                    await self._stopping.unpause(record)

    async def import_tar(self, path: str, reference: Reference | None, platform: Platform | None, message: str, changes: Sequence[str]) -> str:
        """An image of one layer from a tar in any compression; its id. Raises Invalid, ArchiveRefused."""
        config = apply_change_lines(Config(), changes)
        with self._holds.lease():
            layer = Descriptor(OCI_LAYER, *await self._maker.from_tar(path))
            created, place = rfc3339_nano(now_ns()), platform or this_platform()
            document = ImageConfig(
                architecture=place.architecture, os=place.os, variant=place.variant, created=created, comment=message,
                config=run_config(config), docker_version=SERVER_VERSION, rootfs=RootFS([layer.digest]),
                history=[History(created=created, comment=message)],
            )  # fmt: skip
            return self._store(document, layer, None, reference, "import")

    def _store(self, document: ImageConfig, layer: Descriptor | None, parent: Image | None, reference: Reference | None, action: str) -> str:
        """Write config and manifest, and make the image visible."""
        data = msgspec.json.encode(document)
        image_id = self._blobs.put(data)
        below = self._images.manifest(parent).layers if parent else []
        docker = parent is not None and parent.row.media_type == DOCKER_MANIFEST  # one manifest does not mix the two vocabularies
        if layer and docker:
            layer = msgspec.structs.replace(layer, media_type=DOCKER_LAYER)
        manifest = Manifest(
            config=Descriptor(DOCKER_CONFIG if docker else OCI_CONFIG, image_id, len(data)),
            layers=[*below, *([layer] if layer else [])],
            media_type=DOCKER_MANIFEST if docker else OCI_MANIFEST,
        )
        written = msgspec.json.encode(manifest)
        names = [f"{reference.name}:{reference.tag}"] if reference else []
        self._images.store(image_id, Descriptor(manifest.media_type, self._blobs.put(written), len(written)), names, parent.id if parent else "",
                           made_here=True)  # fmt: skip
        if action == "create":
            self._service.emit(action, image_id, image_id)
        if reference:
            self._service.emit("tag", image_id, reference.familiar)
        if action == "import":
            self._service.emit(action, image_id, image_id)
        return image_id


def repository_and_tag(repository: str, tag: str) -> Reference | None:
    """Raises Invalid with Docker's texts; None without a repository."""
    if not repository:
        return None
    reference = parse_reference(repository)
    if reference.digest:
        raise Invalid("cannot import digest reference")
    if tag:
        try:
            return parse_reference(f"{reference.name}:{tag}")
        except Invalid:
            raise Invalid("invalid tag format") from None
    return reference.with_default_tag()


def run_config(config: Config) -> RunConfig:
    """Of a container's config, what an image keeps."""
    health = msgspec.to_builtins(config.healthcheck) if config.healthcheck else None
    return RunConfig(
        user=config.user, env=config.env, cmd=_words(config.cmd), entrypoint=_words(config.entrypoint), working_dir=config.working_dir,
        exposed_ports=config.exposed_ports, volumes=config.volumes, labels=config.labels, stop_signal=config.stop_signal,
        stop_timeout=config.stop_timeout, on_build=config.on_build, shell=config.shell, healthcheck=health, args_escaped=config.args_escaped,
    )  # fmt: skip


def _words(value: list[str] | str | None) -> list[str] | None:
    return [value] if isinstance(value, str) else value


def merged(config: Config, base: Config) -> Config:
    """Where `config` says nothing, `base` holds (moby daemon/commit.go): an entrypoint of its own drops the base's command."""
    own = {entry.partition("=")[0] for entry in config.env or []}
    changes: dict[str, object] = {
        "user": config.user or base.user,
        "exposed_ports": {**(base.exposed_ports or {}), **(config.exposed_ports or {})} or None,
        "env": [*(config.env or []), *(entry for entry in base.env or [] if entry.partition("=")[0] not in own)] or None,
        "labels": {**(base.labels or {}), **(config.labels or {})},
        "healthcheck": _merged_health(config.healthcheck, base.healthcheck),
        "working_dir": config.working_dir or base.working_dir,
        "volumes": {**(base.volumes or {}), **(config.volumes or {})} or None,
        "stop_signal": config.stop_signal or base.stop_signal,
    }
    if not config.entrypoint:
        changes["cmd"] = config.cmd or base.cmd
        changes["entrypoint"] = base.entrypoint if config.entrypoint is None else config.entrypoint
    return msgspec.structs.replace(config, **changes)


def _merged_health(own: Healthcheck | None, base: Healthcheck | None) -> Healthcheck | None:
    if own is None or base is None:
        return own or base
    return Healthcheck(**{info.name: getattr(own, info.name) or getattr(base, info.name) for info in msgspec.structs.fields(Healthcheck)})
