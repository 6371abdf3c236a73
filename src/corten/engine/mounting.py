"""Mounts of containers over their lives: made at creation, mounted before a start, unmounted after the end, removed with `-v`.

What is mounted is mounts.py's decision and stored in the record; here it is done. A source that must not be looked up by its path
again (a subpath) and an image are mounted in a folder of the container's own first, and let go once the container has taken them.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

import msgspec

from corten.engine import idmap, mounts, states
from corten.engine.copy_up import CopyUp, finish
from corten.engine.mounts import Wanted
from corten.engine.records import ContainerRecord, MountRecord
from corten.engine.volume_drivers import LOCAL
from corten.engine.volumes import Volumes
from corten.errors import CortenError, Invalid, KernelRefused, NotFound, VolumeInUse
from corten.linux import mounts as kernel
from corten.linux import syscalls as sys
from corten.linux.overlay import mount_among_threads
from corten.runtime.launch import Launch
from corten.spec.engine import HostConfig
from corten.spec.runtime import Mount
from corten.store.images import Image
from corten.store.layout import Layout
from corten.store.lookup import Found, look_up
from corten.store.snapshots import Snapshots

IMAGE_WARNING = "Image mount is an experimental feature"
_PASSWD_LIMIT = 1 << 24
_log = logging.getLogger("corten.engine")


class NotAccessible(NotFound):
    template = "cannot access path {base}/{subpath}: lstat {missing}: {reason}"


class EscapesBase(Invalid):
    template = 'path concatenation escapes the base directory, base: "{base}", subpath: "{subpath}"'


class WrongPropagation(CortenError):
    template = "path {path} is mounted on {point} but it is not a {wanted} mount"


class Mounting:
    """`find` and `containers` look containers up; their records are the only memory of who mounts what."""

    def __init__(self, layout: Layout, snapshots: Snapshots, volumes: Volumes, copy_up: CopyUp, launch: Launch, find_image: Callable[[str], Image],
                 find: Callable[[str], ContainerRecord], containers: Callable[[], Iterable[ContainerRecord]]) -> None:  # fmt: skip
        self._layout, self._snapshots, self._volumes, self._copy_up = layout, snapshots, volumes, copy_up
        self._launch = launch
        self._find_image, self._find, self._containers = find_image, find, containers

    # --- creation
    async def make(self, container_id: str, host: HostConfig, volumes: Mapping[str, object], diff_ids: list[str]) -> list[MountRecord]:
        """Make the volumes that a new container needs, and fill the empty ones. `keep` or `drop` must follow.

        Raises Invalid and what volumes and images raise; nothing new is left then but named volumes, as Docker leaves them.
        """
        made: list[MountRecord] = []
        try:
            for wanted in mounts.plan(host, volumes, self._layout.root, self._find):
                made.append(await self._make(container_id, wanted, diff_ids))
                if wanted.copy:
                    await self._fill(made[-1], diff_ids)
        except BaseException:
            await self.drop(container_id, made)
            raise
        return made

    async def _make(self, container_id: str, wanted: Wanted, diff_ids: list[str]) -> MountRecord:
        mount = wanted.mount
        if mount.type == "image" and not mount.diff_ids:
            image = self._find_image(mount.name)
            return msgspec.structs.replace(mount, source=image.id, diff_ids=list(image.config.rootfs.diff_ids))
        if mount.type != "volume":
            return mount
        if not mount.name and look_up(self._snapshots.lower(diff_ids), mount.destination).kind == "file":
            raise CortenError(f"cannot mount volume over existing file, file exists {mount.destination}")
        volume = await self._volumes.create(
            mount.name, wanted.driver or mount.driver, wanted.driver_options, wanted.labels, made_for=container_id
        )
        mode = mount.mode if volume.driver == LOCAL or mount.mode != "z" else ""
        return msgspec.structs.replace(mount, name=volume.name, driver=volume.driver, mode=mode)

    async def _fill(self, mount: MountRecord, diff_ids: list[str]) -> None:
        if look_up(self._snapshots.lower(diff_ids), mount.destination).kind == "missing":
            return
        user = f"copy-up of {mount.destination}"
        data = await self._volumes.mount(mount.name, user)
        try:
            with _resolved(data, mount.subpath) as path:
                workplace = path if mount.subpath else self._volumes.workplace(mount.name)
                await self._copy_up.fill(diff_ids, mount.destination, path, workplace)
        except NotFound:
            return  # a subpath that is not there yet: the start will say so
        finally:
            await self._volumes.unmount(mount.name, user)

    def keep(self, container_id: str, made: Iterable[MountRecord]) -> None:
        """The container is stored."""
        for mount in made:
            if mount.type == "volume":
                self._volumes.let_go(mount.name, container_id)

    async def drop(self, container_id: str, made: Iterable[MountRecord]) -> None:
        """The container is not to be: its anonymous volumes go."""
        for mount in made:
            if mount.type == "volume":
                self._volumes.let_go(mount.name, container_id)
                if not mount.named:
                    await self._remove(mount.name)

    async def _remove(self, name: str) -> None:
        try:
            await self._volumes.remove(name)
        except VolumeInUse:
            return  # another container mounts it too: it goes with the last one
        except CortenError as error:
            _log.warning("anonymous volume %s stays: %s", name, error.message)

    # --- start and end
    async def mount(self, record: ContainerRecord) -> list[Mount]:
        """Mount what a start needs: the entries for the OCI config. `settle` or `unmount` must follow.

        Raises MountFailed, MountConflict, NotAccessible, WrongPropagation, InvalidTmpfsOption.
        """
        if record.host_config.storage_opt:
            self._snapshots.attach(record.id)
        tmpfs = [mounts.tmpfs(target, options) for target, options in (record.host_config.tmpfs or {}).items()]
        covered = {mount.destination for mount in tmpfs}
        stage = Stage(self._layout.staged(record.id))
        found: list[Mount] = []
        for mount in record.mounts:
            if mount.destination not in covered:
                source = await self._source(record, mount, stage)
                if mount.idmap:
                    source = await self._idmapped(record, mount, source, stage)
                found.append(mounts.oci_mount(mount, source))
        return mounts.in_order([*found, *tmpfs])

    async def _source(self, record: ContainerRecord, mount: MountRecord, stage: Stage) -> str:
        if mount.type == "volume":
            data = await self._volumes.mount(mount.name, record.id)
            self._volumes.emit(
                "mount", mount.name, container=record.id, destination=mount.destination, propagation=mount.propagation,
                **{"read/write": "true" if mount.rw else "false"},
            )  # fmt: skip
            return stage.subpath(data, mount.subpath) if mount.subpath else data
        if mount.type == "image":
            view = stage.view(self._snapshots.view(mount.diff_ids))
            return stage.subpath(view, mount.subpath) if mount.subpath else view
        if mount.type == "container":
            return stage.view(self._snapshots.frozen(mount.source, mount.diff_ids))
        if mount.type == "bind":
            _prepare_bind(mount, self._layout.root)
        return mount.source

    async def _idmapped(self, record: ContainerRecord, mount: MountRecord, source: str, stage: Stage) -> str:
        root = [self._snapshots.upper(record.id), *self._snapshots.below(record.diff_ids)]
        texts = [_content(look_up(root, path)) for path in ("/etc/passwd", "/etc/group")]
        point = stage.point(directory=os.path.isdir(source))
        await idmap.mount(self._launch, source, point, idmap.wanted_user(mount.idmap, record, *texts))
        return point

    def settle(self, record: ContainerRecord) -> None:
        """The container has its mounts (or will not get any): what was only on the way to it is let go. Idempotent."""
        if record.mounts:
            Stage(self._layout.staged(record.id)).clear()

    async def unmount(self, record: ContainerRecord) -> None:
        """The container has ended. Idempotent."""
        self.settle(record)
        for mount in record.mounts:
            if mount.type == "volume" and await self._volumes.unmount(mount.name, record.id):
                self._volumes.emit("unmount", mount.name, container=record.id)

    # --- removal
    async def remove(self, record: ContainerRecord) -> None:
        """The record is gone: so are its anonymous volumes, unless another container mounts them."""
        await asyncio.gather(*(self._remove(mount.name) for mount in record.mounts if mount.type == "volume" and not mount.named))

    # --- start-up
    async def restore(self) -> None:
        """Containers that run hold their volumes; whatever else a crash left mounted is let go."""
        for record in self._containers():
            if record.host_config.storage_opt:
                with suppress(OSError):  # its start will say what is wrong
                    self._snapshots.attach(record.id)
            if states.is_running(record):
                for mount in record.mounts:
                    if mount.type == "volume":
                        self._volumes.hold(mount.name, record.id)
        for container_id in os.listdir(self._layout.staging):
            Stage(self._layout.staged(container_id)).clear()
        await self._volumes.restore()
        for volume in self._volumes.all():
            if volume.driver == LOCAL and not volume.options:
                finish(self._volumes.path(volume), self._volumes.workplace(volume.name))

    def let_go(self) -> None:
        """The engine ends: the layers of containers that do not run are not left mounted."""
        for record in self._containers():
            if record.host_config.storage_opt and not states.is_running(record):
                with suppress(OSError):  # somebody looks into it: the next engine finds it mounted
                    self._snapshots.detach(record.id)


def warnings(made: Iterable[MountRecord]) -> list[str]:
    """What Docker says at creation."""
    return [IMAGE_WARNING for mount in made if mount.type == "image"][:1]


class Stage:
    """A folder of mount points, numbered. Never walked and removed: below a mount point is somebody's data."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._count = 0

    def point(self, *, directory: bool) -> str:
        """A new folder or file to mount on."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        while os.path.lexists(f"{self._folder}/{self._count}"):
            self._count += 1
        path = f"{self._folder}/{self._count}"
        if directory:
            os.mkdir(path, 0o700)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        return path

    def view(self, view: Mount) -> str:
        """Mount an image's layers; where."""
        point = self.point(directory=True)
        options = kernel.parse_options(view.options or [])
        mount_among_threads(view.source or view.type, point, view.type, options.flags, options.data)
        return point

    def subpath(self, base: str, subpath: str) -> str:
        """Mount what is at `subpath` below `base` at this moment; where. Raises NotAccessible, EscapesBase."""
        fd = open_subpath(base, subpath)
        try:
            point = self.point(directory=os.path.isdir(kernel.fd_path(fd)))
            tree = kernel.clone_tree(fd)
            try:
                kernel.attach_tree(tree, point)
            finally:
                os.close(tree)
            return point
        finally:
            os.close(fd)

    def clear(self) -> None:
        try:
            names = sorted(os.listdir(self._folder), key=int, reverse=True)
        except FileNotFoundError:
            return
        for name in names:
            path = f"{self._folder}/{name}"
            with suppress(OSError):  # made, and nothing mounted on it yet
                sys.umount2(path, sys.MNT_DETACH)
            try:
                os.rmdir(path)
            except NotADirectoryError:
                os.unlink(path)
        os.rmdir(self._folder)


def open_subpath(base: str, subpath: str) -> int:
    """O_PATH descriptor of `subpath`, which stays below `base` whatever is renamed meanwhile. Raises NotAccessible, EscapesBase."""
    subpath = os.path.normpath(subpath)
    folder = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return kernel.open_beneath(folder, subpath)
    except (FileNotFoundError, NotADirectoryError) as error:
        parts = subpath.split("/")
        paths = [f"{base}/{'/'.join(parts[:count])}" for count in range(1, len(parts) + 1)]
        missing = next((path for path in paths if not os.path.lexists(path)), paths[-1])
        raise NotAccessible(base=base, subpath=subpath, missing=missing, reason=(error.strerror or "").lower()) from None
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ELOOP):
            raise EscapesBase(base=base, subpath=subpath) from None
        raise
    finally:
        os.close(folder)


def _content(found: Found) -> str:
    if found.kind != "file":
        return ""
    with open(found.folders[0], encoding="utf-8", errors="replace") as file:
        return file.read(_PASSWD_LIMIT)


@contextmanager
def _resolved(base: str, subpath: str) -> Iterator[str]:
    """A name for a volume's folder, or for one below it, that means the same folder as long as it is held."""
    if not subpath:
        yield base
        return
    fd = open_subpath(base, subpath)
    try:
        yield kernel.fd_path(fd)
    finally:
        os.close(fd)


def _prepare_bind(mount: MountRecord, data_root: str) -> None:
    """Make a missing source where the client lets us; hold a shared or slave bind to what its source's mount is."""
    if mount.create_source:
        try:
            with suppress(FileExistsError, NotADirectoryError):  # a file: the runtime binds it, or says what is wrong
                os.makedirs(mount.source, mode=0o755, exist_ok=True)
        except OSError as error:
            raise KernelRefused(
                operation="error while creating mount source path", operand=f"'{mount.source}'", errno=error.errno or 0,
                reason=f"mkdir {error.filename}: {(error.strerror or '').lower()}",
            ) from None  # fmt: skip
    kind = mount.propagation.removeprefix("r")
    if kind in ("shared", "slave"):
        holder = kernel.mount_holding(mount.source)
        good = any(word.startswith("shared:") or (kind == "slave" and word.startswith("master:")) for word in holder.optional)
        if not good and not (kind == "slave" and (mount.source.startswith(data_root) or data_root.startswith(mount.source))):
            wanted = "shared" if kind == "shared" else "shared or slave"
            raise WrongPropagation(path=mount.source, point=holder.point, wanted=wanted)
