"""The copy worker: tar in and out of a container's root, running or not. Runs in a child of the launcher.

The child enters the container's mount namespace (or mounts the snapshot in one of its own) and makes the container's
root its own root before it looks at a single path: symlinks and `..` then lead nowhere else.
Source: Docker Engine 28.5 `HEAD|GET|PUT /containers/{id}/archive` (moby daemon/archive_unix.go).
"""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile

import msgspec

from corten.linux import syscalls
from corten.linux.mounts import parse_options
from corten.spec.runtime import Mount
from corten.spec.timestamps import rfc3339_nano
from corten.store.compression import open_decompressed, refusing_corrupt
from corten.store.unpack import Unpacker

# Go's os.FileMode bits, which the path-stat header carries.
_GO_MODES = (
    (stat.S_IFDIR, 1 << 31), (stat.S_IFLNK, 1 << 27), (stat.S_IFIFO, 1 << 25), (stat.S_IFSOCK, 1 << 24),
    (stat.S_IFBLK, 1 << 26), (stat.S_IFCHR, 1 << 26 | 1 << 21),
)  # fmt: skip
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


class CopyRequest(msgspec.Struct, frozen=True):
    """`action` is stat, pack or extract. `pid` of a running container, or 0: then `mounts` go on `root`."""

    action: str
    path: str
    pid: int
    root: str
    mounts: list[Mount]
    no_overwrite: bool = False


class PathStat(msgspec.Struct, frozen=True, rename={"link_target": "linkTarget"}):
    name: str
    size: int
    mode: int
    mtime: str
    link_target: str


def go_mode(mode: int) -> int:
    found = mode & 0o777
    kind = stat.S_IFMT(mode)
    found |= next((bits for value, bits in _GO_MODES if value == kind), 0)
    return found | sum(bits for value, bits in _GO_BITS if mode & value)


def _enter_root(request: CopyRequest) -> None:
    if request.pid:
        fd = os.open(f"/proc/{request.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        root = os.open(f"/proc/{request.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        syscalls.setns(fd, syscalls.CLONE_NEWNS)
        os.close(fd)
        os.fchdir(root)
        os.close(root)
    else:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        for mount in request.mounts:
            options = parse_options(mount.options or [])
            syscalls.mount(mount.source, request.root, mount.type, options.flags, options.data)
        os.chdir(request.root)
    os.chroot(".")
    os.chdir("/")


def _absolute(path: str) -> str:
    """Joined to the root; a trailing `/` or `/.` keeps its meaning: the folder's content."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if path.endswith("/.") or path == ".":
        return posixpath.join(clean, ".")
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def _stat(path: str) -> PathStat:
    found = os.lstat(path.rstrip("/") or "/") if not path.endswith("/.") else os.stat(path)
    target = ""
    if stat.S_ISLNK(found.st_mode):
        target = os.path.realpath(path.rstrip("/"))
    name = posixpath.basename(path.rstrip("/")) or "/"
    return PathStat(name, found.st_size, go_mode(found.st_mode), rfc3339_nano(found.st_mtime_ns), target)


def _pack(path: str, output: int) -> None:
    base = posixpath.basename(path) or posixpath.basename(path.rstrip("/")) or "/"
    source = path.rstrip("/") or "/"
    file = os.fdopen(output, "wb", buffering=1 << 18, closefd=False)
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        if os.path.isdir(path) and not os.path.islink(source):
            archive.add(source, arcname="." if base == "." else base.strip("/") or "/")
        else:
            archive.add(source, arcname=base)
    file.flush()


def _extract(path: str, source: int, *, no_overwrite: bool) -> None:
    if not os.path.isdir(path):
        raise NotADirectoryError(20, "not a directory", path)
    target = os.path.realpath(path)
    reader = open_decompressed(os.fdopen(source, "rb", buffering=1 << 18, closefd=False))
    unpacker = Unpacker(base=target, whiteouts=False, no_overwrite=no_overwrite)
    with refusing_corrupt("the archive"), tarfile.open(fileobj=reader, mode="r|") as archive:
        unpacker.apply(archive)


def job(argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: the descriptor (if any) is the tar's other end. stat returns PathStat as JSON."""
    request = msgspec.json.decode(argument, type=CopyRequest)
    os.umask(0)
    _enter_root(request)
    path = _absolute(request.path)
    if request.action == "stat":
        return msgspec.json.encode(_stat(path))
    if request.action == "pack":
        _pack(path, fds[0])
        return b""
    _extract(path, fds[0], no_overwrite=request.no_overwrite)
    return b""
