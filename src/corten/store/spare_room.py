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


def before_opening(path: str) -> None:
    """The database may need its room to be opened at all.

    Its own file is touched here only: closing any descriptor of it drops the locks that SQLite holds on it (fcntl(2), POSIX locks).
    """
    _give_up(path)
    _reserve(path, os.O_CREAT)


def opened(path: str) -> None:
    """There is a log now."""
    _reserve(f"{path}-wal", 0)
    _reserve(_spare(path), os.O_CREAT)


def closed(path: str) -> None:
    """Its log has gone: keep room for the next one. Idempotent."""
    _reserve(_spare(path), os.O_CREAT)


def _spare(path: str) -> str:
    return f"{path}.spare"


def _give_up(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(_spare(path))


def _reserve(path: str, flags: int) -> None:
    with suppress(OSError):  # the file system cannot, or has none left: then this is as it would be without
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
        try:
            syscalls.fallocate(fd, syscalls.FALLOC_FL_KEEP_SIZE, os.fstat(fd).st_size, _ROOM)
        finally:
            os.close(fd)
