"""A build context in the engine: received once, kept while the build lasts, and looked at by the steps that copy from it."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import chain

import msgspec

from corten.builder.context_job import CONTEXT_JOB, INDEX
from corten.builder.entries import FILE, FOLDER, Entry
from corten.builder.packed import Packed, gone_through
from corten.builder.spool import SPOOL
from corten.builder.trees import follow
from corten.errors import NotFound
from corten.store.layout import Layout
from corten.store.worker_stream import write_to_worker
from corten.store.workers import RunJob, run_on_archive


class NoSuchFile(NotFound):
    template = "the build context has no file {path}"


class Context:
    """`listed` are all entries, sorted by path, whatever an ignore file says. `revision`: of what came from an address, the commit or the digest that it had.

    `version`: equal ones have equal content, so that what was found in it once need not be looked for again; empty where nobody knows.
    """

    def __init__(self, folder: str, listed: Callable[[], Sequence[Entry]]) -> None:
        self.folder = folder
        self.revision = ""
        self._listed = listed
        self._claimed: set[int] = set()

    @property
    def version(self) -> str:
        return ""

    @property
    def listed(self) -> Sequence[Entry]:
        return self._listed()

    def look(self, path: str) -> Entry | None:
        """As a tree's, for the few paths that are read by name: no table is made of all there are."""
        listed = self.listed
        at = bisect_left(listed, path, key=lambda entry: entry.path)
        return listed[at] if at < len(listed) and listed[at].path == path else None

    @classmethod
    async def receive(cls, layout: Layout, run_job: RunJob, pieces: AsyncIterator[bytes]) -> Context:
        """Read a tar in any compression to its end. Raises ArchiveRefused; nothing is left then."""
        folder = f"{layout.temporary}/context-{secrets.token_hex(8)}"
        os.mkdir(folder, 0o700)
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:

                async def run(source: int) -> bytes:
                    return await run_on_archive(run_job, CONTEXT_JOB, (source, fd))

                await write_to_worker(run, pieces)
            finally:
                os.close(fd)
            listed = await asyncio.to_thread(_read_index, f"{folder}/{INDEX}")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(folder, lambda: listed)

    def read(self, path: str, limit: int) -> bytes:
        """A file's content, links followed, of at most `limit` bytes. Raises NoSuchFile."""
        found = follow(self, path.lstrip("/"))
        entry = self.look(found) if found is not None else None
        if entry is None or entry.kind != FILE:
            raise NoSuchFile(path=path)
        return read_content(self.folder, entry.place, min(entry.size, limit))

    def take_out(self, folder: str) -> Context:
        """What is below a folder, as a context of its own that goes with this one; here it is no longer. Raises NoSuchFile."""
        prefix, listed = f"{folder}/", self.listed
        root = next((entry for entry in listed if entry.path == folder and entry.kind == FOLDER), None)
        if root is None:
            raise NoSuchFile(path=folder)
        inside = (msgspec.structs.replace(entry, path=entry.path.removeprefix(prefix)) for entry in listed if entry.path.startswith(prefix))
        taken = Packed(Entry, chain([msgspec.structs.replace(root, path="")], inside))
        rest = Packed(Entry, (entry for entry in listed if entry.path != folder and not entry.path.startswith(prefix)))
        self._listed = lambda: rest
        return Context(self.folder, lambda: taken)

    def claim(self, wanted: Iterable[Entry]) -> list[int]:
        """Places of large files that the caller, and nobody after it, may have as hard links."""
        mine = {entry.place for entry in wanted if entry.place < 0} - self._claimed
        self._claimed |= mine
        return sorted(mine)

    def let_go(self) -> None:
        """Of what is known of it, which would stay until garbage is looked for."""
        self._listed = tuple

    async def remove(self) -> None:
        self.let_go()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


def read_content(folder: str, place: int, size: int) -> bytes:
    """Of an entry's content (Entry.place) the beginning."""
    name, offset = (SPOOL, place) if place >= 0 else (str(-1 - place), 0)
    with open(f"{folder}/{name}", "rb") as file:
        file.seek(offset)
        return file.read(size)


def _read_index(path: str) -> Packed[Entry]:
    with open(path, "rb") as file:
        listed: Packed[Entry] = Packed.of_array(Entry, file.read())
    gone_through(len(listed))
    return listed
