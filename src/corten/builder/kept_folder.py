"""One kept folder on disk: its index, and the contents that its files have or had, by digest. Knows nothing of builds or clients.

contexts/<key>/index                 what kept_index.py has as values; renamed into place
contexts/<key>/<generation>/         contents: `spool` and large files by number, as a context that was sent has them

Contents are only ever added, each use of the folder to a region of its own, so builds at the same time do not wait for each other. What no file has
any more is waste, and stays findable (a branch that is changed back) until there is more waste than content: then a new generation is made.

A content is in the index only once its digest has been seen by the engine itself. After a crash of the machine an index counts only if what it
names had reached the disk: its first byte says so.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from corten.builder.kept_index import EMPTY, Body, Head, Place
from corten.builder.packed import Packed, gone_through
from corten.builder.spool import LARGE, SPOOL
from corten.spec.context_listing import Listed

INDEX = "index"
_MUCH = 16 << 20  # bytes of waste that are not worth tidying
_SYNCED, _WRITTEN = b"s", b"w"
_LENGTH = 4


class _Contents(msgspec.Struct):
    """Of a Body what others look for."""

    contents: dict[str, Place]


class _Written(msgspec.Struct):
    """A Body as it is written: a map of its fields; the entries are a list."""

    entries: msgspec.Raw
    beside: dict[str, bytes]
    digests: list[str]
    unsure: set[int]
    contents: dict[str, Place]


_encode = msgspec.msgpack.Encoder().encode
_decode_contents = msgspec.msgpack.Decoder(_Contents).decode
_decode_head, _decode_body = msgspec.msgpack.Decoder(Head).decode, msgspec.msgpack.Decoder(_Written).decode


@dataclass
class Memory:
    """Of one version: `texts` that a build has read (None: there is no such file), `satisfied`: what has been found to need nothing more."""

    version: str = ""
    texts: dict[str, bytes | None] = field(default_factory=dict)
    satisfied: set[str] = field(default_factory=set)


@dataclass
class KeptFolder:
    """`offset` and `number` are where there is room. `is_settled`: what the index names is on disk, or is seen to. `claimed` are the large files that a build of now has taken as hard links."""

    path: str
    head: Head
    is_settled: bool = True
    users: int = 0
    added: dict[str, Place] = field(default_factory=dict)
    claimed: set[int] = field(default_factory=set)
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        self.offset, self.number = self.head.offset, self.head.number

    @property
    def contents(self) -> str:
        return f"{self.path}/{self.head.generation}"

    @property
    def index(self) -> str:
        return f"{self.path}/{INDEX}"

    def reserve(self, size: int, files: int) -> tuple[int, int]:
        """(offset, number) of a region that is the caller's."""
        region = self.offset, self.number
        self.offset += size
        self.number += files
        return region


def boot() -> str:
    """Which start of the machine this is."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def load(path: str) -> KeptFolder:
    """Of a folder that is there or is to be. What is on disk and in no index is removed."""
    folder = KeptFolder(path, Head())
    try:
        fd = os.open(folder.index, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            synced, head, _ = read(fd)
            if not synced and head.boot != boot():
                raise ValueError("the machine went down before it was on disk")
            folder = KeptFolder(path, head, synced)
        except (ValueError, msgspec.MsgspecError):
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(fd)
    os.makedirs(folder.contents, mode=0o700, exist_ok=True)
    os.close(os.open(f"{folder.contents}/{SPOOL}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for name in set(os.listdir(path)) - {INDEX, os.path.basename(folder.contents)}:
        _remove(f"{path}/{name}")
    return folder


def _remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        os.unlink(path)


def read(fd: int) -> tuple[bool, Head, memoryview]:
    """An index: whether its contents are on disk, the head, the body as it is written. Raises ValueError, msgspec.MsgspecError."""
    data = memoryview(os.pread(fd, os.fstat(fd).st_size, 0))
    length = int.from_bytes(data[1 : 1 + _LENGTH], "big")
    return data[:1] == _SYNCED, _decode_head(data[1 + _LENGTH : 1 + _LENGTH + length]), data[1 + _LENGTH + length :]


def read_body(fd: int) -> Body:
    """Raises ValueError, msgspec.MsgspecError."""
    found = _decode_body(read(fd)[2])
    once = {digest: digest for digest in found.contents}  # the same text is not kept twice
    digests = [once.get(digest, digest) for digest in found.digests]
    return Body(Packed.of_array(Listed, found.entries), found.beside, digests, found.unsure, found.contents)


def read_contents(path: str) -> dict[str, Place]:
    """What the index of the folder at `path` has of contents. Raises OSError, ValueError, msgspec.MsgspecError."""
    fd = os.open(f"{path}/{INDEX}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _decode_contents(read(fd)[2]).contents
    finally:
        os.close(fd)


def write(folder: KeptFolder, head: Head, body: Body) -> int:
    """Have the index say this, for as long as the machine runs. Its descriptor, for `settle`. For threads."""
    part, packed = f"{folder.index}.part", msgspec.msgpack.encode(head)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(_WRITTEN + len(packed).to_bytes(_LENGTH, "big") + packed)
        listed = body.entries if isinstance(body.entries, Packed) else Packed[Listed](Listed, body.entries)
        file.write(b"\x85" + _encode("entries"))
        file.writelines(listed.as_array())
        for name, value in (("beside", body.beside), ("digests", body.digests), ("unsure", body.unsure), ("contents", body.contents)):
            file.write(_encode(name))
            file.write(_encode(value))  # one at a time: all of it at once would be tens of megabytes of a large context
    gone_through(len(listed))
    os.rename(part, folder.index)
    return fd


def settle(contents: str, index: int) -> None:
    """A folder of contents and the index (a descriptor, closed here) reach the disk. For threads: it waits for that. Raises OSError where they are gone."""
    try:
        for name in (*os.listdir(contents), "."):
            _sync(f"{contents}/{name}")
        os.fsync(index)
        os.pwrite(index, _SYNCED, 0)
        os.fsync(index)
        _sync(os.path.dirname(contents))
    finally:
        os.close(index)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def size_of(path: str) -> int:
    """Bytes that would be free without the folder: a large file that a layer has as well costs nothing. For threads: it walks."""
    found = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                status = os.lstat(f"{folder}/{name}")
                found += status.st_size if status.st_nlink == 1 else 0
    return found


def is_wasteful(folder: KeptFolder, body: Body) -> bool:
    """Whether there is more waste than content, and much of it."""
    live = sum(body.contents[digest][1] for digest in set(body.digests) & body.contents.keys())
    there = folder.offset + sum(size for place, size in body.contents.values() if place < 0)
    return there - live > max(live, _MUCH)


def tidied(folder: KeptFolder, head: Head, body: Body) -> tuple[Head, Body]:
    """A new generation with nothing but what files have, ready for `write`; the old one is removed by `drop_others` after that. For threads."""
    kept, offset, number = dict[str, Place](), 0, 0
    head = msgspec.structs.replace(head, generation=head.generation + 1)
    target, source = f"{folder.path}/{head.generation}", folder.contents
    shutil.rmtree(target, ignore_errors=True)
    os.mkdir(target, 0o700)
    live = sorted((body.contents[digest], digest) for digest in set(body.digests) & body.contents.keys())
    with open(f"{target}/{SPOOL}", "wb", buffering=LARGE) as spool:
        reading = os.open(f"{source}/{SPOOL}", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for (place, size), digest in live:
                if place < 0:
                    os.link(f"{source}/{-1 - place}", f"{target}/{number}")
                    kept[digest], number = (-1 - number, size), number + 1
                else:
                    spool.write(os.pread(reading, size, place))
                    kept[digest], offset = (offset, size), offset + size
        finally:
            os.close(reading)
    kept[EMPTY] = (0, 0)
    return msgspec.structs.replace(head, offset=offset, number=number), Body(body.entries, body.beside, body.digests, body.unsure, kept)


def drop_others(folder: KeptFolder) -> None:
    """Generations that are not the folder's, and large files that no content is in."""
    for name in set(os.listdir(folder.path)) - {INDEX, os.path.basename(folder.contents)}:
        with suppress(OSError):
            _remove(f"{folder.path}/{name}")


def bring_over(theirs: str, place: int, size: int, ours: str, room: tuple[int, int]) -> Place:
    """A content of another kept folder, copied (a large one: linked) into a region of this one. For threads. Raises OSError if it is gone."""
    offset, number = room
    if place < 0:
        with suppress(FileNotFoundError):
            os.unlink(f"{ours}/{number}")
        os.link(f"{theirs}/{-1 - place}", f"{ours}/{number}")
        return -1 - number, size
    with open(f"{theirs}/{SPOOL}", "rb", buffering=0) as source:
        data = os.pread(source.fileno(), size, place)
    fd = os.open(f"{ours}/{SPOOL}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if len(data) != size or os.pwrite(fd, data, offset) != size:
            raise OSError("cut off")
    finally:
        os.close(fd)
    return offset, size
