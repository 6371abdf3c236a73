"""Room on disk for the state database alone, for when the file system is full: stopping and removing containers, which is how space
is made, changes rows.

Blocks are reserved behind the ends of the database and of its log (fallocate(2), FALLOC_FL_KEEP_SIZE), where nobody else gets them and
nobody sees them. The log is removed when the database is closed; the room for the next one is kept in a file beside it meanwhile. On
file systems that reserve nothing, and when there is no room to reserve, all this does nothing.
"""

from __future__ import annotations

import os
from contextlib import suppress

from corten.linux import syscalls

_ROOM = 4 << 20  # what SQLite lets its log grow to before it empties it: a thousand pages


def _spare(path: str) -> str:
    return f"{path}.spare"


def give(path: str) -> None:
    """Before the database is opened: it may need the room to be opened at all."""
    with suppress(FileNotFoundError):
        os.unlink(_spare(path))


def reserve(path: str) -> None:
    """While it is open: behind the end of the database and of its log."""
    for name in (path, f"{path}-wal"):
        with suppress(OSError):  # the file system cannot, or has none left: then this is as it would be without
            _allocate(name, os.O_RDWR)


def take(path: str) -> None:
    """For the log that will be made when the database is opened the next time. Idempotent."""
    try:
        _allocate(_spare(path), os.O_RDWR | os.O_CREAT)
    except OSError:
        give(path)


def _allocate(path: str, flags: int) -> None:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        syscalls.fallocate(fd, syscalls.FALLOC_FL_KEEP_SIZE, size, _ROOM)
    finally:
        os.close(fd)
