"""Which view of a build is used (`--progress`), and keeping it fresh: also when nothing is said, time goes on."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

import click
import msgspec

from corten.cli.build_view.live import frame
from corten.cli.build_view.plain import Plain
from corten.cli.build_view.terminal import Terminal, is_live
from corten.cli.build_view.trace import Trace, error_logs
from corten.spec.build_status import BuildStatus
from corten.spec.timestamps import now_ns

MODES = ("auto", "plain", "tty", "rawjson", "quiet", "none")
_EVERY = 0.1  # seconds between two pictures
_OFTEN = int(_EVERY * 1e9)


class View(Protocol):
    """Times in nanoseconds. `end` is the last that is called."""

    def take(self, status: BuildStatus, now: int) -> None: ...

    def refresh(self, now: int) -> None: ...

    def end(self, now: int) -> None: ...


class Live:
    """On a terminal. Drawn ten times a second at most."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._terminal, self._trace = stream, Terminal(stream), Trace()
        self._drawn = 0

    def take(self, status: BuildStatus, now: int) -> None:
        self._trace.take(status)
        if now - self._drawn >= _OFTEN:
            self.refresh(now)

    def refresh(self, now: int) -> None:
        self._drawn = now
        width, height = self._terminal.size()
        self._terminal.draw(frame(self._trace, now, height), width)

    def end(self, now: int) -> None:
        width, height = self._terminal.size()
        self._terminal.draw(frame(self._trace, now, height, last=True), width)
        for line in error_logs(self._trace):
            self._stream.write(f"{line}\n")
        self._stream.flush()


class RawJson:
    """What the engine says, as it says it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def take(self, status: BuildStatus, now: int) -> None:
        self._stream.write(f"{msgspec.json.encode(status).decode()}\n")
        self._stream.flush()

    def refresh(self, now: int) -> None:
        """Nothing is held back."""

    def end(self, now: int) -> None:
        """Nothing is held back."""


class Lines(Plain):
    """Plain, and written out at once."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream.write)
        self._stream = stream

    def refresh(self, now: int) -> None:
        super().refresh(now)
        self._stream.flush()


def view_of(mode: str, stream: TextIO) -> View:
    """Of `auto`, plain, tty and rawjson. Raises BadParameter for a terminal that is none."""
    if mode == "rawjson":
        return RawJson(stream)
    if mode == "tty" and not is_live(stream):
        raise click.BadParameter("failed to get console: standard error is not a terminal (use --progress=plain)", param_hint="--progress")
    return Live(stream) if mode == "tty" or (mode == "auto" and is_live(stream)) else Lines(stream)


class Shown:
    """A view that several threads may talk to."""

    def __init__(self, view: View) -> None:
        self._view, self._lock = view, threading.Lock()

    def take(self, status: BuildStatus) -> None:
        with self._lock:
            self._view.take(status, now_ns())

    @contextmanager
    def kept_fresh(self) -> Iterator[None]:
        """For the block; at its end, however it ends, the view is brought to its own."""
        over = threading.Event()

        def refresh() -> None:
            while not over.wait(_EVERY):
                with self._lock:
                    self._view.refresh(now_ns())

        thread = threading.Thread(target=refresh, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._view.end(now_ns())


def shown(mode: str) -> Shown:
    """On standard error, where buildx has it: standard output is for results."""
    return Shown(view_of(mode, sys.stderr))
