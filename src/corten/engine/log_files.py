"""The files of a kept log, oldest first, opened: what is open can be read to its end whatever rotation does to its name.

The writer is runtime/logdrivers/rotation.py. Rotated files are `<log>.1` (newest) and up, compressed ones end in `.gz` and name the
inode that they were. Must not know formats.
"""

from __future__ import annotations

import asyncio
import os
import re
import struct
from contextlib import suppress
from dataclasses import dataclass

_BLOCK = 1 << 18
_HELD_FILES, _HELD_BYTES = 16, 64 << 20  # what a follower that is behind may keep from being freed


@dataclass
class LogFile:
    """`identity` is the inode that it had when it was written."""

    fd: int
    identity: int
    packed: bool
    folder: str
    position: int = 0

    async def ready(self) -> int:
        """The descriptor of its plain content."""
        if self.packed:
            plain = await asyncio.to_thread(_unpack, self.fd, self.folder)
            os.close(self.fd)
            self.fd, self.packed = plain, False
        return self.fd


def _unpack(fd: int, folder: str) -> int:
    from isal import isal_zlib

    path = f"{folder}/unpacked.{os.urandom(8).hex()}"
    target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    unpacker, position = isal_zlib.decompressobj(31), 0
    while data := os.pread(fd, _BLOCK, position):
        position += len(data)
        os.write(target, unpacker.decompress(data))
    return target


def _identity(fd: int, *, packed: bool) -> int:
    if packed:
        head = os.pread(fd, 64, 0)
        name = head[10 : head.find(b"\0", 10)]
        if len(head) > 10 and struct.unpack_from("B", head, 3)[0] == 8 and name.isdigit():
            return int(name)
        return -1
    return os.fstat(fd).st_ino


class LogFiles:
    """All that there are now, and (`collect`) those that come. Close it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.files: list[LogFile] = self._open_newer(None)

    def _open(self, number: int) -> tuple[int, bool] | None:
        """(descriptor, whether it is compressed). Where a crash has left a file plain and compressed, the plain one counts."""
        name = f"{self._path}.{number}" if number else self._path
        for suffix in ("", ".gz"):
            with suppress(FileNotFoundError):
                return os.open(name + suffix, os.O_RDONLY | os.O_CLOEXEC), bool(suffix)
        return None

    def _oldest(self) -> int:
        folder, name = os.path.split(self._path)
        pattern = re.compile(re.escape(name) + r"\.(\d+)(?:\.gz)?")
        with suppress(FileNotFoundError):
            return max((int(match[1]) for match in map(pattern.fullmatch, os.listdir(folder)) if match), default=0)
        return 0

    def _open_newer(self, than: int | None) -> list[LogFile]:
        """Oldest first: what is newer than the file with that identity; all if it is not there any more.

        From the newest on: a file that is renamed meanwhile is met again under its next name, and left out then.
        """
        opened: list[LogFile] = []
        for number in range(self._oldest() + 2):
            found = self._open(number)
            if found is None:
                continue
            fd, packed = found
            identity = _identity(fd, packed=packed)
            if identity == than:
                os.close(fd)
                break
            if any(identity == other.identity != -1 for other in opened):
                os.close(fd)
                continue
            opened.insert(0, LogFile(fd, identity, packed, os.path.dirname(self._path)))
        return opened

    def collect(self) -> None:
        """Open what has been started since the newest of ours, which is complete then."""
        if not self.files:
            self.files = self._open_newer(None)
            return
        newest = self.files[-1].identity
        with suppress(FileNotFoundError):
            if os.stat(self._path).st_ino != newest:
                self.files += self._open_newer(newest)
        while len(self.files) > _HELD_FILES and sum(os.fstat(file.fd).st_size for file in self.files) > _HELD_BYTES:
            os.close(self.files.pop(1).fd)

    def drop_first(self) -> None:
        os.close(self.files.pop(0).fd)

    def close(self) -> None:
        while self.files:
            self.drop_first()
