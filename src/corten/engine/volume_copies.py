"""Corten's own with volumes: clone, snapshot and load. A copy is whole before it has a name; a crash leaves none.

Files share their blocks where the file system can (btrfs, xfs with reflink): the kernel does that by itself in copy_file_range(2).
A volume that is written to meanwhile is copied file by file as it is read.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress

import msgspec

from corten.engine import volume_local
from corten.engine.copy_up import COPY_UP_JOB
from corten.engine.copy_up_job import CopyUpRequest
from corten.engine.copying import COPY_JOB
from corten.engine.records import VolumeRecord
from corten.engine.volume_drivers import ANONYMOUS, LOCAL, SNAPSHOT_OF
from corten.engine.volume_files import folder_request
from corten.engine.volumes import Volumes
from corten.errors import ArchiveRefused, Conflict, CortenError, Invalid, KernelRefused, VolumeInUse
from corten.registry.progress import Emit, Progress
from corten.runtime.launch import Launch
from corten.spec.runtime import Mount
from corten.store.layout import Layout
from corten.store.sizes import tree_size
from corten.store.volumes import VolumeFolders
from corten.store.worker_stream import read_from_worker, write_to_worker

COPIED_NOT = (ANONYMOUS, SNAPSHOT_OF)  # labels that say what a volume is, not what is in it: a copy of it is something else


class VolumeCopies:
    def __init__(self, layout: Layout, folders: VolumeFolders, volumes: Volumes, launch: Launch) -> None:
        self._layout, self._folders, self._volumes, self._launch = layout, folders, volumes, launch

    async def clone(self, name: str, new: str, labels: Mapping[str, str] | None = None, emit: Emit | None = None) -> VolumeRecord:
        """A new volume with the content of `name`, and its labels. `emit` hears how far it is. Raises NoSuchVolume, Invalid, Conflict."""
        record = self._plain(name)

        async def fill(staging: str) -> None:
            data = await self._volumes.mount(name, user := f"clone to {new}")
            folder = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                await self._copy(data, folder, new, emit)
            finally:
                os.close(folder)
                await self._volumes.unmount(name, user)

        kept = {key: value for key, value in (record.labels or {}).items() if key not in COPIED_NOT}
        return await self._new(new, fill, {**kept, **(labels or {})} or None)

    async def _copy(self, data: str, folder: int, new: str, emit: Emit | None) -> None:
        argument = msgspec.json.encode(CopyUpRequest(Mount("", "bind", data, ["bind"]), self._layout.temporary, "/"))
        if emit is None:
            await self._launch.run_job(COPY_UP_JOB, argument, (folder,))
            return
        emit(Progress("Copying", new))
        total = await asyncio.to_thread(tree_size, data)
        async for counts in read_from_worker(lambda news: self._launch.run_job(COPY_UP_JOB, argument, (folder, news))):
            emit(Progress("Copying", new, int.from_bytes(counts[-8:], "big"), total))
        emit(Progress("Copied", new))

    async def snapshot(self, name: str, new: str, keep: int, emit: Emit | None = None) -> VolumeRecord:
        """A clone that says of what it is one; of those, only the newest `keep` stay (0: all). One that is in use stays."""
        new = new or f"{name}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
        made = await self.clone(name, new, {SNAPSHOT_OF: name}, emit)
        mine = sorted(self._volumes.snapshots(name), key=lambda record: record.created)
        for old in mine[: len(mine) - keep] if keep else []:
            with suppress(VolumeInUse):
                await self._volumes.remove(old.name)
        return made

    async def load(self, new: str, data: AsyncIterator[bytes], labels: Mapping[str, str] | None = None) -> VolumeRecord:
        """A new volume with what a tar holds. Raises Invalid for what is no tar, or leads out; Conflict."""

        async def fill(staging: str) -> None:
            argument = folder_request(self._layout, "extract", "/", staging)
            try:
                await write_to_worker(lambda source: self._launch.run_job(COPY_JOB, argument, (source,)), data)
            except KernelRefused as error:
                raise Invalid(f"load {new}: {error.reason}") if error.operand == ArchiveRefused.__name__ else error from None

        return await self._new(new, fill, labels)

    def check_new(self, new: str) -> None:
        """Raises Invalid, Conflict for a name that no new volume can have."""
        try:
            volume_local.check(new, {})
        except Invalid as error:
            raise Invalid(f"create {new}: {error.message}") from None
        if any(record.name == new for record in self._volumes.all()):
            raise Conflict(f"create {new}: there is a volume of that name")

    async def _new(self, new: str, fill: Callable[[str], Awaitable[None]], labels: Mapping[str, str] | None) -> VolumeRecord:
        self.check_new(new)
        staging = f"{self._layout.temporary}/volume-copy-{secrets.token_hex(8)}"
        self._folders.stage(staging)
        try:
            await fill(f"{staging}/_data")
            return await self._volumes.take_in(new, staging, labels)
        except OSError as error:
            raise CortenError(f"create {new}: {error.strerror}") from None
        finally:
            await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)

    def _plain(self, name: str) -> VolumeRecord:
        record = self._volumes.find(name)
        if record.driver != LOCAL or record.options:
            raise Invalid(f"clone {name}: only local volumes without driver options are cloned; save it and load it under another name")
        return record
