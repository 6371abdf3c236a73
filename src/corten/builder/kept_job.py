"""The worker that takes contents of a folder's files from a client: one after the other, without any name, each as long as its listing said.

It hashes them and puts them where context_job.py puts those of a tar: small ones into the spool, behind what is there, a large one into a file of its
own. Runs in a child of the launcher, confined to the folder that is kept. What nobody names afterwards is waste, and is never looked at.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, cast

import msgspec

from corten.builder.spool import LARGE, SPOOL
from corten.errors import ArchiveRefused
from corten.store.confine import confine_to

KEPT_JOB = "kept-contents"
_CHUNK = 1 << 18


class Region(msgspec.Struct, frozen=True):
    """Where there is room: `offset` in the spool, `number` the first of the large files. `order` is the file with the sizes, and then with the answer."""

    offset: int
    number: int
    order: str


class Content(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`place` as Entry.place has it."""

    digest: str
    place: int
    size: int


def size_of_region(sizes: list[int]) -> tuple[int, int]:
    """Pure: (bytes of the spool, large files), at most."""
    small = [size for size in sizes if size < LARGE]
    return sum(small), len(sizes) - len(small)


class _Taker:
    def __init__(self, source: IO[bytes], spool: IO[bytes], region: Region) -> None:
        self._source, self._spool = source, spool
        self._offset, self._number = region.offset, region.number
        self._places: dict[str, int] = {}  # one that comes twice is kept once

    def take(self, sizes: list[int]) -> Iterator[Content]:
        for size in sizes:
            digest, place = self._large(size) if size >= LARGE else self._small(size)
            yield Content(digest, self._places.setdefault(digest, place), size)
        if self._source.read(1):
            raise ArchiveRefused("more was sent of the build context than was asked for")

    def _small(self, size: int) -> tuple[str, int]:
        data = self._source.read(size)
        if len(data) < size:
            raise _cut_off()
        digest, place = hashlib.sha256(data).hexdigest(), self._offset
        if digest not in self._places:
            self._spool.write(data)
            self._offset += size
        return digest, place

    def _large(self, size: int) -> tuple[str, int]:
        number, self._number = self._number, self._number + 1
        content, left = hashlib.sha256(), size
        with suppress(FileNotFoundError):
            os.unlink(f"/{number}")  # of an engine that was killed; a layer may have it as a hard link, so it is not written over
        fd = os.open(f"/{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb", buffering=_CHUNK) as file:
            while left:
                data = self._source.read(min(_CHUNK, left))
                if not data:
                    raise _cut_off()
                content.update(data)
                file.write(data)
                left -= len(data)
        if content.hexdigest() in self._places:
            os.unlink(f"/{number}")
        return content.hexdigest(), -1 - number


def _cut_off() -> ArchiveRefused:
    return ArchiveRefused("what was sent of the build context is cut off")


def job(argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the body and the kept folder, the argument is a Region. The answer, list[Content], takes the order's place."""
    region = msgspec.json.decode(argument, type=Region)
    source = io.BufferedReader(cast("io.RawIOBase", os.fdopen(fds[0], "rb", buffering=0, closefd=False)), _CHUNK)
    confine_to(fds[1])
    with open(f"/{region.order}", "rb") as order:
        sizes = msgspec.msgpack.decode(order.read(), type=list[int])
    fd = os.open(f"/{SPOOL}", os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(fd, "wb", buffering=_CHUNK) as spool:
        spool.seek(region.offset)
        found = list(_Taker(source, spool, region).take(sizes))
    with open(f"/{region.order}", "wb") as answer:
        answer.write(msgspec.msgpack.encode(found))
    return b""
