"""Making layers here: from a container's writable layer, or from any tar.

The work is done by confined workers (layer_diff.py). Nothing is visible before it is whole. A writable layer's copy is kept as its folder
only: its tar is made again when somebody wants it (layer_seal.py), and packed when a registry does.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from corten.errors import ArchiveRefused, CortenError, KernelRefused
from corten.store.blobs import Blobs
from corten.store.layer_diff import MadeLayer
from corten.store.layer_seal import Sealed, SealRequest
from corten.store.layers import PIPE_BUFFER, Layers, RunJob, run_on_archive
from corten.store.layout import Layout

DIFF_JOB, REPACK_JOB, SEAL_JOB = "diff", "repack", "seal"
EMPTY_LAYER = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"  # 1024 zero bytes: a tar's end


class LayerMaker:
    def __init__(self, layout: Layout, blobs: Blobs, layers: Layers, run_job: RunJob) -> None:
        self._layout, self._blobs, self._layers, self._run_job = layout, blobs, layers, run_job

    async def from_upper(self, upper: str) -> tuple[str, int]:
        """A copy of a writable layer as an image layer; one that is there already is shared. (Diff id, bytes of its tar); of EMPTY_LAYER
        nothing is stored.
        """
        reading, writing = os.pipe2(os.O_CLOEXEC)
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BUFFER)
        folder = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        writer = asyncio.ensure_future(self._run_job(DIFF_JOB, b"", (folder, writing)))
        await asyncio.sleep(0)  # the job's own copies of the descriptors are made in its first step
        os.close(folder)
        os.close(writing)
        try:
            unpacked = await self._layers.take_in(reading, writer, EMPTY_LAYER)
        except CortenError:
            (failed,) = await asyncio.gather(writer, return_exceptions=True)  # without its reader it ends
            if isinstance(failed, KernelRefused) and failed.errno != errno.EPIPE:
                raise failed from None  # what could not be read comes before what came of that
            raise
        return unpacked.diff_id, unpacked.length

    async def from_tar(self, path: str) -> MadeLayer:
        """A tar in any compression as an image layer. Raises ArchiveRefused."""
        folder = f"{self._layout.temporary}/empty-{secrets.token_hex(8)}"
        os.mkdir(folder)
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return await self._make(REPACK_JOB, folder, (source,))
        finally:
            os.close(source)
            os.rmdir(folder)

    async def seal(self, upper: str, below: Sequence[str], newest: int, began: int) -> Sealed:
        """A writable layer becomes an image layer in its place: its folder is moved, and no blob is written. Times after `newest`, and those
        since it was begun, become that (nanoseconds). `below` are the folders that it lies on, topmost first. EMPTY_LAYER: nothing was stored.
        """
        fds = [os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for folder in below]
        fds.insert(0, os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        try:
            sealed = msgspec.json.decode(await self._run_job(SEAL_JOB, msgspec.json.encode(SealRequest(newest, began)), fds), type=Sealed)
        finally:
            for fd in fds:
                os.close(fd)
        self.adopt(upper, sealed)
        return sealed

    def adopt(self, upper: str, sealed: Sealed) -> None:
        """Take a sealed folder in, unless its layer is there. The caller removes what is left at `upper`."""
        if sealed.diff_id != EMPTY_LAYER:
            self._layers.adopt(upper, sealed.diff_id, sealed.size)

    async def _make(self, entry: str, folder: str, sources: Sequence[int]) -> MadeLayer:
        """Run a job that writes a gzipped layer, confined to `folder`, and take in what it wrote."""
        path = f"{self._layout.temporary}/layer-{secrets.token_hex(8)}.gz"
        output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            made = msgspec.json.decode(await run_on_archive(self._run_job, entry, (*sources, folder_fd, output)), type=MadeLayer)
            await asyncio.to_thread(os.fsync, output)
            os.rename(path, self._layout.blob(made.digest))
        finally:
            os.close(output)
            os.close(folder_fd)
            with suppress(FileNotFoundError):
                os.unlink(path)
        try:
            await self._layers.unpack(made.digest, made.diff_id)
        except ArchiveRefused:
            self._blobs.remove(made.digest)
            raise
        return made
