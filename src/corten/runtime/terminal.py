"""Between the user's terminal and a container's: raw mode, bytes both ways, window size. For the OCI command line."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from corten.linux import pty

_CHUNK = 1 << 16


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Keys go through unchanged inside the block. Not a terminal: nothing to do."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def relay_terminal(master: int, ended: int) -> None:
    """Copy until `ended` (a pidfd) is readable and the terminal has nothing more."""

    def resize(*_: object) -> None:
        with suppress(OSError):
            pty.set_window_size(master, *pty.window_size(sys.stdin.fileno()))

    resize()
    signal.signal(signal.SIGWINCH, resize)
    inputs = [master, ended, 0]
    with raw_mode(0):
        while True:
            ready, _, _ = select.select(inputs, [], [])
            if 0 in ready:
                data = os.read(0, _CHUNK)
                if data:
                    os.write(master, data)
                else:
                    inputs.remove(0)
            if master in ready:
                try:
                    data = os.read(master, _CHUNK)
                except OSError:
                    data = b""
                if not data:
                    return
                os.write(1, data)
            elif ended in ready:
                return
