"""The files of containers' logs that are done with: rotated ones, whose writer has begun another. Finding, measuring, removing them.

Writing and rotating is runtime/logdrivers/rotation.py's, and goes on meanwhile. Reading is engine/log_files.py's. Must not know formats.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from corten.store.layout import Layout


@dataclass(frozen=True)
class Rotated:
    """`inode` tells the file from others whatever rotation calls it by now; `written`: its last record, nanoseconds since the epoch."""

    path: str
    inode: int
    size: int
    written: int


class ContainerLogs:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def _current(self, container_id: str) -> tuple[str, ...]:
        """Wherever a container's log may be kept: an edited one has had several drivers."""
        return self._layout.log(container_id), self._layout.local_log(container_id), self._layout.cached_log(container_id)

    def size(self, container_id: str) -> int:
        """Bytes of the files that are still written."""
        total = 0
        for path in self._current(container_id):
            with suppress(FileNotFoundError):
                total += os.stat(path).st_size
        return total

    def rotated(self, container_id: str) -> list[Rotated]:
        return [found for path in self._current(container_id) for found in _rotated(path)]

    def remove(self, container_id: str, inode: int) -> bool:
        """Remove a rotated file by what it was when it was found; False if it is not there any more.

        A rotation in the very moment between the look and the unlink has the next younger one go instead, as the rotation itself
        removes the oldest.
        """
        for found in self.rotated(container_id):
            if found.inode == inode:
                with suppress(FileNotFoundError):
                    os.unlink(found.path)
                    return True
        return False


def _rotated(path: str) -> Iterator[Rotated]:
    folder, name = os.path.split(path)
    pattern = re.compile(re.escape(name) + r"\.\d+(?:\.gz)?")
    with suppress(FileNotFoundError):
        for entry in os.listdir(folder):
            with suppress(FileNotFoundError):  # renamed meanwhile: the next look finds it
                if pattern.fullmatch(entry):
                    found = os.stat(f"{folder}/{entry}")
                    yield Rotated(f"{folder}/{entry}", found.st_ino, found.st_size, found.st_mtime_ns)
