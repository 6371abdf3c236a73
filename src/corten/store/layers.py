"""Layers by diff id: unpacking a blob into one, taking in what was made here, and removing what nothing uses. Their tars are layer_tars.py's."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import msgspec

from corten.errors import ArchiveRefused, StoreCorrupt
from corten.store.blobs import Blobs
from corten.store.database import Database, LayerRow, TarRow
from corten.store.layer_tars import LayerTars
from corten.store.layout import Layout
from corten.store.unpack import PLAIN, Unpacked, diff_id_of
from corten.store.workers import RunJob, run_on_archive

UNPACK_JOB = "unpack"


class Growing:
    """The downloader's hold on a layer that is unpacked while it arrives."""

    def __init__(self, telling: int, verified: asyncio.Future[bool]) -> None:
        self._telling, self.verified = telling, verified

    def more(self) -> None:
        """Something has been written."""
        with suppress(BlockingIOError, BrokenPipeError):  # the worker has news enough to read, or has ended: its error is told at the end
            os.write(self._telling, b"+")

    def complete(self) -> None:
        """Nothing more will be. Idempotent."""
        if self._telling >= 0:
            os.close(self._telling)
            self._telling = -1


@dataclass(frozen=True)
class Staged:
    """A layer that is not seen yet: the paths of its folder and of its record."""

    number: int
    folder: str
    record: str
    unpacked: Unpacked


class Layers:
    """`run_job` starts a confined worker (the launcher's, handed in by the composition root)."""

    def __init__(self, layout: Layout, database: Database, blobs: Blobs, run_job: RunJob) -> None:
        self._layout, self._database, self._blobs, self._run_job = layout, database, blobs, run_job
        self.tars = LayerTars(layout, database, blobs, run_job)
        self._under_way: dict[str, asyncio.Future[LayerRow]] = {}

    def find(self, diff_id: str) -> LayerRow | None:
        return self._database.layer(diff_id)

    def need(self, diff_id: str) -> LayerRow:
        """Of a layer that something stored stands on. Raises StoreCorrupt if it is not there."""
        row = self.find(diff_id)
        if row is None:
            raise StoreCorrupt(f"layer {diff_id} is missing from the store: pull, load or build its image again")
        return row

    async def unpack(self, blob: str, diff_id: str, *, as_tar: bool = False) -> LayerRow:
        """Unpack a blob as the layer `diff_id`; idempotent, and shared by callers at the same time.

        `as_tar`: nobody will want it packed as the blob is; the layer is to stand for a plain tar, if its folder gives that.

        Raises ArchiveRefused if the content is corrupt or is not `diff_id`; nothing is left behind then.
        """
        found = self.find(diff_id)
        if found:
            if found.blob != blob:
                # Another packing of a layer that is here already: believed only if it holds the same.
                actual = await asyncio.to_thread(diff_id_of, self._layout.blob(blob))
                _compare(actual, diff_id)
            return found
        running = self._under_way.get(diff_id)
        if running is None:
            running = self._share(diff_id, self._unpack(self._blobs.open(blob), blob, diff_id, as_tar=as_tar))
        return await asyncio.shield(running)

    @asynccontextmanager
    async def unpack_growing(self, source: int, blob: str, diff_id: str) -> AsyncIterator[Growing | None]:
        """Unpack a blob while the body of the `async with` downloads it; `source` (descriptor) reads what has been written so far.

        The body calls `more` after every write and `complete` after the last, and ends with the blob verified: only then
        does the layer become visible. None where the layer is there, or is being made by somebody else: `unpack` it later.
        """
        if self.find(diff_id) or diff_id in self._under_way:
            os.close(source)
            yield None
            return
        listening, telling = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(listening, True)
        growing = Growing(telling, asyncio.get_running_loop().create_future())
        running = self._share(diff_id, self._unpack(source, blob, diff_id, listening, growing.verified))
        try:
            yield growing
            growing.verified.set_result(True)
            await running
        finally:
            growing.complete()
            if not growing.verified.done():
                growing.verified.set_result(False)
            await asyncio.gather(running, return_exceptions=True)

    def _share(self, diff_id: str, work: Coroutine[None, None, LayerRow]) -> asyncio.Future[LayerRow]:
        running = asyncio.ensure_future(work)
        self._under_way[diff_id] = running
        running.add_done_callback(lambda _done: self._under_way.pop(diff_id, None))
        return running

    async def _unpack(self, source: int, blob: str, diff_id: str, news: int = -1, verified: Awaitable[bool] | None = None,
                      *, as_tar: bool = False) -> LayerRow:  # fmt: skip
        """`source` and `news` (descriptors) are closed here."""
        async with self._staged(source, diff_id, news) as staged:
            if verified and not await verified:
                raise ArchiveRefused("the layer's download was broken off")
            return self._keep(staged, diff_id if as_tar and staged.unpacked.recorded else blob)

    async def take_in(self, source: int, argument: bytes = b"", whole: Awaitable[object] | None = None, unwanted: str = "") -> Unpacked:
        """Unpack what has no blob (an archive, or with the argument PLAIN a tar that is made while it is read), unless its diff id is `unwanted`
        or its layer is there. `source` (descriptor) is closed here. `whole` is awaited before the layer is seen, and raises if that was not
        all. Raises ArchiveRefused.
        """
        async with self._staged(source, argument=argument) as staged:
            if whole:
                await whole
            unpacked = staged.unpacked
            if not unpacked.recorded and argument != PLAIN:  # then the tar of its folder is what the layer is
                made = await self.tars.of_folder(staged.folder)
                unpacked = msgspec.structs.replace(unpacked, diff_id=made.digest, length=made.length)
            if unpacked.diff_id != unwanted and not self.find(unpacked.diff_id):
                self._keep(replace(staged, unpacked=unpacked), unpacked.diff_id)
        return unpacked

    def _keep(self, staged: Staged, blob: str) -> LayerRow:
        unpacked = staged.unpacked
        if unpacked.recorded:
            os.rename(staged.record, self._layout.record(staged.number))
        os.rename(staged.folder, self._layout.layer(staged.number))
        row = LayerRow(staged.number, unpacked.diff_id, blob, unpacked.size)
        with self._database.transaction():
            self._database.add_layer(row)
            if unpacked.recorded or (blob == unpacked.diff_id and not self._blobs.has(blob)):
                self._database.put_tar(TarRow(unpacked.diff_id, unpacked.length, unpacked.recorded))
        return row

    @asynccontextmanager
    async def _staged(self, source: int, diff_id: str = "", news: int = -1, argument: bytes = b"") -> AsyncIterator[Staged]:
        """What is not renamed is deleted at the end. `diff_id`: what it must be, if that is known. `source` and `news` (descriptors) are closed
        here.
        """
        folder = record = ""
        try:
            number = self._database.next_layer_number()
            folder, record = f"{self._layout.temporary}/layer-{number}", f"{self._layout.temporary}/record-{number}"
            os.mkdir(folder, 0o755)
            unpacked = await self._run_worker(source, folder, record, news, argument)
            if diff_id:
                _compare(unpacked.diff_id, diff_id)
            yield Staged(number, folder, record, unpacked)
        finally:
            for fd in (source, news):
                if fd >= 0:
                    os.close(fd)
            with suppress(FileNotFoundError):
                os.unlink(record)
            if os.path.isdir(folder):
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def record(self, row: LayerRow) -> None:
        """Make the record of a layer that has none (one from before there were records) from its blob. Raises ArchiveRefused."""
        async with self._staged(self._blobs.open(row.blob), row.diff_id) as staged:
            self._put_record(staged, row)

    def _put_record(self, staged: Staged, row: LayerRow) -> None:
        if staged.unpacked.recorded:
            os.rename(staged.record, self._layout.record(row.number))
            self._database.put_tar(TarRow(row.diff_id, staged.unpacked.length, staged.unpacked.recorded))

    async def renew(self, row: LayerRow, blob: str) -> None:
        """Put a newly unpacked folder in the layer's place. Nobody may have the old one mounted. Raises ArchiveRefused."""
        folder, old = self._layout.layer(row.number), f"{self._layout.temporary}/old-layer-{row.number}"
        async with self._staged(self._blobs.open(blob), row.diff_id) as staged:
            with suppress(FileNotFoundError):
                os.rename(folder, old)
            os.rename(staged.folder, folder)
            self._put_record(staged, row)
        await asyncio.to_thread(shutil.rmtree, old, ignore_errors=True)

    async def _run_worker(self, source: int, folder: str, record: str, news: int, argument: bytes) -> Unpacked:
        fds = [source, os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        try:
            fds.append(os.open(record, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            result = await run_on_archive(self._run_job, UNPACK_JOB, fds if news < 0 else [*fds, news], argument)
        finally:
            for fd in fds[1:]:
                os.close(fd)
        return msgspec.json.decode(result, type=Unpacked)

    def adopt(self, folder: str, diff_id: str, size: int, length: int) -> None:
        """A sealed folder (layer_seal.py) becomes the layer `diff_id`: moved, not copied. Left where it is if the layer is there already.

        `length`: its tar's bytes.
        """
        if self.find(diff_id):
            return
        number = self._database.next_layer_number()
        os.rename(folder, self._layout.layer(number))
        with self._database.transaction():
            self._database.add_layer(LayerRow(number, diff_id, diff_id, size))
            self._database.put_tar(TarRow(diff_id, length, 0))

    def all(self) -> list[LayerRow]:
        return self._database.layers()

    def set_aside(self, row: LayerRow) -> str:
        """Take the layer out of the store: its folder, moved to where start-up empties, for the caller to delete.

        The row goes first: a crash leaves a folder that start-up removes, never a row without one.
        """
        self._database.delete_layer(row.number)
        aside = f"{self._layout.temporary}/removed-layer-{row.number}"
        with suppress(FileNotFoundError):  # it may have none
            os.unlink(self._layout.record(row.number))
        with suppress(FileNotFoundError):  # somebody has removed it by hand
            os.rename(self._layout.layer(row.number), aside)
        return aside

    def remove_strays(self) -> None:
        """Start-up: folders and records that no row names."""
        known = {str(row.number) for row in self._database.layers()}
        for name in set(os.listdir(self._layout.records)) - known:
            os.unlink(f"{self._layout.records}/{name}")
        for name in os.listdir(self._layout.layers):
            if name not in known:
                shutil.rmtree(f"{self._layout.layers}/{name}", ignore_errors=True)


def _compare(actual: str, wanted: str) -> None:
    if actual != wanted:
        raise ArchiveRefused(f"the layer's content is {actual}, its config says {wanted}")
