"""A container's streams on this terminal: output to stdout and stderr, input and window size back."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from corten.api.client import demultiplex
from corten.errors import CortenError

_CHUNK = 1 << 16


@contextmanager
def raw_terminal(wanted: bool) -> Iterator[None]:
    """Keys go to the container unchanged; restored on the way out."""
    if not wanted or not sys.stdin.isatty():
        yield
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _send_input(sock: socket.socket) -> None:
    with suppress(OSError):
        while data := os.read(0, _CHUNK):
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)


def write_frames(read: Callable[[int], bytes]) -> None:
    for number, data in demultiplex(read):
        target = sys.stderr.buffer if number == 2 else sys.stdout.buffer
        target.write(data)
        target.flush()


def relay(sock: socket.socket, *, terminal: bool, interactive: bool, resize: Callable[[int, int], object]) -> None:
    """Until the other side ends the stream."""
    if interactive:
        threading.Thread(target=_send_input, args=(sock,), daemon=True).start()
    if not terminal:
        write_frames(sock.recv)
        return

    def follow_size(*_: object) -> None:
        columns, lines = shutil.get_terminal_size()
        with suppress(CortenError):  # it has just ended, or has no terminal yet: the next change is sent again
            resize(lines, columns)

    follow_size()
    signal.signal(signal.SIGWINCH, follow_size)
    with raw_terminal(interactive):
        while data := sock.recv(_CHUNK):
            os.write(1, data)
