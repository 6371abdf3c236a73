"""The layer between an image and a container's own: what the engine mounts over, so that it is nobody's change.

One folder per chain of layers, shared by all containers of the image. Its names are Docker's (28.5, daemon/initlayer).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from corten.store import overlay_view

_FOLDERS = ("dev", "dev/pts", "dev/shm", "etc", "proc", "sys")
_FILES = (".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf")
_LINKS = {"etc/mtab": "/proc/mounts"}
_FILE_MODE = 0o755  # Docker's, also for files that nobody executes


def fill(folder: str, layers: Sequence[str]) -> None:
    """Make the layer in an empty folder. A folder that the image has keeps its mode, owner and time."""
    _like(folder, overlay_view.root(layers).status if layers else None)
    made: list[tuple[str, os.stat_result | None]] = []
    for name in _FOLDERS:
        below = overlay_view.look_up(layers, name) if layers else None
        os.mkdir(f"{folder}/{name}")
        made.append((name, below.status if below and below.is_folder else None))
    for name in _FILES:
        os.close(os.open(f"{folder}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, _FILE_MODE))
        os.chmod(f"{folder}/{name}", _FILE_MODE)
    for name, target in _LINKS.items():
        os.symlink(target, f"{folder}/{name}")
    for name, status in reversed(made):
        _like(f"{folder}/{name}", status)


def _like(path: str, status: os.stat_result | None) -> None:
    if status is None:
        os.chmod(path, 0o755)
        return
    os.chown(path, status.st_uid, status.st_gid)
    os.chmod(path, stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
