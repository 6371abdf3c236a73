"""The folders that clients have built from, kept for the next time: which there are, who uses them, when they are saved, and what they cost.

Each has a row among the build cache's, so that prune, df and the limits of the settings see it. What one build knows of a folder is kept_context.py's.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress

import msgspec

from corten.builder import kept_folder
from corten.builder.cache import SOURCE, Cache, CacheRow
from corten.builder.kept_folder import KeptFolder
from corten.builder.kept_index import Body, Head, Place
from corten.spec.timestamps import now_ns
from corten.store.layout import Layout
from corten.store.locks import NamedLocks
from corten.store.workers import RunJob

_log = logging.getLogger("corten")
_REMEMBERED = 32  # folders whose heads stay in memory
_OTHERS = 8  # folders in which a content is looked for before a client has to send it


class KeptContexts:
    def __init__(self, layout: Layout, cache: Cache, run_job: RunJob) -> None:
        self.run_job = run_job
        self._layout, self._cache = layout, cache
        self._folders: dict[str, KeptFolder] = {}  # the last used last
        self._locks = NamedLocks()
        self._saving: set[asyncio.Task[None]] = set()
        self._settling: set[asyncio.Task[None]] = set()

    def name_of(self, key: str) -> str:
        """Of a folder by the client's key for it: no client's words are in a path or in the cache's rows."""
        return hashlib.sha256(f"folder {key}".encode()).hexdigest()

    async def use(self, name: str) -> KeptFolder:
        """The folder, new if need be. It stays as it is, but for what is added, until `leave`."""
        async with self._locks[name]:
            folder = self._folders.pop(name, None)
            if folder is None:
                folder = await asyncio.to_thread(kept_folder.load, self._path(name))
            if not folder.is_settled:  # the engine before this one was killed
                folder.is_settled = True
                self._begin(self._settling, self._settle(folder.contents, os.open(folder.index, os.O_RDWR | os.O_CLOEXEC)))
            self._folders[name] = folder
            folder.users += 1
        self._forget_some()
        return folder

    def leave(self, name: str, folder: KeptFolder, changed: tuple[Head, Body] | None) -> None:
        """The end of a use; `changed` is what is known now, if it is something new. That is saved while nobody waits."""
        if changed is None:
            folder.users -= 1
            self._touch(name)
            if not folder.users and not folder.head.listing:
                shutil.rmtree(self._take_away(name), ignore_errors=True)  # nothing came of it
            return
        self._begin(self._saving, self._save(name, folder, *changed))

    async def _save(self, name: str, folder: KeptFolder, head: Head, body: Body) -> None:
        async with self._locks[name]:
            try:
                body.contents |= folder.added
                head = msgspec.structs.replace(head, generation=folder.head.generation, offset=folder.offset, number=folder.number, boot=kept_folder.boot())
                alone = folder.users == 1
                if alone and kept_folder.is_wasteful(folder, body):
                    head, body = await asyncio.to_thread(kept_folder.tidied, folder, head, body)
                    folder.offset, folder.number = head.offset, head.number
                index = await asyncio.to_thread(kept_folder.write, folder, head, body)
                folder.head = head
                if alone:
                    folder.added.clear()
                    await asyncio.to_thread(kept_folder.drop_others, folder)
                self._remember(name, await asyncio.to_thread(kept_folder.size_of, folder.path))
            except OSError as error:
                _log.warning("the context %s is not kept: %s", name, error)  # it is as it was before, and what came is waste
                return
            finally:
                folder.users -= 1
        self._begin(self._settling, self._settle(folder.contents, index))

    async def _settle(self, contents: str, index: int) -> None:
        with suppress(OSError):  # pruned meanwhile, or with another generation: nothing is lost that somebody had
            await asyncio.to_thread(kept_folder.settle, contents, index)

    @staticmethod
    def _begin(tasks: set[asyncio.Task[None]], work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _remember(self, name: str, size: int) -> None:
        row, now = self._cache.row(name), now_ns()
        row = row or CacheRow(name, SOURCE, "local source for context", "", now, now, 0, folder=name)
        self._cache.put(msgspec.structs.replace(row, used=now, uses=row.uses + 1, size=size))

    def _touch(self, name: str) -> None:
        row = self._cache.row(name)
        if row:
            self._cache.touch(row)

    def _forget_some(self) -> None:
        for name in list(self._folders)[: max(0, len(self._folders) - _REMEMBERED)]:
            if not self._folders[name].users:
                del self._folders[name]

    def _path(self, name: str) -> str:
        return f"{self._layout.contexts}/{name}"

    # --- contents of other folders
    @asynccontextmanager
    async def others(self, name: str) -> AsyncIterator[dict[str, tuple[str, Place]]]:
        """What other folders, the last used ones, have: digest to (folder of contents, place). It stays there for as long as the block lasts."""
        rows = sorted((row for row in self._cache.rows() if row.kind == SOURCE and row.folder != name), key=lambda row: -row.used)
        used: list[KeptFolder] = []
        try:
            for row in rows[:_OTHERS]:
                used += [await self.use(row.folder)]
            yield await asyncio.to_thread(_contents_of, used)
        finally:
            for folder in used:
                folder.users -= 1

    # --- for prune
    def size(self, folder: str) -> int:
        """Bytes. For threads: it walks."""
        return kept_folder.size_of(self._path(folder))

    def in_use(self, folder: str) -> bool:
        return folder in self._folders and bool(self._folders[folder].users)

    async def remove(self, folder: str) -> bool:
        """Unless somebody uses it by now."""
        async with self._locks[folder]:
            if self.in_use(folder):
                return False
            gone = self._take_away(folder)
        await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)
        return True

    def _take_away(self, name: str) -> str:
        """Where it is now, to be deleted. Whole or gone for who looks for it."""
        gone = f"{self._layout.temporary}/kept-{secrets.token_hex(8)}"
        self._folders.pop(name, None)
        with suppress(FileNotFoundError):
            os.rename(self._path(name), gone)
        return gone

    def sweep(self) -> None:
        """Start-up: folders that no row names."""
        known = {row.folder for row in self._cache.rows() if row.kind == SOURCE}
        for name in set(os.listdir(self._layout.contexts)) - known:
            shutil.rmtree(self._take_away(name), ignore_errors=True)

    async def saved(self) -> None:
        """What builds that have ended have left is in its place."""
        await asyncio.gather(*self._saving)

    async def settle(self) -> None:
        """At the engine's end: all that is kept is on disk."""
        await self.saved()
        await asyncio.gather(*self._settling)


def _contents_of(folders: Iterable[KeptFolder]) -> dict[str, tuple[str, Place]]:
    found: dict[str, tuple[str, Place]] = {}
    for folder in folders:
        with suppress(OSError, ValueError, msgspec.MsgspecError):
            found |= {digest: (folder.contents, place) for digest, place in kept_folder.read_contents(folder.path).items()}
    return found
