"""Reading a container's json-file log: the last lines without reading the whole, a time window, following.

The writer is runtime/logfile.py; both know only Docker's format. Rotated files are `<log>.1` (newest) and up.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import msgspec

from corten.linux.inotify import FileWatch
from corten.spec.timestamps import parse_rfc3339

_BLOCK = 1 << 16


class _Record(msgspec.Struct, frozen=True):
    log: str
    stream: str
    time: str


@dataclass(frozen=True)
class Line:
    stream: str
    time: int
    data: bytes


_decode = msgspec.json.Decoder(_Record).decode


def parse_line(raw: bytes) -> Line | None:
    """None for what is not a record (a torn write after a power cut): the rest of the log is still good."""
    try:
        record = _decode(raw)
    except msgspec.MsgspecError:
        return None
    return Line(record.stream, parse_rfc3339(record.time), record.log.encode())


def _files(path: str) -> list[str]:
    """Oldest first."""
    found = [path] if os.path.exists(path) else []
    number = 1
    while os.path.exists(f"{path}.{number}"):
        found.insert(0, f"{path}.{number}")
        number += 1
    return found


def _tail_offset(fd: int, lines: int) -> tuple[int, int]:
    """(offset of the last `lines` lines, how many there are up to that many), read backwards in blocks."""
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


def read_stored(path: str, tail: int | None) -> Iterator[Line]:
    """What is stored now, oldest first; `tail` None means all."""
    files = _files(path)
    starts: list[tuple[str, int]] = []
    left = tail
    for name in reversed(files):
        if left == 0:
            break
        if left is None:
            starts.insert(0, (name, 0))
            continue
        with open(name, "rb") as file:
            offset, count = _tail_offset(file.fileno(), left)
        starts.insert(0, (name, offset))
        left -= count
    for name, offset in starts:
        with open(name, "rb") as file:
            file.seek(offset)
            for raw in file:
                line = parse_line(raw) if raw.endswith(b"\n") else None
                if line:
                    yield line


async def follow(path: str, tail: int | None, ended: Callable[[], bool]) -> AsyncIterator[Line]:
    """Stored lines, then new ones as they are written, across rotations, until `ended()` and all is read."""
    watch = FileWatch(os.path.dirname(path))
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    loop.add_reader(watch.fd, changed.set)
    try:
        for line in _older(path, tail):
            yield line
        file = open(path, "rb")  # noqa: SIM115 - rebound on rotation, closed below
        try:
            if tail is not None:
                file.seek(_tail_offset(file.fileno(), tail)[0] if tail else os.fstat(file.fileno()).st_size)
            rest = b""
            while True:
                changed.clear()
                watch.clear()
                finished = ended()
                data = file.read(_BLOCK)
                if data:
                    *lines, rest = (rest + data).split(b"\n")
                    for raw in lines:
                        line_or_none = parse_line(raw)
                        if line_or_none:
                            yield line_or_none
                    continue
                if _rotated(path, file.fileno()):
                    file.close()
                    file = open(path, "rb")  # noqa: SIM115
                    rest = b""
                    continue
                if finished:
                    return
                try:
                    await asyncio.wait_for(changed.wait(), 1.0)
                except TimeoutError:
                    continue
        finally:
            file.close()
    finally:
        loop.remove_reader(watch.fd)
        watch.close()


def _older(path: str, tail: int | None) -> list[Line]:
    """The part of the window that lies in rotated files; they are bounded, so it is read at once."""
    rotated = _files(path)[:-1]
    if tail is not None:
        with open(path, "rb") as file:
            tail -= _tail_offset(file.fileno(), tail)[1] if tail else 0
        if tail <= 0:
            return []
    lines: list[Line] = []
    for name in reversed(rotated):
        with open(name, "rb") as file:
            lines = [line for line in map(parse_line, file) if line] + lines
        if tail is not None and len(lines) >= tail:
            break
    return lines if tail is None else lines[-tail:]


def _rotated(path: str, fd: int) -> bool:
    try:
        current, opened = os.stat(path), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (current.st_ino, current.st_dev) != (opened.st_ino, opened.st_dev)
