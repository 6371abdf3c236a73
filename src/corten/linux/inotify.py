"""Waiting for a file to grow: inotify(7)."""

from __future__ import annotations

import contextlib
import os

from corten.linux import syscalls


class FileWatch:
    """`fd` becomes readable when something in the folder is written, created or renamed."""

    def __init__(self, folder: str) -> None:
        self.fd = syscalls.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        syscalls.inotify_add_watch(self.fd, folder, syscalls.IN_MODIFY | syscalls.IN_CREATE | syscalls.IN_MOVED_TO)

    def clear(self) -> None:
        """Take what has been reported, so that the next change wakes again."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.fd, 1 << 16):
                continue

    def close(self) -> None:
        os.close(self.fd)
