"""Layers by diff id: unpacking a blob into one, packing one for its way out, and removing what nothing uses."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec

from corten.errors import ArchiveRefused, KernelRefused, StoreCorrupt
from corten.store.blobs import Blobs
from corten.store.database import Database, LayerRow
from corten.store.layout import Layout
from corten.store.packing import PACK_JOB, Packed, Packing
from corten.store.unpack import PLAIN, Unpacked, diff_id_of

RunJob = Callable[[str, bytes, Sequence[int]], Awaitable[bytes]]
UNPACK_JOB, RETAR_JOB = "unpack", "retar"
PIPE_BUFFER = 1 << 20  # a sixteenth of the turns that two processes take at what a pipe has by itself


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


class Layers:
    """`run_job` starts a confined worker (the launcher's, handed in by the composition root)."""

    def __init__(self, layout: Layout, database: Database, blobs: Blobs, run_job: RunJob) -> None:
        self._layout, self._database, self._blobs, self._run_job = layout, database, blobs, run_job
        self._under_way: dict[str, asyncio.Future[LayerRow]] = {}

    def find(self, diff_id: str) -> LayerRow | None:
        return self._database.layer(diff_id)

    def need(self, diff_id: str) -> LayerRow:
        """Of a layer that something stored stands on. Raises StoreCorrupt if it is not there."""
        row = self.find(diff_id)
        if row is None:
            raise StoreCorrupt(f"layer {diff_id} is missing from the store: pull, load or build its image again")
        return row

    async def unpack(self, blob: str, diff_id: str) -> LayerRow:
        """Unpack a blob as the layer `diff_id`; idempotent, and shared by callers at the same time.

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
            running = self._share(diff_id, self._unpack(self._blobs.open(blob), blob, diff_id))
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

    async def _unpack(self, source: int, blob: str, diff_id: str, news: int = -1, verified: Awaitable[bool] | None = None) -> LayerRow:
        """`source` and `news` (descriptors) are closed here."""
        async with self._staged(source, diff_id, news) as (number, staging, unpacked):
            if verified and not await verified:
                raise ArchiveRefused("the layer's download was broken off")
            os.rename(staging, self._layout.layer(number))
        row = LayerRow(number, diff_id, blob, unpacked.size)
        self._database.add_layer(row)
        return row

    async def take_in(self, source: int, whole: Awaitable[object], unwanted: str) -> Unpacked:
        """Unpack a tar that is made while it is read, and keep its folder only, unless its diff id is `unwanted`. `source` (descriptor) is
        closed here. The folder must give the same tar again (layer_diff.py). `whole` is awaited before the layer is seen, and raises if that
        was not all of it.
        """
        async with self._staged(source, argument=PLAIN) as (_, staging, unpacked):
            await whole
            if unpacked.diff_id != unwanted:
                self.adopt(staging, unpacked.diff_id, unpacked.size)
        return unpacked

    @asynccontextmanager
    async def _staged(self, source: int, diff_id: str = "", news: int = -1, argument: bytes = b"") -> AsyncIterator[tuple[int, str, Unpacked]]:
        """(A number for it, a folder with the content unpacked, what it is); what of the folder is not renamed is deleted at the end.

        `diff_id`: what it must be, if that is known. `source` and `news` (descriptors) are closed here.
        """
        staging = ""
        try:
            number = self._database.next_layer_number()
            staging = f"{self._layout.temporary}/layer-{number}"
            os.mkdir(staging, 0o755)
            unpacked = await self._run_worker(source, staging, news, argument)
            if diff_id:
                _compare(unpacked.diff_id, diff_id)
            yield number, staging, unpacked
        finally:
            for fd in (source, news):
                if fd >= 0:
                    os.close(fd)
            if os.path.isdir(staging):
                await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)

    @asynccontextmanager
    async def unpacked_again(self, row: LayerRow) -> AsyncIterator[str]:
        """A folder with the layer's content anew from its blob, for as long as the block lasts. Raises ArchiveRefused."""
        async with self._staged(self._blobs.open(row.blob), row.diff_id) as (_, staging, _unpacked):
            yield staging

    async def renew(self, row: LayerRow) -> None:
        """Put a newly unpacked folder in the layer's place. Nobody may have the old one mounted. Raises ArchiveRefused."""
        folder, old = self._layout.layer(row.number), f"{self._layout.temporary}/old-layer-{row.number}"
        async with self.unpacked_again(row) as staging:
            with suppress(FileNotFoundError):
                os.rename(folder, old)
            os.rename(staging, folder)
        await asyncio.to_thread(shutil.rmtree, old, ignore_errors=True)

    async def _run_worker(self, source: int, staging: str, news: int, argument: bytes) -> Unpacked:
        folder = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fds = (source, folder) if news < 0 else (source, folder, news)
        try:
            result = await run_on_archive(self._run_job, UNPACK_JOB, fds, argument)
        finally:
            os.close(folder)
        return msgspec.json.decode(result, type=Unpacked)

    def adopt(self, folder: str, diff_id: str, size: int) -> None:
        """A sealed folder (layer_seal.py) becomes the layer `diff_id`: moved, not copied. Left where it is if the layer is there already."""
        if self.find(diff_id):
            return
        number = self._database.next_layer_number()
        os.rename(folder, self._layout.layer(number))
        self._database.add_layer(LayerRow(number, diff_id, diff_id, size))

    async def ensure_blob(self, diff_id: str) -> None:
        """Make the tar of a layer that was adopted, if it is not there. Raises StoreCorrupt if its folder is not what it was."""
        row = self.find(diff_id)
        if row is None or row.blob != diff_id or self._blobs.has(diff_id):
            return
        async with self._blobs.exclusive(diff_id):
            if not self._blobs.has(diff_id):
                await self._write_blob(row)

    def tar_is_made(self, digest: str) -> bool:
        """Whether a blob is the tar of a layer that was adopted, and so need not be there."""
        row = self.find(digest)
        return row is not None and row.blob == digest

    async def tar_again(self, row: LayerRow, path: str = os.devnull) -> str:
        """Write the tar of an adopted layer to a new file; the digest that it has."""
        output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        folder = os.open(self._layout.layer(row.number), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return (await self._run_job(RETAR_JOB, b"", (folder, output))).decode()
        finally:
            os.close(output)
            os.close(folder)

    async def _write_blob(self, row: LayerRow) -> None:
        path = f"{self._layout.temporary}/tar-{row.number}"
        try:
            if await self.tar_again(row, path) != row.diff_id:
                raise StoreCorrupt(f"layer {row.diff_id} does not match its digest: remove its image and build it again")
            await asyncio.to_thread(_sync, path)
            os.rename(path, self._layout.blob(row.diff_id))
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)

    # --- packing
    def packing(self, diff_id: str) -> Packed | None:
        """What the layer is when it is gzipped, if that has been found out."""
        found = self._database.packing(diff_id)
        return Packed(*found) if found else None

    def remember_packing(self, diff_id: str, digest: str, size: int) -> None:
        if self.find(diff_id):
            self._database.put_packing(diff_id, digest, size)

    @asynccontextmanager
    async def pack(self, blob: str, packing: Packing | None = None, folder: str = "") -> AsyncIterator[tuple[asyncio.StreamReader, Awaitable[Packed]]]:
        """Gzip a stored tar in a worker: (the packed form, what it was once it has been read). Leaving early ends the worker.

        With a `packing` the blob may be packed itself, and comes out as that says; the worker sees no more than the `folder` then.
        """
        reading, writing = os.pipe2(os.O_CLOEXEC)
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BUFFER)
        reader = asyncio.StreamReader(limit=PIPE_BUFFER)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", buffering=0)
        )
        source = self._blobs.open(blob)
        fds = (source, writing, os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) if packing else (source, writing)
        work = asyncio.ensure_future(self._pack(fds, msgspec.json.encode(packing) if packing else b""))
        try:
            yield reader, work
        finally:
            transport.close()
            await asyncio.gather(work, return_exceptions=True)

    async def _pack(self, fds: Sequence[int], argument: bytes) -> Packed:
        running = asyncio.ensure_future(run_on_archive(self._run_job, PACK_JOB, fds, argument))
        await asyncio.sleep(0)  # the job's own copies of the descriptors are made in its first step
        for fd in fds:
            os.close(fd)
        return msgspec.json.decode(await running, type=Packed)

    def all(self) -> list[LayerRow]:
        return self._database.layers()

    def set_aside(self, row: LayerRow) -> str:
        """Take the layer out of the store: its folder, moved to where start-up empties, for the caller to delete.

        The row goes first: a crash leaves a folder that start-up removes, never a row without one.
        """
        self._database.delete_layer(row.number)
        aside = f"{self._layout.temporary}/removed-layer-{row.number}"
        with suppress(FileNotFoundError):  # somebody has removed it by hand
            os.rename(self._layout.layer(row.number), aside)
        return aside

    def remove_strays(self) -> None:
        """Start-up: folders that no row names."""
        known = {str(row.number) for row in self._database.layers()}
        for name in os.listdir(self._layout.layers):
            if name not in known:
                shutil.rmtree(f"{self._layout.layers}/{name}", ignore_errors=True)


async def run_on_archive(run_job: RunJob, entry: str, fds: Sequence[int], argument: bytes = b"") -> bytes:
    """Run a worker; what it refuses of an archive is the client's error: ArchiveRefused."""
    try:
        return await run_job(entry, argument, fds)
    except KernelRefused as error:
        if error.operand == ArchiveRefused.__name__:
            raise ArchiveRefused(error.reason) from None
        raise


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _compare(actual: str, wanted: str) -> None:
    if actual != wanted:
        raise ArchiveRefused(f"the layer's content is {actual}, its config says {wanted}")
