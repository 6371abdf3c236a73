r"""Writing a container's output in Docker's json-file format, rotated. Source: moby daemon/logger/jsonfilelog.

One object a line: {"log": "...\n", "stream": "stdout", "time": RFC 3339 with nanoseconds}. Lines longer than 16 KiB are
split, as Docker splits them. Reading is the engine's work (engine/logs.py); both ends know only this format.
"""

from __future__ import annotations

import os
from contextlib import suppress

import msgspec

from corten.spec.timestamps import now_ns, rfc3339_nano

LINE_LIMIT = 16 * 1024
_text = msgspec.json.Encoder().encode


class LogFile:
    """Appends; keeps an unfinished line of each stream until its newline, the limit, or close()."""

    def __init__(self, path: str, max_size: int, max_file: int) -> None:
        self._path, self._max_size, self._max_file = path, max_size, max_file
        self._partial = {"stdout": b"", "stderr": b""}
        self._fd = -1
        self._size = 0
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: str, data: bytes) -> None:
        """Take output in any pieces. A full disk loses lines, never the container: the error is not raised."""
        data = self._partial[stream] + data
        lines = data.split(b"\n")
        self._partial[stream] = lines.pop()
        complete = [line + b"\n" for line in lines]
        if len(self._partial[stream]) >= LINE_LIMIT:
            complete.append(self._partial[stream])
            self._partial[stream] = b""
        if complete:
            self._append(stream, complete)

    def _append(self, stream: str, lines: list[bytes]) -> None:
        tail = b',"stream":"%s","time":"%s"}\n' % (stream.encode(), rfc3339_nano(now_ns()).encode())
        records = [b'{"log":' + _text(piece.decode("utf-8", "replace")) + tail for line in lines for piece in _pieces(line)]
        block = b"".join(records)
        if self._max_size > 0 and self._size + len(block) > self._max_size:
            for record in records:
                self._put(record)
        else:
            self._put(block)

    def _put(self, block: bytes) -> None:
        if self._max_size > 0 and self._size and self._size + len(block) > self._max_size:
            self._rotate()
        with suppress(OSError):
            self._size += os.write(self._fd, block)

    def _rotate(self) -> None:
        os.close(self._fd)
        if self._max_file > 1:
            for number in range(self._max_file - 1, 1, -1):
                with suppress(FileNotFoundError):
                    os.rename(f"{self._path}.{number - 1}", f"{self._path}.{number}")
            os.rename(self._path, f"{self._path}.1")
        else:
            os.truncate(self._path, 0)
        self._open()

    def close(self) -> None:
        """Write what has no newline yet, and close."""
        for stream, rest in self._partial.items():
            if rest:
                self._append(stream, [rest])
        os.close(self._fd)


def _pieces(line: bytes) -> list[bytes]:
    if len(line) <= LINE_LIMIT + 1:
        return [line]
    return [line[start : start + LINE_LIMIT] for start in range(0, len(line), LINE_LIMIT)]
