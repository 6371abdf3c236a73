"""Making layers here: from a container's writable layer, or from any tar.

The work is done by confined workers (layer_diff.py, unpack.py). Nothing is visible before it is whole. What is made is kept as its folder only:
its tar is made again when somebody wants it (layer_tars.py), and packed when a registry does.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Sequence

import msgspec

from corten.errors import CortenError, KernelRefused
from corten.store.layer_seal import Sealed, SealRequest
from corten.store.layers import Layers
from corten.store.unpack import PLAIN
from corten.store.workers import PIPE_BUFFER, RunJob

DIFF_JOB, SEAL_JOB = "diff", "seal"
EMPTY_LAYER = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"  # 1024 zero bytes: a tar's end


class LayerMaker:
    def __init__(self, layers: Layers, run_job: RunJob) -> None:
        self._layers, self._run_job = layers, run_job

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
            unpacked = await self._layers.take_in(reading, PLAIN, writer, EMPTY_LAYER)
        except CortenError:
            (failed,) = await asyncio.gather(writer, return_exceptions=True)  # without its reader it ends
            if isinstance(failed, KernelRefused) and failed.errno != errno.EPIPE:
                raise failed from None  # what could not be read comes before what came of that
            raise
        return unpacked.diff_id, unpacked.length

    async def from_tar(self, path: str) -> tuple[str, int]:
        """A tar in any compression as an image layer: (diff id, bytes of its tar). Raises ArchiveRefused."""
        unpacked = await self._layers.take_in(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return unpacked.diff_id, unpacked.length

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
            self._layers.adopt(upper, sealed.diff_id, sealed.size, sealed.length)
