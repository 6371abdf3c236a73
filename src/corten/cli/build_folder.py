"""A folder of this machine's as a build context: listed by what its files' status says, and of their contents only what the engine asks for.

Must not know Dockerfiles. What is said to the engine is spec/context_listing.py's; the exchange is drawn in docs/own-api.md.
"""

from __future__ import annotations

import gc
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from types import TracebackType
from typing import Any, Self

import msgspec

from corten.api.client import ApiError, Client
from corten.errors import Invalid, Unavailable
from corten.spec.ignore_file import Ignore, ignore_file_names, read_patterns
from corten.spec.plain_names import plain, raw

_CHUNK = 1 << 18
_PATH = "/corten/build/contexts"
_Row = tuple[Any, ...]  # spec.context_listing.Listed's fields; ten thousand of them are made in a moment, so they stay plain


class FolderChanged(Invalid):
    template = "the file {path} of the build context changed while it was read: build again when nobody writes to it"


class SentFolders:
    """The folders of one build. The engine asks for them by the ids that `open` returns; of a build that does not come to be it is told."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._open: dict[str, tuple[str, list[_Row]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for context_id in self._open if error is not None else ():
            with suppress(ApiError, Unavailable):  # a build has used it; or nobody is there
                self._client.delete(f"{_PATH}/{context_id}")

    def open(self, folder: str, dockerfile: str, beside: Mapping[str, bytes] | None = None, *, always: bool = True) -> str:
        """Its id. `always`: the Dockerfile and its ignore file are listed even if they are ignored; `beside` are files besides. Raises FolderChanged."""
        patterns, taken = _patterns(folder, dockerfile), time.time_ns()
        ignore = Ignore(patterns)
        forced = [name for name in (dockerfile, *ignore_file_names(dockerfile)) if always and ignore.ignores(name)]
        rows = listing(folder, ignore, forced)
        data = msgspec.json.encode({"Entries": rows, "Beside": beside or {}})
        key = hashlib.sha256(msgspec.json.encode([_machine(), os.getuid(), os.path.realpath(folder), patterns, forced]))
        query = {"folder": key.hexdigest(), "listing": hashlib.sha256(data).hexdigest(), "taken": taken, "dockerfile": dockerfile}
        try:
            wanted = self._client.post(_PATH, **query)
        except ApiError as error:
            if error.http_status != 404:
                raise
            wanted = self._client.call("POST", _PATH, query=query, body=data)
        self._open[wanted["Id"]] = folder, rows
        self.answer(wanted)
        return str(wanted["Id"])

    def answer(self, wanted: Mapping[str, Any], tell: Callable[[int], None] | None = None) -> None:
        """Send what the engine wants; `tell` hears of each piece of contents how many bytes it has. Raises FolderChanged."""
        folder, rows = self._open[wanted["Id"]]
        for what in ("Digests", "Contents"):
            asked = [rows[number] for number in wanted.get(what, ())]
            if asked and what == "Digests":
                self._client.post(f"{_PATH}/{wanted['Id']}/digests", {"Digests": [_digest(folder, row) for row in asked]})
            elif asked:
                length = {"Content-Length": str(sum(row[2] for row in asked)), "Content-Type": "application/octet-stream"}
                with self._client.open("POST", f"{_PATH}/{wanted['Id']}/contents", body=_Contents(folder, asked, tell), headers=length) as response:
                    response.read()


def _machine() -> str:
    """What tells this machine from another that has the same engine."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return os.uname().nodename


def _patterns(folder: str, dockerfile: str) -> tuple[str, ...]:
    for name in ignore_file_names(dockerfile):
        try:
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
                return read_patterns(file.read())
        except FileNotFoundError:
            continue
    return ()


# --- the walk
def listing(folder: str, ignore: Ignore, always: Sequence[str]) -> list[_Row]:
    """Sorted by path, without what is ignored; a folder that is ignored is there when something in it is not. Raises Invalid."""
    found: list[_Row] = []
    was_enabled = gc.isenabled()
    gc.disable()  # ten thousand rows are no garbage, and looking for some in them takes as long as the walk
    try:
        _walk(folder, "", ignore, always, found)
    except OSError as error:
        raise Invalid(f"reading the build context {folder}: {error}") from None
    finally:
        if was_enabled:
            gc.enable()
    found.sort()
    return found


def _walk(folder: str, prefix: str, ignore: Ignore, always: Sequence[str], found: list[_Row]) -> None:
    """What vanishes meanwhile is not there, as in BuildKit."""
    everything = not ignore.has_rules
    with os.scandir(folder) as inside:
        for entry in inside:
            below = prefix + plain(entry.name)
            ignored = not everything and ignore.ignores(below) and below not in always
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    if not ignored and not stat.S_ISSOCK(status.st_mode):
                        found.append(_row(entry.path, below, status))
                    continue
                count = len(found)
                if not ignored or ignore.has_exceptions or any(name.startswith(f"{below}/") for name in always):
                    _walk(entry.path, f"{below}/", ignore, always, found)
                if not ignored or len(found) > count:
                    found.append((below, status.st_mode))


def _row(path: str, below: str, status: os.stat_result) -> _Row:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        row = (below, mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        return (*row, "", 0, value) if mode & 0o111 and (value := _capability(path)) else row
    if stat.S_ISLNK(mode):
        return below, mode, 0, 0, 0, 0, plain(os.readlink(path))
    return below, mode, 0, 0, 0, 0, "", 0 if stat.S_ISFIFO(mode) else status.st_rdev


def _capability(path: str) -> bytes:
    """Of a program, as docker build sends it; no other attribute."""
    try:
        return os.getxattr(path, "security.capability", follow_symlinks=False)
    except OSError:
        return b""


# --- contents
@contextmanager
def _opened(folder: str, row: _Row) -> Iterator[FileIO]:
    """The file, which has to be the one that was listed, before and after it was read. Raises FolderChanged."""
    try:
        fd = os.open(f"{folder}/{raw(row[0])}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FolderChanged(path=row[0]) from None
    except OSError as error:
        raise Invalid(f"reading the build context {folder}: {error}") from None
    with FileIO(fd, "rb") as file:
        _check(fd, row)
        yield file
        _check(fd, row)


def _check(fd: int, row: _Row) -> None:
    status = os.fstat(fd)
    if row[1:6] != (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino):
        raise FolderChanged(path=row[0])


def _digest(folder: str, row: _Row) -> str:
    with _opened(folder, row) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Contents:
    """One file's bytes after the other's, read while they are sent. Raises FolderChanged."""

    def __init__(self, folder: str, rows: Sequence[_Row], tell: Callable[[int], None] | None) -> None:
        self._pieces, self._tell = _pieces(folder, rows), tell

    def read(self, size: int) -> bytes:
        """About so much."""
        found: list[bytes] = []
        length = 0
        for piece in self._pieces:
            found.append(piece)
            length += len(piece)
            if length >= size:
                break
        if self._tell:
            self._tell(length)
        return b"".join(found)


def _pieces(folder: str, rows: Sequence[_Row]) -> Iterator[bytes]:
    for row in rows:
        with _opened(folder, row) as file:
            left = row[2]
            while left and (data := file.read(min(left, _CHUNK))):
                left -= len(data)
                yield data
        if left:
            raise FolderChanged(path=row[0])
