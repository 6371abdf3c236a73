"""The folders of RUN --mount=type=cache: found by id, shared, locked or private, and made from an input the first time.

Beside them lie those of url_files.py, which are counted, held and removed in the same way.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from corten.builder.cache import DOWNLOAD, MOUNT, Cache, CacheRow
from corten.spec.timestamps import now_ns
from corten.store.layout import Layout
from corten.store.locks import NamedLocks
from corten.store.sizes import tree_size

if TYPE_CHECKING:  # an engine that does not build has these folders, too
    from corten.builder.graph import Cache as CacheMount

Seed = Callable[[str], Awaitable[None]]


def folder_name(mount: CacheMount) -> str:
    """Of a private mount the first of its folders."""
    return hashlib.sha256(mount.id.encode()).hexdigest()[:32]


class CacheMounts:
    def __init__(self, layout: Layout, cache: Cache) -> None:
        self._layout, self._cache = layout, cache
        self._locks, self._users = NamedLocks(), Counter[str]()

    @asynccontextmanager
    async def use(self, mount: CacheMount, seed: Seed | None = None) -> AsyncIterator[str]:
        """The folder to mount, for as long as the block lasts. `seed` fills the new folder that it is given.

        shared: with anybody; locked: alone, later ones wait; private: alone, later ones get another folder.
        """
        name = folder_name(mount)
        if mount.sharing == "locked":
            async with self._locks[name]:
                async with self._folder(name, mount, seed) as path:
                    yield path
            return
        if mount.sharing == "private":
            name = next(free for free in self._numbered(name) if not self._users[free])
        async with self._folder(name, mount, seed) as path:
            yield path

    def path(self, name: str) -> str:
        return f"{self._layout.cache_mounts}/{name}"

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """In use, and not to be removed, for the block."""
        self._users[name] += 1
        try:
            yield
        finally:
            self._users[name] -= 1

    async def adopt(self, name: str, folder: str, description: str) -> None:
        """A folder that came from elsewhere, moved; left where it is if there is one already."""
        async with self._locks[f"{name} making"]:
            if not os.path.isdir(self.path(name)):
                os.rename(folder, self.path(name))
                now = now_ns()
                self._cache.put(CacheRow(name, MOUNT, description, "", now, now, 0, folder=name))

    @staticmethod
    def _numbered(name: str) -> list[str]:
        return [name, *(f"{name}-{number}" for number in range(1, 1000))]

    @asynccontextmanager
    async def _folder(self, name: str, mount: CacheMount, seed: Seed | None) -> AsyncIterator[str]:
        path = self.path(name)
        try:
            with self.held(name):
                async with self._locks[f"{name} making"]:
                    if not os.path.isdir(path):
                        await self._make(path, f"{self._layout.temporary}/{name}", mount, seed)
                yield path
        finally:
            self._remember(name, mount)

    async def _make(self, path: str, staging: str, mount: CacheMount, seed: Seed | None) -> None:
        """Whole or not at all."""
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
        os.mkdir(staging)
        if seed:
            await seed(staging)
        os.chown(staging, mount.uid, mount.gid)
        os.chmod(staging, mount.mode)
        os.rename(staging, path)

    def _remember(self, name: str, mount: CacheMount) -> None:
        known, now = self._cache.row(name), now_ns()
        if known:
            self._cache.touch(known)
        else:
            self._cache.put(CacheRow(name, MOUNT, f"cached mount {mount.target} with id {mount.id!r}", "", now, now, 1, folder=name))

    async def saved(self) -> None:
        """A folder has its row as soon as its use ends."""

    def size(self, folder: str) -> int:
        """Bytes. For threads: it walks."""
        return tree_size(self.path(folder))

    def in_use(self, folder: str) -> bool:
        return bool(self._users[folder])

    async def remove(self, folder: str) -> bool:
        """Unless somebody uses it by now."""
        if self.in_use(folder):
            return False
        await asyncio.to_thread(shutil.rmtree, self.path(folder), ignore_errors=True)
        return True

    def sweep(self) -> None:
        """Start-up: folders that no row names."""
        known = {row.folder for row in self._cache.rows() if row.kind in (MOUNT, DOWNLOAD)}
        for name in os.listdir(self._layout.cache_mounts):
            if name not in known:
                shutil.rmtree(self.path(name), ignore_errors=True)
