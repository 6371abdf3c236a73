"""`docker cp` and its kin: stat, tar out and tar in of a container's root, by workers of the launcher (copy_job.py)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import msgspec

from corten.engine import states
from corten.engine.containers import Containers
from corten.engine.copy_job import CopyRequest, PathStat
from corten.engine.records import ContainerRecord
from corten.errors import CortenError, Invalid, KernelRefused, NoSuchPath
from corten.runtime.launch import Launch
from corten.store.snapshots import Snapshots

COPY_JOB = "copy"
_CHUNK = 1 << 18
_NOT_FOUND, _NOT_A_DIRECTORY = 2, 20


class NotADirectory(Invalid):
    template = "extraction point is not a directory"


class Copying:
    def __init__(self, containers: Containers, snapshots: Snapshots, launch: Launch) -> None:
        self._containers, self._snapshots, self._launch = containers, snapshots, launch

    def _request(self, record: ContainerRecord, action: str, path: str, *, no_overwrite: bool = False) -> bytes:
        running = states.is_running(record)
        request = CopyRequest(
            action, path, record.state.pid if running else 0, self._snapshots.root(record.id),
            [] if running else self._snapshots.mounts(record.id, record.diff_ids), no_overwrite,
        )  # fmt: skip
        return msgspec.json.encode(request)

    async def _run(self, record: ContainerRecord, called: str, path: str, argument: bytes, fds: tuple[int, ...]) -> bytes:
        try:
            return await self._launch.run_job(COPY_JOB, argument, fds)
        except KernelRefused as error:
            raise _translate(error, path, called or record.name) from None

    async def stat(self, record: ContainerRecord, path: str, called: str) -> PathStat:
        """Raises NoSuchPath."""
        found = await self._run(record, called, path, self._request(record, "stat", path), ())
        return msgspec.json.decode(found, type=PathStat)

    async def pack(self, record: ContainerRecord, path: str, called: str) -> AsyncIterator[bytes]:
        """The tar in pieces. Call stat() first: a path that is not there is an error before the first byte."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        work = asyncio.ensure_future(self._run(record, called, path, self._request(record, "pack", path), (theirs.fileno(),)))
        await asyncio.sleep(0)  # the call holds the descriptor once it has begun
        theirs.close()
        try:
            while data := await asyncio.get_running_loop().sock_recv(ours, _CHUNK):
                yield data
            await work
        finally:
            ours.close()
            await asyncio.wait((work,))  # a client that leaves early ends the worker with a broken pipe
            if not work.cancelled():
                work.exception()
        self._containers.emit("archive-path", record)

    async def extract(self, record: ContainerRecord, path: str, called: str, data: AsyncIterator[bytes], *, no_overwrite: bool) -> None:
        """Raises NoSuchPath, NotADirectory, Invalid for what is no tar."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        argument = self._request(record, "extract", path, no_overwrite=no_overwrite)
        work = asyncio.ensure_future(self._run(record, called, path, argument, (theirs.fileno(),)))
        await asyncio.sleep(0)
        theirs.close()
        loop = asyncio.get_running_loop()
        try:
            async for piece in data:
                await loop.sock_sendall(ours, piece)
            ours.shutdown(socket.SHUT_WR)
        except OSError:
            await asyncio.sleep(0)  # the worker stopped reading: its own error says why
        finally:
            ours.close()
            await work
        self._containers.emit("extract-to-dir", record)


def _translate(error: KernelRefused, path: str, called: str) -> CortenError:
    if error.errno == _NOT_FOUND:
        return NoSuchPath(path=path, name=called)
    if error.errno == _NOT_A_DIRECTORY:
        return NotADirectory()
    if error.operand == "ArchiveRefused":
        return Invalid(error.reason)
    return error

