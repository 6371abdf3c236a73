"""What a tar has beside its files' contents, kept while it is unpacked, so that folder and record give the same bytes again.

The tar is one run of bytes. Those that went into a file are a piece: where in which file they are. All others (headers, padding, what
follows the end) are kept as they were, and so is the content of a file that a later entry of the same tar has replaced. Nothing in here
knows what a header means: odd tars are recorded like any other.

    zstd frame: the other bytes, in order | zstd frame: _Tail as msgpack | the second frame's length, 8 bytes | MAGIC

Same idea: tar-split, which Docker's layer store uses.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import msgspec
import zstandard
from isal import isal_zlib

from corten.errors import ArchiveRefused

MAGIC = b"cortar1\n"
_FOOTER = struct.Struct("<Q8s")
_CHUNK = 1 << 20
_READ_AHEAD = 2 << 20  # tarfile has never read further than this beyond the entry that it is at
_MOST_PENDING = 4 << 20
_GATHERED = 1 << 17
_MOST_KEPT = 16 << 20  # bytes of replaced files: of a tar with more there is no record
_LEVEL = 3


class Piece(NamedTuple):
    """`before`: how many of the other bytes come first. Then `length` bytes from `offset` of the file `path` (below the folder)."""

    before: int
    length: int
    path: bytes
    offset: int
    checksum: int  # CRC-32


class _Tail(msgspec.Struct, frozen=True):
    """`kept`: the content of a piece, by its number, that the folder has not."""

    length: int
    pieces: list[Piece]
    kept: dict[int, bytes]


class Recorder:
    """Fed all that is read of a tar, and told before a file is written or removed. `target` is the record's file, which is the caller's."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._output = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).stream_writer(target, closefd=False)
        self._gathered: list[bytes] = []
        self._gathered_size = 0
        self._pending: deque[tuple[int, bytes]] = deque()  # (where in the tar it begins, bytes)
        self._fed = self._done = self._before = 0
        self._pieces: list[tuple[int, int, bytes, int]] = []
        self._checksums, self._inodes = array("L"), array("Q")
        self._numbers: dict[int, list[int]] = {}  # inode -> pieces in it
        self._kept: dict[int, bytes] = {}
        self._kept_size = 0
        self._lost = False  # what a file has begun to take has been taken for something else

    # --- the tar as it goes by
    def feed(self, data: bytes) -> None:
        start, self._fed = self._fed, self._fed + len(data)
        if self._fed <= self._done:
            return
        self._pending.append((start, data))
        if self._fed - self._done > _MOST_PENDING:
            self._keep_until(self._fed - _READ_AHEAD)

    def _keep_until(self, end: int) -> None:
        """The tar's bytes from where we are to `end` are no file's."""
        while self._done < end:
            start, data = self._pending[0]
            part = data[self._done - start : end - start]
            self._gathered.append(part)
            self._gathered_size += len(part)
            self._done += len(part)
            self._before += len(part)
            if self._done >= start + len(data):
                self._pending.popleft()
        if self._gathered_size > _GATHERED:
            self._flush()

    def _flush(self) -> None:
        self._output.write(b"".join(self._gathered))
        self._gathered, self._gathered_size = [], 0

    def file(self, fd: int, path: str, start: int, parts: list[tuple[int, int]]) -> int:
        """The tar's bytes from `start` on go into an open file: (offset, length) of each part, none of them empty. The first piece's number."""
        self._keep_until(start)
        self._lost |= self._done != start
        inode, first = os.fstat(fd).st_ino, len(self._pieces)
        self._numbers.setdefault(inode, []).extend(range(first, first + len(parts)))
        for offset, length in parts:
            self._pieces.append((self._before, length, os.fsencode(path), offset))
            self._checksums.append(0)
            self._inodes.append(inode)
            self._before = 0
            self._done += length
        while self._pending and self._pending[0][0] + len(self._pending[0][1]) <= self._done:
            self._pending.popleft()
        return first

    def add(self, number: int, data: bytes) -> None:
        """The next bytes of a piece."""
        self._checksums[number] = isal_zlib.crc32(data, self._checksums[number])

    def losing(self, path: str, inode: int) -> None:
        """A file is about to be removed: what it holds is kept here."""
        for number in self._numbers.pop(inode, ()):
            _, length, _, offset = self._pieces[number]
            self._kept_size += length
            if self._kept_size <= _MOST_KEPT:
                with open(path, "rb", buffering=0) as file:
                    self._kept[number] = os.pread(file.fileno(), length, offset)

    # --- its end
    def finish(self, base: str) -> bool:
        """Write the record. False if there is none: a name has come to mean another file, or too much was replaced. `base` ends with a slash."""
        if self._lost:
            return False
        self._keep_until(self._fed)
        self._flush()
        self._output.flush(zstandard.FLUSH_FRAME)
        if self._kept_size > _MOST_KEPT or not all(self._is_there(base, number) for number in range(len(self._pieces))):
            return False
        pieces = [Piece(*piece, checksum) for piece, checksum in zip(self._pieces, self._checksums, strict=True)]
        tail = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(msgspec.msgpack.encode(_Tail(self._fed, pieces, self._kept)))
        self._target.write(tail + _FOOTER.pack(len(tail), MAGIC))
        self._target.flush()
        return True

    def _is_there(self, base: str, number: int) -> bool:
        if number in self._kept:
            return True
        try:
            return os.lstat(os.fsencode(base) + self._pieces[number][2]).st_ino == self._inodes[number]
        except OSError:
            return False


OpenFile = Callable[[bytes], int]


class TarRecord:
    """A record that is read. `source` is its file. Raises ArchiveRefused for one that is no whole record."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        try:
            end = source.seek(-_FOOTER.size, os.SEEK_END)
            size, magic = _FOOTER.unpack(source.read(_FOOTER.size))
            if magic != MAGIC or size > end:
                raise ValueError("it has no end")
            self._end_of_others = source.seek(end - size)
            packed = source.read(size)
            self._tail = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(packed), type=_Tail)
        except (OSError, ValueError, struct.error, zstandard.ZstdError, msgspec.DecodeError) as error:
            raise ArchiveRefused(f"the layer's record is broken: {error}") from None

    @property
    def length(self) -> int:
        """Bytes of the tar."""
        return self._tail.length

    def put_together(self, open_file: OpenFile) -> Iterator[bytes]:
        """The tar, in pieces of at most a MiB. `open_file` opens a path of the folder, below it and nowhere else.

        Raises ArchiveRefused, with its name, for a file that has not what it had.
        """
        self._source.seek(0)
        rest = self.length - sum(piece.before + piece.length for piece in self._tail.pieces)
        with zstandard.ZstdDecompressor().stream_reader(_First(self._source, self._end_of_others), closefd=False) as others:  # type: ignore[arg-type]  # read is all it uses
            for number, piece in enumerate(self._tail.pieces):
                yield from _exactly(others, piece.before)
                kept = self._tail.kept.get(number)
                yield from [kept] if kept is not None else _content(piece, open_file)
            yield from _exactly(others, rest)
            _read(others, 1)  # the frame's checksum comes after its content


class _First:
    """The first so many bytes of a file."""

    def __init__(self, source: BinaryIO, left: int) -> None:
        self._source, self._left = source, left

    def read(self, size: int) -> bytes:
        data = self._source.read(min(size, self._left))
        self._left -= len(data)
        return data


def _exactly(source: zstandard.ZstdDecompressionReader, length: int) -> Iterator[bytes]:
    while length > 0:
        data = _read(source, min(length, _CHUNK))
        if not data:
            raise ArchiveRefused("the layer's record is broken: it is cut off")
        length -= len(data)
        yield data


def _read(source: zstandard.ZstdDecompressionReader, size: int) -> bytes:
    try:
        return source.read(size)
    except zstandard.ZstdError as error:
        raise ArchiveRefused(f"the layer's record is broken: {error}") from None


def _content(piece: Piece, open_file: OpenFile) -> Iterator[bytes]:
    name = os.fsdecode(piece.path)
    try:
        fd = open_file(piece.path)
    except OSError as error:
        raise ArchiveRefused(f"/{name} cannot be read: {error.strerror}") from None
    try:
        offset, left, checksum = piece.offset, piece.length, 0
        while left:
            data = os.pread(fd, min(left, _CHUNK), offset)
            if not data:
                raise ArchiveRefused(f"/{name} differs in its length")
            checksum = isal_zlib.crc32(data, checksum)
            offset, left = offset + len(data), left - len(data)
            if not left and checksum != piece.checksum:
                raise ArchiveRefused(f"/{name} differs in its content")
            yield data
    finally:
        os.close(fd)
