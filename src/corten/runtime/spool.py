"""What waits for one client that reads slowly: a little in memory, the rest in unlinked files, up to a limit.

Files are handed to the connection by the kernel (sendfile), so a client that is far behind costs disk and no memory.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

LIMIT = 64 << 20
_MEMORY = 256 << 10
_FILE = 8 << 20


@dataclass
class _File:
    fd: int
    written: int = 0
    sent: int = 0


class Spool:
    """First in, first out. `folder` is on disk; nothing in it has a name."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._memory = bytearray()
        self._files: deque[_File] = deque()
        self._disk_full = False
        self.size = 0

    @property
    def full(self) -> bool:
        return self.size >= LIMIT or self._disk_full

    def append(self, data: bytes) -> None:
        """Always taken; whether more should come is said by `full`."""
        self.size += len(data)
        if not self._files and len(self._memory) < _MEMORY:
            self._memory += data
            return
        while data:
            try:
                data = data[self._write(data) :]
            except OSError:
                self._keep(data)
                return

    def _write(self, data: bytes) -> int:
        if not self._files or self._files[-1].written >= _FILE:
            self._files.append(_File(_unnamed(self._folder)))
        last = self._files[-1]
        written = os.pwrite(last.fd, data, last.written)
        last.written += written
        return written

    def _keep(self, data: bytes) -> None:
        """No disk: one more piece is kept in memory, in a file of the kernel's, and no further one is wanted."""
        self._disk_full = True
        with suppress(OSError):
            fd = os.memfd_create("corten-spool", os.MFD_CLOEXEC)
            self._files.append(_File(fd, os.pwrite(fd, data, 0)))

    def send(self, sock: socket.socket) -> None:
        """Send what the connection takes. Raises BlockingIOError when it takes no more, OSError when it has gone."""
        while self._memory:
            sent = sock.send(self._memory, socket.MSG_NOSIGNAL)
            del self._memory[:sent]
            self.size -= sent
        while self._files:
            first = self._files[0]
            while first.sent < first.written:
                sent = os.sendfile(sock.fileno(), first.fd, first.sent, first.written - first.sent)
                first.sent += sent
                self.size -= sent
            os.close(self._files.popleft().fd)
        self._disk_full = False

    def close(self) -> None:
        while self._files:
            os.close(self._files.popleft().fd)
        self._memory.clear()
        self.size = 0


def _unnamed(folder: str) -> int:
    path = f"{folder}/spool.{os.getpid()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return fd
