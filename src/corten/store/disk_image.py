"""A folder of a fixed size on any file system: an ext4 in a sparse file, mounted through a loop device.

Owns making, mounting and measuring one. The file takes the room that is used, not the room that is promised.
Making the file system is mkfs.ext4's work (Debian: e2fsprogs): it runs when a limit is asked for, on no start.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from corten.errors import CortenError, Invalid
from corten.linux import syscalls as sys
from corten.linux.loop import attached
from corten.linux.mounts import is_mount_root, unmount_when_free

_SMALLEST = 1 << 20


class NoMakeFileSystem(CortenError):
    template = "a size limit needs mkfs.ext4, which this host does not have: install e2fsprogs"


@dataclass(frozen=True)
class DiskUsage:
    """Bytes."""

    size: int
    used: int


def create(path: str, size: int) -> None:
    """Make the file, whole or not at all. Idempotent. Raises Invalid for a size that no file system fits in, NoMakeFileSystem."""
    if os.path.exists(path):
        return
    if size < _SMALLEST:
        raise Invalid(f"size {size} is too small: a file system needs {_SMALLEST} bytes at least")
    staging = f"{path}.new"
    with open(staging, "wb") as file:
        file.truncate(size)
    command = ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard,root_owner=0:0", staging]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        os.unlink(staging)
        raise NoMakeFileSystem from None
    if done.returncode:
        os.unlink(staging)
        raise CortenError(f"mkfs.ext4: {done.stderr.strip()}")
    os.rename(staging, path)


def mount(path: str, point: str) -> None:
    """Idempotent. Raises OSError."""
    if is_mount_root(point):
        return
    with attached(path) as device:
        sys.mount(device, point, "ext4", 0, None)
    lost = f"{point}/lost+found"
    if os.path.isdir(lost) and not os.listdir(lost):  # a new volume is an empty folder
        os.rmdir(lost)


def unmount(point: str, *, for_good: bool = False) -> None:
    """Idempotent. Raises OSError while it is in use, unless it goes `for_good`: mounted twice at once, the content would be lost."""
    if is_mount_root(point):
        sys.umount2(point, sys.MNT_DETACH) if for_good else unmount_when_free(point)


def usage(point: str) -> DiskUsage:
    found = os.statvfs(point)
    return DiskUsage(found.f_blocks * found.f_frsize, (found.f_blocks - found.f_bfree) * found.f_frsize)
