"""Pseudo terminals: opening a pair from a given devpts, and window sizes. Source: pty(7), ioctl_tty(2)."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431
_TIOCGPTN = 0x80045430


def open_pair(ptmx: str) -> tuple[int, int, int]:
    """Open a new terminal of the devpts behind `ptmx`. Returns (controlling side, terminal side, number)."""
    master = os.open(ptmx, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    number = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))[0]
    terminal = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, terminal, number


def set_window_size(fd: int, height: int, width: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def window_size(fd: int) -> tuple[int, int]:
    """(height, width) in characters."""
    height, width, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return height, width


def make_controlling(fd: int) -> None:
    """Make the terminal the controlling one of the calling session leader."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
