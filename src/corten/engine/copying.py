"""`docker cp`, `docker export` and their kin: stat, tar out and tar in of a container's root, by workers of the launcher (copy_job.py)."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import msgspec

from corten.engine import mounts, states
from corten.engine.containers import Containers
from corten.engine.copy_job import CopyRequest, PathStat, Point, ReadOnly, Refused
from corten.engine.mounting import Mounting
from corten.engine.records import ContainerRecord
from corten.errors import ArchiveRefused, CortenError, Invalid, KernelRefused, NoSuchPath, OtherKind
from corten.runtime.launch import Launch
from corten.spec.runtime import Mount
from corten.store.layout import Layout
from corten.store.snapshots import Snapshots
from corten.store.worker_stream import read_from_worker, write_to_worker

COPY_JOB = "copy"
_NOT_FOUND, _NOT_A_DIRECTORY = 2, 20
_NETWORK_FILES = ("hosts", "hostname", "resolv.conf")
# What a worker raised -> what the client is told.
_ERRORS: dict[str, type[CortenError]] = {
    ArchiveRefused.__name__: Invalid, ReadOnly.__name__: Invalid, Refused.__name__: CortenError, OtherKind.__name__: CortenError,
}  # fmt: skip


class NotADirectory(Invalid):
    template = "extraction point is not a directory"


@dataclass(frozen=True)
class _View:
    """Where a container's root is to be seen: in its own mounts, or by mounting it."""

    pid: int
    mounts: list[Mount]
    inside: list[Mount]


class Copying:
    def __init__(self, containers: Containers, snapshots: Snapshots, mounting: Mounting, layout: Layout, launch: Launch) -> None:
        self._containers, self._snapshots, self._mounting = containers, snapshots, mounting
        self._layout, self._launch = layout, launch

    # --- the view
    @asynccontextmanager
    async def _view(self, record: ContainerRecord, *, bare: bool = False) -> AsyncIterator[_View]:
        """What the worker needs to see the root; `bare` without what is mounted in it.

        A stopped container's volumes are mounted for as long as the block lasts, and it cannot start meanwhile.
        """
        if states.is_running(record) or bare or not record.mounts:
            yield self._plain_view(record, bare=bare)
            return
        async with self._containers.lock(record.id):
            record = self._containers.find(record.id)
            if states.is_running(record):
                yield self._plain_view(record, bare=False)
                return
            try:
                entries = [entry for entry in await self._mounting.mount(record) if entry.type != "tmpfs"]
                view = self._plain_view(record, bare=False)
                yield _View(0, view.mounts, mounts.in_order([*entries, *view.inside]))
            finally:
                await self._mounting.unmount(record)

    def _plain_view(self, record: ContainerRecord, *, bare: bool) -> _View:
        if states.is_running(record):
            return _View(record.state.pid, [], [])
        folder = self._layout.container(record.id)
        files = [] if bare else [name for name in _NETWORK_FILES if os.path.exists(f"{folder}/{name}")]
        inside = [Mount(f"/etc/{name}", "bind", f"{folder}/{name}", ["bind"]) for name in files]
        return _View(0, self._snapshots.mounts(record.id, record.diff_ids), inside)

    def _request(self, record: ContainerRecord, view: _View, action: str, path: str, *, no_overwrite: bool = False, owner: str = "") -> bytes:
        points = [Point(mount.destination, mount.rw) for mount in record.mounts]
        points += [Point(target, "ro" not in options.split(",")) for target, options in (record.host_config.tmpfs or {}).items()]
        points += [Point(f"/etc/{name}") for name in _NETWORK_FILES]
        request = CopyRequest(
            action, path, view.pid, self._snapshots.root(record.id), view.mounts, view.inside, points,
            record.host_config.readonly_rootfs, no_overwrite, owner,
        )  # fmt: skip
        return msgspec.json.encode(request)

    async def _run(self, record: ContainerRecord, called: str, path: str, argument: bytes, fds: tuple[int, ...]) -> bytes:
        try:
            return await self._launch.run_job(COPY_JOB, argument, fds)
        except KernelRefused as error:
            raise translate(error, NoSuchPath(path=path, name=called or record.name)) from None

    # --- out
    async def stat(self, record: ContainerRecord, path: str, called: str) -> PathStat:
        """Raises NoSuchPath."""
        async with self._view(record) as view:
            found = await self._run(record, called, path, self._request(record, view, "stat", path), ())
        return msgspec.json.decode(found, type=PathStat)

    async def pack(self, record: ContainerRecord, path: str, called: str) -> AsyncGenerator[bytes, None]:
        """The tar in pieces. Call stat() first: a path that is not there is an error before the first byte."""
        async with self._view(record) as view:
            async with aclosing(self._read(record, called, path, self._request(record, view, "pack", path))) as pieces:
                async for data in pieces:
                    yield data
        self._containers.emit("archive-path", record)

    async def export(self, record: ContainerRecord) -> AsyncGenerator[bytes, None]:
        """The whole root as a tar in pieces, without what is mounted in it. Raises what states.py says."""
        states.check("export", record)
        async with self._view(record, bare=True) as view:
            async with aclosing(self._read(record, record.name, "/", self._request(record, view, "export", "/"))) as pieces:
                async for data in pieces:
                    yield data
        self._containers.emit("export", record)

    def _read(self, record: ContainerRecord, called: str, path: str, argument: bytes) -> AsyncGenerator[bytes, None]:
        return read_from_worker(lambda output: self._run(record, called, path, argument, (output,)))

    # --- in
    async def extract(self, record: ContainerRecord, path: str, called: str, data: AsyncIterator[bytes], *, no_overwrite: bool,
                      as_user: bool) -> None:  # fmt: skip
        """`as_user`: all of it belongs to the container's user. Raises NoSuchPath, NotADirectory, Invalid for what is no tar."""
        async with self._view(record) as view:
            owner = record.config.user if as_user else ""
            argument = self._request(record, view, "extract", path, no_overwrite=no_overwrite, owner=owner)
            await write_to_worker(lambda source: self._run(record, called, path, argument, (source,)), data)
        self._containers.emit("extract-to-dir", record)


def translate(error: KernelRefused, missing: CortenError) -> CortenError:
    """What the client is told; `missing` if there is no such path."""
    if error.errno == _NOT_FOUND:
        return missing
    if error.errno == _NOT_A_DIRECTORY:
        return NotADirectory()
    known = _ERRORS.get(error.operand)
    return known(error.reason) if known else error
