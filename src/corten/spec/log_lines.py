"""What a process has written, cut into log lines as Docker cuts it. Pure.

A Run is the unit of everything that handles logs: the lines of one stream that one read brought, so they share their time and
attributes. A million lines are some thousand runs, and a run is handled with bytes operations, not line by line.
Source: moby daemon/logger/copier.go (28.5).
"""

from __future__ import annotations

import codecs
import os

import msgspec

LINE_LIMIT = 16 * 1024
Attributes = tuple[tuple[str, str], ...]


class Piece(msgspec.Struct, frozen=True, gc=False):
    """Which part of a line longer than LINE_LIMIT this is; `ordinal` counts from 1."""

    id: str
    ordinal: int
    last: bool


class Run(msgspec.Struct, frozen=True, gc=False):
    """`data` is one or more whole lines with their newlines, or (`piece` is set, or the writer is another) one without.

    `time` is nanoseconds since the epoch.
    """

    stream: str
    time: int
    data: bytes
    attributes: Attributes = ()
    piece: Piece | None = None

    def lines(self) -> list[bytes]:
        """The lines without their newlines."""
        lines = self.data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        return lines


def _each_byte(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("corten-each-byte", _each_byte)


def as_text(data: bytes) -> str:
    """UTF-8 with every byte that is none replaced, as Go does it (Python makes one mark of several bytes)."""
    return data.decode("utf-8", "corten-each-byte")


class Splitter:
    """One stream's output in, runs with `attributes` out. Any chunking of the same bytes gives the same lines."""

    def __init__(self, stream: str, attributes: Attributes = ()) -> None:
        self._stream, self.attributes = stream, attributes
        self._rest = b""
        self._piece: Piece | None = None
        self._piece_time = 0

    def feed(self, data: bytes, time: int) -> list[Run]:
        """`time` is when the data was read. A line without its newline yet is kept, up to LINE_LIMIT."""
        data = self._rest + data
        runs: list[Run] = []
        start = position = 0
        while len(data) - position >= LINE_LIMIT or data.find(b"\n", position) >= 0:
            newline = data.rfind(b"\n", position, position + LINE_LIMIT)
            if newline >= 0 and self._piece is None:
                position = newline + 1
                continue
            if start < position:
                runs.append(Run(self._stream, time, data[start:position], self.attributes))
            end = position + LINE_LIMIT
            if newline >= 0:  # the end of a long line: only as far as the first newline
                end = data.find(b"\n", position) + 1
            runs.append(self._long(data[position:end], time, last=newline >= 0))
            start = position = end
        if start < position:
            runs.append(Run(self._stream, time, data[start:position], self.attributes))
        self._rest = data[position:]
        return runs

    def finish(self, time: int) -> list[Run]:
        """The end of the stream: what has no newline is a line that was begun."""
        rest, self._rest = self._rest, b""
        return [self._long(rest, time, last=False)] if rest else []

    def _long(self, data: bytes, time: int, *, last: bool) -> Run:
        """Pieces of one line have one id and the time of its first."""
        if self._piece is None:
            self._piece_time = time
            piece = Piece(os.urandom(32).hex(), 1, last)
        else:
            piece = Piece(self._piece.id, self._piece.ordinal + 1, last)
        self._piece = None if last else piece
        return Run(self._stream, self._piece_time, data, self.attributes, piece)
