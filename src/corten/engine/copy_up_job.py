"""The copy-up worker: an image's folder copied into a volume, owners, modes, times, links and attributes kept. Runs in a child of
the launcher.

The child mounts the image read-only in a mount namespace of its own and makes it its root before it looks at the path, so a
symbolic link of the image leads nowhere else; then it can reach that and the target folder (a descriptor), nothing more.
Source: Docker Engine 28.5 (moby container_unix.go CopyImagePathContent): what is copied and what is kept.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

import msgspec

from corten.linux import overlay, syscalls
from corten.linux.mounts import parse_options
from corten.spec.runtime import Mount
from corten.store.confine import confine_to

_CHUNK, _TELL_EVERY = 1 << 26, 1 << 23
_HIDDEN = ("trusted.overlay.", "security.selinux")


class CopyUpRequest(msgspec.Struct, frozen=True):
    """`view` is mounted on `root` (any empty folder); `path` inside it is what to copy."""

    view: Mount
    root: str
    path: str


class CopyUpResult(msgspec.Struct, frozen=True):
    """`kind` of what was there: missing, file (nothing is copied then) or folder."""

    kind: str


def job(argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the target folder, empty and nobody else's, and (if somebody wants to know) where to write how many
    bytes have been copied, eight bytes each time. Returns CopyUpResult as JSON.
    """
    request = msgspec.json.decode(argument, type=CopyUpRequest)
    os.umask(0)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    options = parse_options(request.view.options or [])
    overlay.mount(request.view.source, request.root, request.view.type, options.flags, options.data)
    confine_to(os.open(request.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        status = os.stat(request.path)
    except (FileNotFoundError, NotADirectoryError):
        return _result("missing")
    if not stat.S_ISDIR(status.st_mode):
        return _result("file")
    source = os.open(request.path, os.O_RDONLY | os.O_DIRECTORY)
    copier = _Copier(fds[1] if len(fds) > 1 else -1)
    copier.folder(source, fds[0], status)
    copier.tell()
    os.close(source)
    return _result("folder")


def _result(kind: str) -> bytes:
    return msgspec.json.encode(CopyUpResult(kind))


class _Copier:
    """Works on pairs of folder descriptors, so that no path is ever built or followed."""

    def __init__(self, news: int) -> None:
        self._news, self._copied, self._told = news, 0, 0
        self._linked: dict[tuple[int, int], tuple[int, str]] = {}  # inode -> folder descriptor and name of its copy
        self._kept: list[int] = []

    def folder(self, source: int, target: int, status: os.stat_result) -> None:
        with os.scandir(source) as entries:
            for entry in entries:
                self._entry(source, target, entry.name)
        copy_metadata(source, target, status)

    def _entry(self, source: int, target: int, name: str) -> None:
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            self._enter(source, target, name, status)
            return
        if status.st_nlink > 1 and self._link(target, name, status):
            return
        if kind == stat.S_IFREG:
            _file(source, target, name, status, self._more)
            return
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        self._more(status.st_size)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)

    def _more(self, count: int) -> None:
        self._copied += count
        if self._copied - self._told >= _TELL_EVERY:
            self.tell()

    def tell(self) -> None:
        if self._news >= 0:
            os.write(self._news, self._copied.to_bytes(8, "big"))
            self._told = self._copied

    def _enter(self, source: int, target: int, name: str, status: os.stat_result) -> None:
        os.mkdir(name, 0o700, dir_fd=target)
        inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=source)
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=target)
        try:
            self.folder(inside, made, status)
        finally:
            os.close(inside)
            os.close(made)

    def _link(self, target: int, name: str, status: os.stat_result) -> bool:
        """A further name of a file that was copied already becomes one here too."""
        inode = (status.st_dev, status.st_ino)
        first = self._linked.get(inode)
        if first is None:
            self._linked[inode] = (os.dup(target), name)
            return False
        os.link(first[1], name, src_dir_fd=first[0], dst_dir_fd=target, follow_symlinks=False)
        return True


def _file(source: int, target: int, name: str, status: os.stat_result, more: Callable[[int], None]) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=source)
    try:
        writing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=target)
        try:
            if status.st_size:
                copy_content(reading, writing, status.st_size, more)
            copy_metadata(reading, writing, status)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def copy_content(source: int, target: int, size: int, more: Callable[[int], None]) -> None:
    """`size` bytes in the kernel: shared blocks where the file system has them (copy_file_range(2)), else a copy that never enters user
    space. `more` hears of every piece. A file that has shrunk meanwhile is as long as it is.
    """
    left = size
    try:
        while left and (count := os.copy_file_range(source, target, min(left, _CHUNK))):
            left -= count
            more(count)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        while left and (count := os.sendfile(target, source, None, min(left, _CHUNK))):
            left -= count
            more(count)


def copy_metadata(source: int, target: int, status: os.stat_result) -> None:
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for key in os.listxattr(source):
        if not key.startswith(_HIDDEN):
            try:
                os.setxattr(target, key, os.getxattr(source, key))
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
