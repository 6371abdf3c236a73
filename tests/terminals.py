"""A program on a terminal of its own, and what a person would see there: pyte, a terminal emulator that is not ours, is the judge."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence

import pyte


class Terminal:
    """`screen.display` are the rows as they are seen, `scrolled` those that have left at the top, `raw` all bytes."""

    def __init__(self, command: Sequence[str], *, columns: int = 80, rows: int = 24, env: Mapping[str, str] | None = None) -> None:
        ours, theirs = pty.openpty()
        self._fd = ours
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=0.5)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        _set_size(ours, columns, rows)
        plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "BUILDKIT_PROGRESS")}
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=theirs, stdout=theirs, stderr=theirs, env={**plain, "TERM": "xterm-256color", **(env or {})},
        )  # fmt: skip
        os.close(theirs)

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        _set_size(self._fd, columns, rows)

    def press(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    @property
    def scrolled(self) -> list[str]:
        return ["".join(row[column].data for column in range(self.screen.columns)).rstrip() for row in self.screen.history.top]

    @property
    def text(self) -> str:
        return "\n".join([*self.scrolled, *(row.rstrip() for row in self.screen.display)])

    def until(self, seen: Callable[[], bool], patience: float = 60) -> None:
        """Follow until it is so. Raises AssertionError with the picture if that never comes."""
        end = time.monotonic() + patience
        while not seen():
            assert time.monotonic() < end and self._follow(), self.text

    def wait(self, patience: float = 60) -> int:
        """The exit code; everything has been read then."""
        end = time.monotonic() + patience
        while self._follow():
            assert time.monotonic() < end, self.text
        return self.process.wait(10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._fd)

    def _follow(self) -> bool:
        """False: nothing more can come."""
        if not select.select([self._fd], [], [], 0.2)[0]:
            return True
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)


def _set_size(fd: int, columns: int, rows: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
