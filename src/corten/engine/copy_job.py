"""The copy worker: tar in and out of a container's root, running or not. Runs in a child of the launcher.

The child makes itself a view of the root in a mount namespace of its own: the writable layer, what the user has mounted and the
network files, no /proc, /sys or /dev. That view is its root before it looks at a single path, and paths are opened by
openat2 without magic links: a process inside may swap links as it likes, nothing leads out.
Source: Docker Engine 28.5 `HEAD|GET|PUT /containers/{id}/archive`, `GET /containers/{id}/export` (moby daemon/archive_unix.go).
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import stat
import tarfile
from contextlib import suppress

import msgspec

from corten.linux import mounts, overlay, syscalls
from corten.runtime import users
from corten.runtime.operations import MountInto, Sandbox
from corten.spec.runtime import Mount
from corten.spec.timestamps import rfc3339_nano
from corten.store.compression import open_decompressed, refusing_corrupt
from corten.store.tar_writer import TarWriter
from corten.store.unpack import Unpacker

# Go's os.FileMode bits, which the path-stat header carries.
_GO_MODES = (
    (stat.S_IFDIR, 1 << 31), (stat.S_IFLNK, 1 << 27), (stat.S_IFIFO, 1 << 25), (stat.S_IFSOCK, 1 << 24),
    (stat.S_IFBLK, 1 << 26), (stat.S_IFCHR, 1 << 26 | 1 << 21),
)  # fmt: skip
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))
_CHUNK = 1 << 18
_UMOUNT_NOFOLLOW = 8
_INSIDE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS


class Point(msgspec.Struct, frozen=True):
    """A place in the container where something of the user's is mounted."""

    path: str
    writable: bool = True


class CopyRequest(msgspec.Struct, frozen=True):
    """`action` is stat, pack, extract or export.

    `pid` of a running container, or 0: then `mounts` go on `root`, and `inside` into it. `points` are what of the mounts
    the client may see. `owner`: the container's user string, to whom all that is extracted shall belong; empty: as the tar says.
    """

    action: str
    path: str
    pid: int
    root: str
    mounts: list[Mount]
    inside: list[Mount]
    points: list[Point]
    readonly: bool = False
    no_overwrite: bool = False
    owner: str = ""


class PathStat(msgspec.Struct, frozen=True, rename={"link_target": "linkTarget"}):
    name: str
    size: int
    mode: int
    mtime: str
    link_target: str


class ReadOnly(Exception):
    """Docker's text; the engine makes it a 400."""

    expected = True


class Refused(Exception):
    """A path that cannot be, with Docker's text; the engine makes it a 500."""

    expected = True


def go_mode(mode: int) -> int:
    found = mode & 0o777
    kind = stat.S_IFMT(mode)
    found |= next((bits for value, bits in _GO_MODES if value == kind), 0)
    return found | sum(bits for value, bits in _GO_BITS if mode & value)


# --- the view
def _enter_view(request: CopyRequest) -> None:
    if request.pid:
        _enter_running(request)
    else:
        _mount_stopped(request)
    os.chroot(".")
    os.chdir("/")


def _enter_running(request: CopyRequest) -> None:
    """A copy of the container's mounts without those that are not the user's; for an export its root's alone."""
    hidden = [] if request.action == "export" else _hidden(mounts.mount_table(f"/proc/{request.pid}/mountinfo"), request.points)
    namespace = os.open(f"/proc/{request.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    root = os.open(f"/proc/{request.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.setns(namespace, syscalls.CLONE_NEWNS)
    if request.action == "export":
        alone = syscalls.open_tree(root, "", syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC | syscalls.AT_EMPTY_PATH)
        os.fchdir(alone)
        return
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    for path in hidden:
        syscalls.umount2(path, syscalls.MNT_DETACH | _UMOUNT_NOFOLLOW)
    os.chdir("/")


def _hidden(table: list[mounts.MountInfo], points: list[Point]) -> list[str]:
    """Pure: the mounts to take away, innermost and newest first."""
    found = [mount.point for mount in table if mount.point != "/" and not any(_below(mount.point, point.path) for point in points)]
    return found[::-1]


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _mount_stopped(request: CopyRequest) -> None:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    for mount in request.mounts:
        options = mounts.parse_options(mount.options or [])
        overlay.mount(mount.source, request.root, mount.type, options.flags, options.data)
    sandbox = Sandbox(root_fd=os.open(request.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    for mount in request.inside:
        MountInto(mount).perform(sandbox)
    os.fchdir(sandbox.root_fd)


# --- paths
def _absolute(path: str) -> str:
    """Joined to the root; a trailing `/` or `/.` keeps its meaning: the folder's content."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if path.endswith("/.") or path == ".":
        return posixpath.join(clean, ".")
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def _open(path: str, flags: int) -> int:
    return syscalls.openat2(mounts.AT_FDCWD, path, flags, resolve=_INSIDE)


def _look(path: str) -> os.stat_result:
    """lstat(2). Raises FileNotFoundError, Refused."""
    try:
        flags = os.O_PATH if path.endswith(("/", "/.")) else os.O_PATH | os.O_NOFOLLOW
        if path.endswith("/"):
            flags |= os.O_DIRECTORY
        fd = _open(path, flags)
    except NotADirectoryError:
        raise Refused(f"lstat {path}: not a directory") from None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _stat(path: str, called: str) -> PathStat:
    found = _look(path)
    target = _link_target(path) if stat.S_ISLNK(found.st_mode) else ""
    name = posixpath.basename(called.rstrip("/")) or "/"
    return PathStat(name, found.st_size, go_mode(found.st_mode), rfc3339_nano(found.st_mtime_ns), target)


def _link_target(path: str) -> str:
    """The path that a link leads to; empty for what has become something else meanwhile."""
    try:
        return os.path.realpath(path)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return ""


# --- out
def _pack(path: str, output: int) -> None:
    found = _look(path)
    base = posixpath.basename(path.rstrip("/"))
    with os.fdopen(output, "wb", buffering=_CHUNK, closefd=False) as file:
        writer = TarWriter(file)
        if stat.S_ISDIR(found.st_mode):
            os.chdir(fd := _open(path, os.O_RDONLY | os.O_DIRECTORY))
            writer.add(".", base, os.fstat(fd))
            _walk(writer, "", base)
        else:
            os.chdir(fd := _open(posixpath.dirname(path) or "/", os.O_RDONLY | os.O_DIRECTORY))
            writer.add(base, base, os.lstat(base))
        writer.finish()


def _export(output: int) -> None:
    with os.fdopen(output, "wb", buffering=_CHUNK, closefd=False) as file:
        writer = TarWriter(file)
        _walk(writer, "", None)
        writer.finish()


def _walk(writer: TarWriter, folder: str, base: str | None) -> None:
    """All below a folder of the current one, named from `base`; a folder that becomes a link meanwhile is not entered."""
    try:
        fd = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        names = sorted(os.listdir(fd))
    finally:
        os.close(fd)
    for name in names:
        path = f"{folder}/{name}" if folder else name
        with suppress(FileNotFoundError, NotADirectoryError):  # it goes while we look
            status = os.lstat(path)
            writer.add(path, path if base is None else f"{base}/{path}", status)
            if stat.S_ISDIR(status.st_mode):
                _walk(writer, path, base)


# --- in
def _extract(path: str, source: int, request: CopyRequest) -> None:
    try:
        os.chdir(_open(path, os.O_RDONLY | os.O_DIRECTORY))
    except NotADirectoryError:
        _look(path)  # its own text where the path goes through a file
        raise NotADirectoryError(20, "not a directory", path) from None
    target = os.getcwd()  # where the descriptor is, whatever the path has become meanwhile
    _check_writable(target, request)
    owner = None
    if request.owner:
        account = users.look_up(request.owner, ())
        owner = (account.uid, account.gid)
    reader = open_decompressed(os.fdopen(source, "rb", buffering=_CHUNK, closefd=False))
    unpacker = Unpacker(base=".", whiteouts=False, keep_kinds_in=target if request.no_overwrite else "", owner=owner)
    if isinstance(reader, io.BufferedReader) and not reader.peek(1):
        return  # no body at all is an archive of nothing
    with refusing_corrupt("the archive"), tarfile.open(fileobj=reader, mode="r|") as archive:
        unpacker.apply(archive)


def _check_writable(target: str, request: CopyRequest) -> None:
    inside = [point for point in request.points if _below(target, point.path)]
    if inside:
        if not max(inside, key=lambda point: len(point.path)).writable:
            raise ReadOnly("mounted volume is marked read-only")
    elif request.readonly:
        raise ReadOnly("container rootfs is marked read-only")


def job(argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: the descriptor (if any) is the tar's other end. stat returns PathStat as JSON."""
    request = msgspec.json.decode(argument, type=CopyRequest)
    os.umask(0)
    _enter_view(request)
    path = _absolute(request.path)
    if request.action == "stat":
        return msgspec.json.encode(_stat(path, request.path))
    if request.action == "pack":
        _pack(path, fds[0])
    elif request.action == "export":
        _export(fds[0])
    else:
        _extract(path, fds[0], request)
    return b""
