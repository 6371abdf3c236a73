"""Layers by diff id: unpacking a blob into one, packing one for its way out, and removing what nothing uses."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec

from corten.errors import ArchiveRefused, KernelRefused
from corten.store.blobs import Blobs
from corten.store.database import Database, LayerRow
from corten.store.layout import Layout
from corten.store.packing import PACK_JOB, Packed
from corten.store.unpack import Unpacked, diff_id_of

RunJob = Callable[[str, bytes, Sequence[int]], Awaitable[bytes]]
UNPACK_JOB = "unpack"
_PIPE_BUFFER = 1 << 20


class Layers:
    """`run_job` starts a confined worker (the launcher's, handed in by the composition root)."""

    def __init__(self, layout: Layout, database: Database, blobs: Blobs, run_job: RunJob) -> None:
        self._layout, self._database, self._blobs, self._run_job = layout, database, blobs, run_job
        self._under_way: dict[str, asyncio.Future[LayerRow]] = {}

    def find(self, diff_id: str) -> LayerRow | None:
        return self._database.layer(diff_id)

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
            running = asyncio.ensure_future(self._unpack(blob, diff_id))
            self._under_way[diff_id] = running
            running.add_done_callback(lambda _done: self._under_way.pop(diff_id, None))
        return await asyncio.shield(running)

    async def _unpack(self, blob: str, diff_id: str) -> LayerRow:
        number = self._database.next_layer_number()
        staging = f"{self._layout.temporary}/layer-{number}"
        os.mkdir(staging, 0o755)
        try:
            unpacked = await self._run_worker(blob, staging)
            _compare(unpacked.diff_id, diff_id)
            os.rename(staging, self._layout.layer(number))
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
            raise
        row = LayerRow(number, diff_id, blob, unpacked.size)
        self._database.add_layer(row)
        return row

    async def _run_worker(self, blob: str, staging: str) -> Unpacked:
        blob_fd = self._blobs.open(blob)
        folder_fd = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            result = await self._run_job(UNPACK_JOB, b"", (blob_fd, folder_fd))
        except KernelRefused as error:
            if error.operand == ArchiveRefused.__name__:
                raise ArchiveRefused(error.reason) from None
            raise
        finally:
            os.close(blob_fd)
            os.close(folder_fd)
        return msgspec.json.decode(result, type=Unpacked)

    # --- packing
    def packing(self, diff_id: str) -> Packed | None:
        """What the layer is when it is gzipped, if that has been found out."""
        found = self._database.packing(diff_id)
        return Packed(*found) if found else None

    def remember_packing(self, diff_id: str, digest: str, size: int) -> None:
        if self.find(diff_id):
            self._database.put_packing(diff_id, digest, size)

    @asynccontextmanager
    async def pack(self, blob: str) -> AsyncIterator[tuple[asyncio.StreamReader, Awaitable[Packed]]]:
        """Gzip a stored tar in a worker: (the packed form, what it was once it has been read). Leaving early ends the worker."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        reader = asyncio.StreamReader(limit=_PIPE_BUFFER)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", buffering=0)
        )
        source = self._blobs.open(blob)
        work = asyncio.ensure_future(self._pack(source, writing))
        try:
            yield reader, work
        finally:
            transport.close()
            await asyncio.gather(work, return_exceptions=True)

    async def _pack(self, source: int, target: int) -> Packed:
        running = asyncio.ensure_future(self._run_job(PACK_JOB, b"", (source, target)))
        await asyncio.sleep(0)  # the job's own copies of the descriptors are made in its first step
        os.close(source)
        os.close(target)
        return msgspec.json.decode(await running, type=Packed)

    def remove(self, row: LayerRow) -> None:
        """The row goes first: a crash leaves a folder that start-up removes, never a row without one."""
        self._database.delete_layer(row.number)
        shutil.rmtree(self._layout.layer(row.number), ignore_errors=True)

    def remove_strays(self) -> None:
        """Start-up: folders that no row names."""
        known = {str(row.number) for row in self._database.layers()}
        for name in os.listdir(self._layout.layers):
            if name not in known:
                shutil.rmtree(f"{self._layout.layers}/{name}", ignore_errors=True)


def _compare(actual: str, wanted: str) -> None:
    if actual != wanted:
        raise ArchiveRefused(f"the layer's content is {actual}, its config says {wanted}")
