"""Reading a kept log: all, the last lines without reading the whole, following across rotations.

What comes out are runs of lines (spec/log_lines.py), decoded a block at a time. The writer is runtime/logdrivers/stored.py; both
know only the formats in spec/.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from corten.engine.log_files import LogFile, LogFiles
from corten.engine.log_setup import KeptLog
from corten.linux.inotify import FileWatch
from corten.spec import log_json, log_local
from corten.spec.log_lines import Run

_BLOCK = 1 << 18
_LOOK_AGAIN = 1.0  # seconds: whether a silent follower's client is still there


@dataclass(frozen=True)
class _Format:
    """`whole` is how much of a block is whole records; `tail` finds the last n records: (their offset, how many there are)."""

    decode: Callable[[bytes], Iterator[Run]]
    whole: Callable[[bytes], int]
    tail: Callable[[int, int], tuple[int, int]]


def _json_tail(fd: int, lines: int) -> tuple[int, int]:
    """Read backwards in blocks."""
    end = os.fstat(fd).st_size
    position, found = end, 0
    while position > 0:
        start = max(0, position - _BLOCK)
        block = os.pread(fd, position - start, start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            if start + at + 1 == end:
                continue  # the newline that ends the file
            found += 1
            if found == lines:
                return start + at + 1, lines
        position = start
    return 0, found + (1 if end else 0)


def _local_tail(fd: int, lines: int) -> tuple[int, int]:
    """Backwards by the length that ends each record."""
    position, found = os.fstat(fd).st_size, 0
    while position > 8 and found < lines:
        (size,) = log_local.LENGTH.unpack(os.pread(fd, 4, position - 4))
        position -= size + 8
        found += 1
    return max(position, 0), found


_FORMATS = {
    "json-file": _Format(log_json.decode, log_json.whole, _json_tail),
    "local": _Format(log_local.decode, log_local.whole, _local_tail),
}


class Following:
    """Until when a log is followed. Call `stir` when `ended` may have become true."""

    def __init__(self, ended: Callable[[], bool]) -> None:
        self.ended = ended
        self.changed = asyncio.Event()

    def stir(self, *_: object) -> None:
        self.changed.set()


async def read_log(kept: KeptLog, tail: int | None, following: Following | None) -> AsyncGenerator[list[Run], None]:
    """Block by block, oldest first; `tail` None means all. With `following`, what is written until it has ended, too."""
    form = _FORMATS[kept.driver]
    watch = _watch(kept.path, following)
    files = LogFiles(kept.path)
    loop = asyncio.get_running_loop()

    def stirred() -> None:
        if watch and following:
            watch.clear()
            files.collect()  # at once: a client that reads slowly must not miss a file that is rotated away meanwhile
            following.stir()

    if watch:
        loop.add_reader(watch.fd, stirred)
    try:
        if tail is not None:
            await _skip_to_tail(files, form, tail)
        while True:
            ended = following is None or following.ended()
            if following:
                following.changed.clear()
                files.collect()
            complete = len(files.files) > 1  # a newer one has been started
            if files.files:
                async for runs in _rest(files.files[0], form):
                    yield runs
            if complete:
                files.drop_first()
                continue
            if ended or following is None:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(following.changed.wait(), _LOOK_AGAIN)
    finally:
        if watch:
            loop.remove_reader(watch.fd)
            watch.close()
        files.close()


def _watch(path: str, following: Following | None) -> FileWatch | None:
    if following is None:
        return None
    folder = os.path.dirname(path)
    with suppress(FileExistsError, FileNotFoundError):
        os.mkdir(folder, 0o700)
    return FileWatch(folder)


async def _rest(file: LogFile, form: _Format) -> AsyncGenerator[list[Run], None]:
    """What is in a file from its position on, as far as records are whole."""
    fd, size = await file.ready(), _BLOCK
    while block := os.pread(fd, size, file.position):
        whole = form.whole(block)
        if not whole:
            if len(block) < size:
                return
            size *= 2  # one record of that length
            continue
        file.position += whole
        runs = list(form.decode(block[:whole]))
        if runs:
            yield runs
        await asyncio.sleep(0)


async def _skip_to_tail(files: LogFiles, form: _Format, tail: int) -> None:
    """Leave out what is before the last `tail` records: earlier files whole, of the first one that is needed a part."""
    left = tail
    for index in range(len(files.files) - 1, -1, -1):
        file = files.files[index]
        fd = await file.ready()
        if left:
            file.position, count = form.tail(fd, left)
            left -= count
        else:
            file.position = os.fstat(fd).st_size
            for _ in range(index):
                files.drop_first()
            return
