"""Mount options by name, and opening paths inside a root that is not ours without ever leaving it.

Sources: mount(8) option names, mount(2) flags, mount_setattr(2), openat2(2).
"""

from __future__ import annotations

import errno
import os
import re
import time
from dataclasses import dataclass

from corten.linux import syscalls as sys

# option -> (flag, True to set or False to clear)
FLAGS: dict[str, tuple[int, bool]] = {
    "async": (sys.MS_SYNCHRONOUS, False),
    "atime": (sys.MS_NOATIME, False),
    "bind": (sys.MS_BIND, True),
    "defaults": (0, True),
    "dev": (sys.MS_NODEV, False),
    "diratime": (sys.MS_NODIRATIME, False),
    "dirsync": (sys.MS_DIRSYNC, True),
    "exec": (sys.MS_NOEXEC, False),
    "lazytime": (sys.MS_LAZYTIME, True),
    "mand": (sys.MS_MANDLOCK, True),
    "noatime": (sys.MS_NOATIME, True),
    "nodev": (sys.MS_NODEV, True),
    "nodiratime": (sys.MS_NODIRATIME, True),
    "noexec": (sys.MS_NOEXEC, True),
    "nomand": (sys.MS_MANDLOCK, False),
    "norelatime": (sys.MS_RELATIME, False),
    "nostrictatime": (sys.MS_STRICTATIME, False),
    "nosuid": (sys.MS_NOSUID, True),
    "nosymfollow": (sys.MS_NOSYMFOLLOW, True),
    "rbind": (sys.MS_BIND | sys.MS_REC, True),
    "relatime": (sys.MS_RELATIME, True),
    "remount": (sys.MS_REMOUNT, True),
    "ro": (sys.MS_RDONLY, True),
    "rw": (sys.MS_RDONLY, False),
    "strictatime": (sys.MS_STRICTATIME, True),
    "suid": (sys.MS_NOSUID, False),
    "sync": (sys.MS_SYNCHRONOUS, True),
    "symfollow": (sys.MS_NOSYMFOLLOW, False),
}
PROPAGATION: dict[str, int] = {
    "private": sys.MS_PRIVATE,
    "rprivate": sys.MS_PRIVATE | sys.MS_REC,
    "shared": sys.MS_SHARED,
    "rshared": sys.MS_SHARED | sys.MS_REC,
    "slave": sys.MS_SLAVE,
    "rslave": sys.MS_SLAVE | sys.MS_REC,
    "unbindable": sys.MS_UNBINDABLE,
    "runbindable": sys.MS_UNBINDABLE | sys.MS_REC,
}
RECURSIVE: dict[str, int] = {"rro": sys.MOUNT_ATTR_RDONLY}
AT_FDCWD = -100
_RACES, _PATIENCE = 100, 50
_OURS = frozenset({"tmpcopyup", "copyup", "nocopy", "create=dir", "create=file"})


@dataclass(frozen=True)
class Options:
    """Mount options taken apart: flags for mount(2), propagation changes, recursive attributes, file system data."""

    flags: int = 0
    propagation: tuple[int, ...] = ()
    recursive: int = 0
    data: str = ""


def parse_options(options: list[str]) -> Options:
    """Pure. What is not a known option goes to the file system as data."""
    flags = recursive = 0
    propagation: list[int] = []
    data: list[str] = []
    for option in options:
        if option in FLAGS:
            bits, on = FLAGS[option]
            flags = flags | bits if on else flags & ~bits
        elif option in PROPAGATION:
            propagation.append(PROPAGATION[option])
        elif option in RECURSIVE:
            recursive |= RECURSIVE[option]
        elif option not in _OURS:
            data.append(option)
    return Options(flags, tuple(propagation), recursive, ",".join(data))


def open_in_root(root_fd: int, path: str, flags: int = os.O_PATH) -> int:
    """Open `path` as a process chrooted to `root_fd` would see it. Caller closes. Raises OSError."""
    return sys.openat2(root_fd, path.lstrip("/") or ".", flags, resolve=sys.RESOLVE_IN_ROOT)


def make_in_root(root_fd: int, path: str, *, directory: bool, mode: int = 0o755) -> int:
    """Open `path` inside the root, making what is missing (folders 0755, last part as asked). Caller closes."""
    try:
        return open_in_root(root_fd, path)
    except FileNotFoundError:
        pass
    parent, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
    parent_fd = make_in_root(root_fd, parent or "/", directory=True)
    try:
        if directory:
            os.mkdir(name, mode, dir_fd=parent_fd)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, mode & 0o777, dir_fd=parent_fd))
        return os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=parent_fd)
    finally:
        os.close(parent_fd)


def open_beneath(folder_fd: int, path: str, flags: int = os.O_PATH) -> int:
    """Open `path` below a folder; no symbolic link, `..` or race leads out of it (EXDEV). Caller closes. Raises OSError."""
    for _ in range(_RACES):
        try:
            return sys.openat2(folder_fd, path or ".", flags, resolve=sys.RESOLVE_BENEATH | sys.RESOLVE_NO_MAGICLINKS)
        except BlockingIOError:  # something was renamed while the kernel walked: openat2(2), EAGAIN
            continue
    raise OSError(errno.EBUSY, "is renamed again and again", path)


def clone_tree(fd: int) -> int:
    """A detached copy of what an O_PATH descriptor stands for, with what is mounted below it. Caller closes."""
    return sys.open_tree(fd, "", sys.OPEN_TREE_CLONE | sys.OPEN_TREE_CLOEXEC | sys.AT_EMPTY_PATH | sys.AT_RECURSIVE)


def attach_tree(tree_fd: int, target: str) -> None:
    """Mount a detached tree on a path."""
    sys.move_mount(tree_fd, "", AT_FDCWD, target, sys.MOVE_MOUNT_F_EMPTY_PATH)


def fd_path(fd: int) -> str:
    """A name for an open descriptor that mount(2) accepts."""
    return f"/proc/self/fd/{fd}"


@dataclass(frozen=True)
class MountInfo:
    """A line of /proc/PID/mountinfo (proc_pid_mountinfo(5)): `optional` holds shared:N and master:N."""

    point: str
    options: str
    optional: tuple[str, ...]
    type: str


def mount_table(path: str = "/proc/self/mountinfo") -> list[MountInfo]:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return [_mount_info(line) for line in file]


def _mount_info(line: str) -> MountInfo:
    fields = line.split(" ")
    end = fields.index("-")
    return MountInfo(_unescape(fields[4]), fields[5], tuple(fields[6:end]), fields[end + 1])


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def mount_holding(path: str) -> MountInfo:
    """The mount that a path is on. Of several on one point the last is the one seen."""
    real = os.path.realpath(path)
    best = MountInfo("", "", (), "")
    for mount in mount_table():
        inside = real == mount.point or real.startswith(mount.point.rstrip("/") + "/")
        if inside and len(mount.point) >= len(best.point):
            best = mount
    return best


def unmount_when_free(path: str) -> None:
    """Unmount, with patience for a mount namespace that the kernel is just taking down. Blocks up to a second. Raises OSError."""
    for attempt in range(_PATIENCE + 1):
        try:
            sys.umount2(path, 0)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or attempt == _PATIENCE:
                raise
            time.sleep(1 / _PATIENCE)


def is_mount_point(path: str) -> bool:
    """Also for a bind within one file system, which os.path.ismount() does not see. Asks no file system: one that hangs cannot hold it up."""
    real = os.path.realpath(path)
    return any(mount.point == real for mount in mount_table())


def is_mount_root(path: str) -> bool:
    """The same by one system call, which asks the file system: for paths on local disks. False for what is not there."""
    try:
        return bool(sys.statx_attributes(path) & sys.STATX_ATTR_MOUNT_ROOT)
    except FileNotFoundError:
        return False
