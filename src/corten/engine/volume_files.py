"""Single paths of volumes, in and out without a container: stat, tar out and tar in, by the workers of `docker cp` (copy_job.py).

The worker has the volume as its root, in a mount namespace of its own: what a container that uses the volume swaps for a link
meanwhile leads nowhere else.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import msgspec

from corten.engine.copy_job import CopyRequest, PathStat, Point
from corten.engine.copying import COPY_JOB, translate
from corten.engine.volumes import Volumes
from corten.errors import KernelRefused, NoSuchVolumePath
from corten.runtime.launch import Launch
from corten.spec.runtime import Mount
from corten.store.layout import Layout
from corten.store.worker_stream import read_from_worker, write_to_worker

WHOLE = "/."  # the path that means all of a volume's content


def folder_request(layout: Layout, action: str, path: str, folder: str, *, no_overwrite: bool = False) -> bytes:
    """A job of the copy worker on a plain folder."""
    root = layout.temporary  # any folder: the worker mounts on it where only it sees that
    return msgspec.json.encode(
        CopyRequest(action, path, 0, root, [Mount("", "bind", folder, ["bind"])], [], [Point("/")], no_overwrite=no_overwrite)
    )


class VolumeFiles:
    def __init__(self, layout: Layout, volumes: Volumes, launch: Launch) -> None:
        self._layout, self._volumes, self._launch = layout, volumes, launch

    @asynccontextmanager
    async def _content(self, name: str) -> AsyncIterator[str]:
        """Where the volume's content is, mounted if need be, and not to be removed meanwhile. Raises NoSuchVolume."""
        folder = await self._volumes.mount(name, user := f"copy {secrets.token_hex(4)}")
        try:
            yield folder
        finally:
            await self._volumes.unmount(name, user)

    async def _run(self, name: str, path: str, argument: bytes, *fds: int) -> bytes:
        try:
            return await self._launch.run_job(COPY_JOB, argument, fds)
        except KernelRefused as error:
            raise translate(error, NoSuchVolumePath(path=path, name=name)) from None

    async def stat(self, name: str, path: str) -> PathStat:
        """Raises NoSuchVolume, NoSuchVolumePath."""
        async with self._content(name) as folder:
            return msgspec.json.decode(await self._run(name, path, folder_request(self._layout, "stat", path, folder)), type=PathStat)

    async def pack(self, name: str, path: str) -> AsyncGenerator[bytes, None]:
        """The tar in pieces. Call stat() first: a path that is not there is an error before the first byte."""
        async with self._content(name) as folder:
            argument = folder_request(self._layout, "pack", path, folder)
            async with aclosing(read_from_worker(lambda output: self._run(name, path, argument, output))) as pieces:
                async for piece in pieces:
                    yield piece

    async def extract(self, name: str, path: str, data: AsyncIterator[bytes], *, no_overwrite: bool) -> None:
        """Into the folder `path`. Raises NoSuchVolume, NoSuchVolumePath, NotADirectory, Invalid for what is no tar."""
        async with self._content(name) as folder:
            argument = folder_request(self._layout, "extract", path, folder, no_overwrite=no_overwrite)
            await write_to_worker(lambda source: self._run(name, path, argument, source), data)
