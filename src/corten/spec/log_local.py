"""The format of Docker's `local` driver, both ways: bytes stay bytes. Pure.

A record is its length (4 bytes, big-endian), a protobuf LogEntry, and its length again, so that it can be read backwards.
LogEntry: 1 source, 2 time in nanoseconds, 3 line (without newline), 4 partial, 5 {1 last, 2 id, 3 ordinal}, 6 {1 key, 2 value}.
Source: moby daemon/logger/local and internal/logdriver/entry.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain

from corten.spec.log_lines import Attributes, Piece, Run

LENGTH = struct.Struct(">I")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def encode(run: Run) -> bytes:
    """Its records. Lines of one length have the same head and end: each is made once."""
    before = _field(1, run.stream.encode()) + b"\x10" + _varint(run.time) + b"\x1a"
    after = b""
    piece = run.piece or (None if run.data.endswith(b"\n") else Piece("", 1, last=False))
    if piece:
        last = b"\x08\x01" if piece.last else b""
        after = b"\x20\x01" + _field(5, last + _field(2, piece.id.encode()) + b"\x18" + _varint(piece.ordinal))
    for key, value in run.attributes:
        after += _field(6, _field(1, key.encode()) + _field(2, value.encode()))
    heads: dict[int, bytes] = {}
    ends: dict[int, bytes] = {}
    lines = run.lines()
    lengths = list(map(len, lines))
    for length in set(lengths):
        size = _varint(length)
        total = LENGTH.pack(len(before) + len(size) + length + len(after))
        heads[length], ends[length] = total + before + size, after + total
    return b"".join(chain.from_iterable(zip(map(heads.__getitem__, lengths), lines, map(ends.__getitem__, lengths), strict=True)))


def decode(block: bytes) -> Iterator[Run]:
    """The runs of a block of whole records: neighbours that share all but their lines become one."""
    position = 0
    open_run: tuple[str, int, Attributes] | None = None
    lines: list[bytes] = []
    while position + 4 <= len(block):
        (size,) = LENGTH.unpack_from(block, position)
        entry = _entry(block, position + 4, position + 4 + size)
        position += size + 8
        key = (entry.stream, entry.time, entry.attributes)
        if open_run and (entry.piece or key != open_run):
            yield _joined(open_run, lines)
            open_run, lines = None, []
        if entry.piece:
            yield entry
            continue
        open_run = key
        lines.append(entry.data)
    if open_run:
        yield _joined(open_run, lines)


def _joined(key: tuple[str, int, Attributes], lines: list[bytes]) -> Run:
    stream, time, attributes = key
    return Run(stream, time, b"".join(lines), attributes)


def _fields(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """(number, value of a varint, bytes of a length-delimited field)."""
    while position < end:
        tag, position = _read_varint(data, position)
        value, position = _read_varint(data, position)
        if tag & 7 == 2:
            yield tag >> 3, value, data[position : position + value]
            position += value
        else:
            yield tag >> 3, value, b""


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _entry(data: bytes, position: int, end: int) -> Run:
    stream, time, line, piece = "stdout", 0, b"", None
    attributes: list[tuple[str, str]] = []
    for number, value, content in _fields(data, position, end):
        match number:
            case 1:
                stream = content.decode()
            case 2:
                time = value
            case 3:
                line = content
            case 5:
                piece = _piece(content)
            case 6:
                found = {key: text.decode() for key, _, text in _fields(content, 0, len(content))}
                attributes.append((found.get(1, ""), found.get(2, "")))
    ended = piece is None or piece.last
    return Run(stream, time, line + b"\n" if ended else line, tuple(attributes), piece)


def _piece(data: bytes) -> Piece:
    found = {number: (value, content) for number, value, content in _fields(data, 0, len(data))}
    nothing = (0, b"")
    return Piece(found.get(2, nothing)[1].decode(), found.get(3, nothing)[0], bool(found.get(1, nothing)[0]))


def ends_whole(tail: bytes) -> bool:
    """Whether a file's last 128 KiB (or all of it) end with a whole record: its two lengths agree."""
    if len(tail) < 8:
        return not tail
    (size,) = LENGTH.unpack(tail[-4:])
    return size + 8 <= len(tail) and tail[-size - 8 : -size - 4] == tail[-4:]


def whole(block: bytes) -> int:
    """How much of a block is whole records."""
    position = 0
    while position + 4 <= len(block):
        end = position + LENGTH.unpack_from(block, position)[0] + 8
        if end > len(block):
            break
        position = end
    return position
