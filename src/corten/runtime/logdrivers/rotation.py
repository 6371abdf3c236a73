"""A log's file, and the older ones beside it: `<path>.1` is the newest of them; compressed ones end in `.gz`.

A full disk loses what does not fit, never more: no half record is left, nothing is raised. A follower that holds a file open
reads it to its end after it was renamed, compressed or removed; a compressed file names the inode that it was (GZIP's FNAME), so that
such a reader knows where it stands. Compression runs in a child: the monitor serves others meanwhile.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from contextlib import suppress

from corten.linux import descriptors
from corten.runtime.reactor import READ, Reactor

_BLOCK = 1 << 18
_TEMPORARY = ".gz.new"


class RotatedFile:
    """`max_size` 0 means one file without limit. A size over the limit is only ever that of a single record."""

    def __init__(self, path: str, max_size: int, max_file: int, reactor: Reactor, *, compress: bool) -> None:
        self._path, self._max_size, self._max_file = path, max_size, max_file
        self._reactor, self._compress = reactor, compress
        self._fd, self._size = -1, 0
        self._compressing = 0  # the number that the file being compressed has by now; 0: none
        self._complained = False
        self._open()
        if compress:
            self._clear_up()
            self._compress_next()

    def _open(self) -> None:
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size

    def has_room(self, size: int) -> bool:
        return not self._max_size or self._size + size <= self._max_size

    def append(self, records: bytes) -> None:
        """All of them or, on a full disk, none."""
        try:
            if self._fd < 0:
                self._open()
            written = os.write(self._fd, records)
            if written < len(records):
                os.ftruncate(self._fd, self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if not self._complained:
                self._complained = True
                sys.stderr.write(f"log {self._path}: {error.strerror}; output is lost until there is room\n")
                sys.stderr.flush()
            return
        self._complained = False
        self._size += written

    def rotate(self) -> None:
        """The next record starts a file. Without older files to keep, the old one is gone once its readers are."""
        if not self._size:
            return
        os.close(self._fd)
        self._fd, self._size = -1, 0
        with suppress(OSError):
            self._remove(self._max_file - 1)
            for number in range(self._max_file - 2, 0, -1):
                self._rename(number)
            if self._max_file > 1:
                os.rename(self._path, f"{self._path}.1")
            else:
                os.unlink(self._path)
        if self._compressing:
            self._compressing += 1
        with suppress(OSError):  # a full disk: tried again with the next record
            self._open()
        if self._compress:
            self._compress_next()

    def _remove(self, number: int) -> None:
        for suffix in ("", ".gz"):
            with suppress(FileNotFoundError):
                if number:
                    os.unlink(f"{self._path}.{number}{suffix}")

    def _rename(self, number: int) -> None:
        for suffix in ("", ".gz"):
            with suppress(FileNotFoundError):
                os.rename(f"{self._path}.{number}{suffix}", f"{self._path}.{number + 1}{suffix}")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    # --- compression
    def _clear_up(self) -> None:
        """What a monitor that was killed while it compressed has left."""
        folder, name = os.path.split(self._path)
        for entry in os.listdir(folder):
            if entry.startswith(name) and entry.endswith(_TEMPORARY):
                with suppress(FileNotFoundError):
                    os.unlink(f"{folder}/{entry}")
        for number in range(1, self._max_file):
            if os.path.exists(f"{self._path}.{number}"):
                with suppress(FileNotFoundError):
                    os.unlink(f"{self._path}.{number}.gz")

    def _compress_next(self) -> None:
        """Start on the oldest file that is not compressed yet, one at a time."""
        waiting = [number for number in range(self._max_file - 1, 0, -1) if os.path.exists(f"{self._path}.{number}")]
        if self._compressing or not waiting:
            return
        try:
            source = os.open(f"{self._path}.{waiting[0]}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        temporary = f"{self._path}.{os.urandom(4).hex()}{_TEMPORARY}"
        try:
            target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        except OSError:
            os.close(source)
            return
        pid = os.fork()
        if pid == 0:
            _compress_and_exit(source, target)
        identity = os.fstat(source).st_ino
        os.close(source)
        os.close(target)
        self._compressing = waiting[0]
        pidfd = os.pidfd_open(pid)
        self._reactor.watch(pidfd, READ, lambda _mask: self._compressed(pid, pidfd, identity, temporary))

    def _compressed(self, pid: int, pidfd: int, identity: int, temporary: str) -> None:
        """Its file has another number by now, or is gone, or is somebody else's: the container may have been started again meanwhile."""
        self._reactor.forget(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        number, self._compressing = self._compressing, 0
        plain = f"{self._path}.{number}"
        try:
            kept = not status and os.stat(plain).st_ino == identity
        except OSError:
            kept = False
        with suppress(OSError):
            if kept:
                os.rename(temporary, f"{plain}.gz")
                os.unlink(plain)
            else:
                os.unlink(temporary)
        if not status:  # a full disk is not tried again at once
            self._compress_next()


def _compress_and_exit(source: int, target: int) -> None:
    """In the child. GZIP by hand (RFC 1952) for the name in its header; status 0 once all is on disk."""
    status = 1
    try:
        descriptors.close_all_but({2, source, target})
        os.nice(10)
        from isal import isal_zlib

        name = str(os.fstat(source).st_ino).encode()
        checksum = size = 0
        packer = isal_zlib.compressobj(1, isal_zlib.DEFLATED, -15)
        with open(target, "wb") as file:
            file.write(b"\x1f\x8b\x08\x08\0\0\0\0\0\x03" + name + b"\0")
            while data := os.read(source, _BLOCK):
                checksum, size = isal_zlib.crc32(data, checksum), size + len(data)
                file.write(packer.compress(data))
            file.write(packer.flush() + struct.pack("<II", checksum, size & 0xFFFFFFFF))
            file.flush()
            os.fsync(file.fileno())
        status = 0
    finally:
        os._exit(status)
