"""A folder of the client's as one build sees it: its listing, and of its files' contents those that the build needs.

The engine never reads the client's disk: it asks (Asking), for digests first where a content of that size is here already, and then for what is
nowhere here. Each content is hashed by the engine itself (kept_job.py) before a step can see it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from corten.builder import kept_folder
from corten.builder.context import Context, NoSuchFile, read_content
from corten.builder.context_needs import needed_files
from corten.builder.entries import Entry
from corten.builder.graph import Vertex
from corten.builder.kept_contexts import KeptContexts
from corten.builder.kept_folder import KeptFolder, Memory
from corten.builder.kept_index import Body, Head, Place, check, merged, told
from corten.builder.kept_job import KEPT_JOB, Content, Region, size_of_region
from corten.builder.packed import gone_through
from corten.builder.select import Excludes
from corten.builder.trees import follow
from corten.errors import Invalid
from corten.spec.context_listing import Listing
from corten.store.worker_stream import write_to_worker
from corten.store.workers import run_on_archive

_decode_contents = msgspec.msgpack.Decoder(list[Content]).decode


class FileChanged(Invalid):
    template = "the file {path} of the build context changed while it was read: build again when nobody writes to it"


class Asking(Protocol):
    """The client, by numbers of the listing's entries. `contents` returns once `KeptContext.take_in` has had them."""

    async def digests(self, numbers: Sequence[int]) -> Sequence[str]: ...

    async def contents(self, numbers: Sequence[int]) -> None: ...


class KeptContext(Context):
    """Made by `open_context`, which has begun a use of the folder. `remove` ends that, and has what is new kept."""

    def __init__(self, name: str, folder: KeptFolder, every: KeptContexts, known: Body | int, head: Head, taken: int) -> None:
        """`known` is the listing with what is known of it, or a descriptor of the index that has it, for when it is needed."""
        super().__init__(folder.contents, lambda: self._body().listed())
        self._name, self._kept, self._every, self._head, self._taken = name, folder, every, head, taken
        self._known, self._changed = known, isinstance(known, Body)
        self._reading = threading.Lock()
        self._read_first = ""  # what of Memory.satisfied says that the Dockerfile is there
        self.transferred = 0  # bytes of contents that have come
        self._told: set[int] = set()  # in this build, for which that is good, whatever the file system's clock may hide

    @property
    def version(self) -> str:
        return self._head.version

    def _body(self) -> Body:
        """For threads, the first time."""
        with self._reading:
            if not isinstance(self._known, Body):
                fd, self._known = self._known, kept_folder.read_body(self._known)
                os.close(fd)
            return self._known

    @property
    def _memory(self) -> Memory:
        """What the folder remembers of this content; nothing that lasts, while it has to be asked again."""
        if not self._head.settled:
            return Memory()
        if self._kept.memory.version != self.version:
            self._kept.memory = Memory(self.version)
        return self._kept.memory

    def read(self, path: str, limit: int) -> bytes:
        """As Context; what lies beside the folder is found first."""
        path, texts = path.lstrip("/"), self._memory.texts
        found = texts[path] if path in texts else texts.setdefault(path, self._read(path, limit))
        if found is None:
            raise NoSuchFile(path=path)
        return found

    def _read(self, path: str, limit: int) -> bytes | None:
        """None for a file that there is not. Raises NoSuchFile for one that has not been sent, which is not to be remembered."""
        body = self._body()
        if path in body.beside:
            return body.beside[path][:limit]
        number = self._number(path)
        if number is None:
            return None
        if not self._has(number):
            raise NoSuchFile(path=path)
        place, size = body.contents[body.digests[number]]
        return read_content(self.folder, place, min(size, limit))

    def _number(self, path: str) -> int | None:
        """Of the file that a path leads to."""
        body = self._body()
        found = follow(body, path)
        number = body.number(found) if found is not None else None
        return number if number is not None and stat.S_ISREG(body.entries[number].mode) else None

    def _has(self, number: int) -> bool:
        body = self._body()
        return body.digests[number] in body.contents and (number in self._told or number not in body.unsure)

    def claim(self, wanted: Iterable[Entry]) -> list[int]:
        """As Context; what a layer has from an earlier build is that layer's, with its mode, owner and time."""
        mine = {entry.place for entry in wanted if entry.place < 0} - self._kept.claimed
        free = {place for place in mine if os.stat(f"{self.folder}/{-1 - place}").st_nlink == 1}
        self._kept.claimed |= free
        self._claimed |= free
        return sorted(free)

    async def remove(self) -> None:
        self._kept.claimed -= self._claimed
        if isinstance(self._known, int):
            os.close(self._known)
        changed = (self._head, self._known) if self._changed and isinstance(self._known, Body) else None
        self._known, self._changed = Body(), False
        self.let_go()
        self._every.leave(self._name, self._kept, changed)

    # --- asking
    async def missing(self, paths: Sequence[str]) -> list[int]:
        """Of files that are read before anything else (links followed) those whose content has to be sent."""
        self._read_first = f"read {paths}"
        if self._read_first in self._memory.satisfied:
            return []
        numbers = await asyncio.to_thread(lambda: {number for path in paths if path not in self._body().beside and (number := self._number(path)) is not None})
        return sorted(number for number in numbers if not self._has(number))

    async def bring(self, target: Vertex, name: str, excludes: Callable[[tuple[str, ...]], Excludes], ask: Asking) -> None:
        """Have what the target's steps take of this context, which they call `name`. Raises FileChanged, and what asking raises."""
        key = f"{name} {target.digest}"
        if key in self._memory.satisfied:
            return
        wanted = await asyncio.to_thread(self._needed, target, name, excludes)
        todo = [number for number in wanted if not self._has(number)]
        if todo:
            async with self._every.others(self._name) as others:
                await self._ask_digests(todo, {size for _, (_, size) in others.values()}, ask)
                await self._bring_over([number for number in todo if not self._has(number)], others)
            lacking = self._once_each(number for number in todo if not self._has(number))
            if lacking:
                await ask.contents(lacking)
        self._settle()
        self._memory.satisfied |= {key, self._read_first}

    def _needed(self, target: Vertex, name: str, excludes: Callable[[tuple[str, ...]], Excludes]) -> list[int]:
        body = self._body()
        paths = needed_files(target, name, body.listed(), excludes)
        numbers = [number for number, entry in enumerate(body.entries) if entry.path in paths]
        del paths
        gone_through(len(body.entries))
        return numbers

    async def _ask_digests(self, numbers: Sequence[int], sizes: set[int], ask: Asking) -> None:
        """Of those that may be here under another name, or as they were."""
        body = self._body()
        sizes |= {size for _, size in body.contents.values()}
        unknown = [number for number in numbers if body.entries[number].size in sizes and (not body.digests[number] or number in body.unsure)]
        if unknown:
            for number, digest in zip(unknown, await ask.digests(unknown), strict=True):
                self._tell(number, digest)

    def _tell(self, number: int, digest: str) -> None:
        self._changed = True
        self._told.add(number)
        if told(self._body(), number, digest, self._taken):
            self._head = msgspec.structs.replace(self._head, version=secrets.token_hex(16))

    def _once_each(self, numbers: Iterable[int]) -> list[int]:
        """One that is known to be the same as another is not sent twice."""
        body = self._body()
        return sorted({body.digests[number] or str(number): number for number in numbers}.values())

    async def _bring_over(self, numbers: Sequence[int], others: dict[str, tuple[str, Place]]) -> None:
        body = self._body()
        wanted = {digest: others[digest] for number in numbers if (digest := body.digests[number]) in others}
        if not wanted:
            return
        offset, number = self._kept.reserve(*size_of_region([size for _, (_, size) in wanted.values()]))

        def copy() -> dict[str, Place]:
            at, following, found = offset, number, dict[str, Place]()
            for digest, (theirs, (place, size)) in wanted.items():
                try:
                    found[digest] = kept_folder.bring_over(theirs, place, size, self.folder, (at, following))
                except OSError:
                    continue  # the client has it, too
                at, following = (at, following + 1) if place < 0 else (at + size, following)
            return found

        self._add(await asyncio.to_thread(copy))

    def _add(self, contents: dict[str, Place]) -> None:
        known = self._body().contents
        for digest, place in contents.items():
            if known.setdefault(digest, place) is place:
                self._kept.added[digest] = place
        self._changed = True

    def _settle(self) -> None:
        """What has to be asked again, and was not needed now, is as good as not known; and whoever knew it knew another version."""
        body = self._body()
        for number in body.unsure - self._told:
            body.digests[number] = ""
        if body.unsure - self._told:
            self._head = msgspec.structs.replace(self._head, version=secrets.token_hex(16))
        body.unsure &= self._told
        if self._head.settled == bool(body.unsure):
            self._changed = True
            self._head = msgspec.structs.replace(self._head, settled=not body.unsure)

    async def take_in(self, numbers: Sequence[int], pieces: AsyncIterator[bytes]) -> None:
        """The contents of these entries, one after the other. Raises FileChanged for one that is not what was told, ArchiveRefused for too little."""
        sizes = [self._body().entries[number].size for number in numbers]
        offset, first = self._kept.reserve(*size_of_region(sizes))
        order = f"order-{secrets.token_hex(8)}"
        path = f"{self.folder}/{order}"

        async def counted() -> AsyncIterator[bytes]:
            async for piece in pieces:
                self.transferred += len(piece)
                yield piece

        argument = msgspec.json.encode(Region(offset, first, order))
        try:
            with open(path, "xb") as file:
                file.write(msgspec.msgpack.encode(sizes))
            fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                await write_to_worker(lambda source: run_on_archive(self._every.run_job, KEPT_JOB, (source, fd), argument), counted())
            finally:
                os.close(fd)
            with open(path, "rb") as answer:
                found = _decode_contents(answer.read())
        finally:
            os.unlink(path)
        self._take(numbers, found)

    def _take(self, numbers: Sequence[int], found: Sequence[Content]) -> None:
        body = self._body()
        self._add({content.digest: (content.place, content.size) for content in found})
        for number, content in zip(numbers, found, strict=True):
            known = body.digests[number]
            if known and known != content.digest and (number in self._told or number not in body.unsure):
                raise FileChanged(path=body.entries[number].path)
            self._tell(number, content.digest)
        del found
        gone_through(len(numbers))


async def open_context(every: KeptContexts, key: str, digest: str, taken: int, listing: Listing | None) -> KeptContext | None:
    """The folder that the client calls `key`, as the listing (or the kept one, if that has the same digest) says; None if that has to be sent.

    Raises Invalid for a listing that cannot be.
    """
    if listing is not None:
        check(listing.entries, listing.beside)
    name = every.name_of(key)
    folder = await every.use(name)
    try:
        head = folder.head
        if listing is None:
            if head.listing != digest:
                every.leave(name, folder, None)
                return None
            return KeptContext(name, folder, every, os.open(folder.index, os.O_RDONLY | os.O_CLOEXEC), head, taken)
        body = await asyncio.to_thread(_renewed, folder, listing)
        new = Head(listing=digest, version=secrets.token_hex(16), settled=not body.unsure)
        return KeptContext(name, folder, every, body, new, taken)
    except BaseException:
        every.leave(name, folder, None)
        raise


def _renewed(folder: KeptFolder, listing: Listing) -> Body:
    known = Body()
    if folder.head.listing:
        fd = os.open(folder.index, os.O_RDONLY | os.O_CLOEXEC)
        try:
            known = kept_folder.read_body(fd)
        finally:
            os.close(fd)
    body = merged(known, listing.entries, listing.beside)
    del known
    gone_through(len(body.entries))
    return body


