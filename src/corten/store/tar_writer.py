"""Writing a folder as a tar, the same bytes for the same tree: sorted names, PAX, whole seconds, numeric owners.

What is in a header is Docker's choice (28.5, moby/go-archive), plus user attributes and ACLs, which it drops. Holes are written
as zeros: Docker loads a layer with GNU's sparse entries, and then cannot save it again. Unpacking makes holes of them.
Must not decide which names are written: layer_diff.py (whiteouts) and the export do. Source: POSIX pax.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

_CHUNK = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_KEPT_ATTRIBUTES = ("user.", "security.capability", "system.posix_acl_")
_OVERLAYS_OWN = "user.overlay."
_XATTR = "SCHILY.xattr."
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE, stat.S_IFIFO: tarfile.FIFOTYPE,
}  # fmt: skip


class Output(Protocol):
    def write(self, data: bytes, /) -> object: ...


class TarWriter:
    """Adds entries to `output`. Paths are the caller's to keep inside. `newest`: later times become this one (nanoseconds)."""

    def __init__(self, output: Output, newest: int | None = None) -> None:
        self._output, self._newest = output, newest
        self._linked: dict[tuple[int, int], str] = {}

    def add(self, path: str, name: str, status: os.stat_result) -> None:
        """One entry, its content included. A socket has no place in a tar and is left out, as Docker does."""
        kind = _TYPES.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return
        entry = self._header(name, status)
        entry.type = kind
        if kind == tarfile.DIRTYPE:
            entry.name += "/"
        elif status.st_nlink > 1:
            first = self._linked.setdefault((status.st_dev, status.st_ino), name)
            if first != name:
                entry.type, entry.linkname = tarfile.LNKTYPE, first
                self._put(entry)
                return
        if kind == tarfile.SYMTYPE:
            try:
                entry.linkname = os.readlink(path)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINVAL):
                    return  # it has gone, or become something else, while we look
                raise
        elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        entry.pax_headers = _attributes(path)
        if kind == tarfile.REGTYPE:
            self._file(path, entry)
        else:
            self._put(entry)

    def marker(self, name: str, mode: int, status: os.stat_result, *, timeless: bool = False) -> None:
        """An empty file that means something by its name: a whiteout."""
        entry = self._header(name, status)
        entry.mode, entry.type = mode, tarfile.REGTYPE
        if timeless:
            entry.mtime = 0
        self._put(entry)

    def document(self, name: str, data: bytes, mtime: int) -> None:
        """A small file made of bytes, root's."""
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = len(data), 0o644, mtime
        self._put(entry)
        self._output.write(data + _padding(len(data)))

    def stream(self, name: str, size: int, mtime: int, pieces: Iterable[bytes]) -> None:
        """A file whose content comes in pieces, `size` bytes together. Raises ValueError if it is not."""
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = size, 0o644, mtime
        self._put(entry)
        left = size
        for data in pieces:
            left -= len(data)
            self._output.write(data)
        if left:
            raise ValueError(f"{name} has {size - left} bytes, and had {size}")
        self._output.write(_padding(size))

    @contextmanager
    def streaming(self, name: str, size: int, mtime: int) -> Iterator[Output]:
        """A file whose content the block writes, `size` bytes together. Raises ValueError if it does not."""
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = size, 0o644, mtime
        self._put(entry)
        counting = _Counting(self._output)
        yield counting
        if counting.length != size:
            raise ValueError(f"{name} has {counting.length} bytes, and should have {size}")
        self._output.write(_padding(size))

    def folder(self, name: str, mtime: int) -> None:
        entry = tarfile.TarInfo(name + "/")
        entry.mode, entry.type, entry.mtime = 0o755, tarfile.DIRTYPE, mtime
        self._put(entry)

    def finish(self) -> None:
        self._output.write(bytes(2 * _BLOCK))

    def _header(self, name: str, status: os.stat_result) -> tarfile.TarInfo:
        entry = tarfile.TarInfo(name)
        time = status.st_mtime_ns if self._newest is None else min(status.st_mtime_ns, self._newest)
        entry.mode, entry.mtime = stat.S_IMODE(status.st_mode), time // 1_000_000_000
        entry.uid, entry.gid = status.st_uid, status.st_gid
        return entry

    def _put(self, entry: tarfile.TarInfo) -> None:
        self._output.write(plain_header(entry) or entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _file(self, path: str, entry: tarfile.TarInfo) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                return  # it has gone, or become something else, while we look
            raise
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return
            entry.size = status.st_size
            self._put(entry)
            self._content(fd, entry.size)
            self._output.write(_padding(entry.size))
        finally:
            os.close(fd)

    def _content(self, fd: int, size: int) -> None:
        """Exactly `size` bytes; a file that has shrunk meanwhile is filled up, or the archive would be torn."""
        left = size
        while left:
            data = os.read(fd, min(_CHUNK, left)) or bytes(min(_CHUNK, left))
            self._output.write(data)
            left -= len(data)


class _Counting:
    def __init__(self, output: Output) -> None:
        self._output, self.length = output, 0

    def write(self, data: bytes) -> None:
        self.length += len(data)
        self._output.write(data)


_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s255s")
_MAGIC = b"ustar\x0000"
_SMALL, _LARGE, _LONGEST = 1 << 21, 1 << 33, 100


def plain_header(entry: tarfile.TarInfo) -> bytes:
    """What tarfile makes of an entry that needs no extended header, many times faster (a layer has thousands); empty for any other."""
    name, link, mtime = entry.name, entry.linkname, entry.mtime
    if (
        entry.pax_headers or len(name) > _LONGEST or len(link) > _LONGEST or not name.isascii() or not link.isascii()
        or entry.type in (tarfile.CHRTYPE, tarfile.BLKTYPE) or (entry.isdir() and not name.endswith("/")) or entry.uname or entry.gname or not isinstance(mtime, int)
        or not (0 <= entry.uid < _SMALL and 0 <= entry.gid < _SMALL and 0 <= entry.size < _LARGE and 0 <= mtime < _LARGE)
    ):  # fmt: skip
        return b""
    fields = (
        name.encode(), b"%07o" % (entry.mode & 0o7777), b"%07o" % entry.uid, b"%07o" % entry.gid, b"%011o" % entry.size, b"%011o" % mtime,
        b"        ", entry.type, link.encode(), _MAGIC,
    )  # fmt: skip
    head = _HEADER.pack(*fields)
    return b"%s%06o\0%s" % (head[:148], sum(head), head[155:])


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _attributes(path: str) -> dict[str, str]:
    try:
        names = sorted(os.listxattr(path, follow_symlinks=False))
    except OSError:
        return {}
    found: dict[str, str] = {}
    for name in names:
        if name.startswith(_KEPT_ATTRIBUTES) and not name.startswith(_OVERLAYS_OWN):
            try:
                value = os.getxattr(path, name, follow_symlinks=False)
            except OSError:
                continue
            found[_XATTR + name] = value.decode("utf-8", "surrogateescape")
    return found
