"""What a container has changed: its writable layer against the layers below. Pure of policy: a walk that gives a list.

The writable layer is walked by descriptors and plain names, so that a process inside that swaps a folder for a link meanwhile
leads nowhere. What counts as a change is Docker's: Engine 28.5 `GET /containers/{id}/changes` (moby/go-archive changes.go).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from enum import IntEnum

from corten.spec.answers import Change
from corten.store import overlay_view
from corten.store.overlay_view import Node, capability_of, is_opaque, is_whiteout

_SECOND = 1_000_000_000


class Kind(IntEnum):
    MODIFIED = 0
    ADDED = 1
    DELETED = 2


def changes(upper: str, layers: Sequence[str]) -> list[Change]:
    """Sorted by folder, a folder before what is in it. `layers`: topmost first."""
    fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _folder(fd, "", overlay_view.root(layers))
    finally:
        os.close(fd)


def _folder(fd: int, path: str, below: Node | None) -> list[Change]:
    """The changes inside a folder of the writable layer that lies over `below` (None: over nothing that still shows)."""
    old = overlay_view.children(below) if below and below.is_folder else {}
    names = set(os.listdir(fd))
    gone = set(old) - names if is_opaque(fd) else set()
    found: list[Change] = []
    for name in sorted(names | gone):
        inside = f"{path}/{name}"
        try:
            status = None if name in gone else os.lstat(name, dir_fd=fd)
        except FileNotFoundError:
            continue  # deleted while we look
        if status is None or is_whiteout(status):
            found += [Change(inside, Kind.DELETED)] if name in old else []
        else:
            found += _entry(fd, name, inside, status, old.get(name))
    return found


def _entry(parent: int, name: str, path: str, status: os.stat_result, old: Node | None) -> list[Change]:
    within: list[Change] = []
    changed = old is None or _differs(old.status, status)
    if stat.S_ISDIR(status.st_mode) or (not changed and stat.S_ISREG(status.st_mode)):
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except OSError:
            return [Change(path, Kind.ADDED if old is None else Kind.MODIFIED)]  # it has just become something else
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                within = _folder(fd, path, old)
            changed = changed or (old is not None and old.capability != capability_of(fd))
        finally:
            os.close(fd)
    if old is None:
        return [Change(path, Kind.ADDED), *within]
    # A folder in which something changed is listed too: a layer has to carry its mode and owner.
    return [Change(path, Kind.MODIFIED), *within] if changed or within else []


def _differs(old: os.stat_result, new: os.stat_result) -> bool:
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (new.st_mode, new.st_uid, new.st_gid, new.st_rdev):
        return True
    return not stat.S_ISDIR(new.st_mode) and (old.st_size != new.st_size or not _same_time(old.st_mtime_ns, new.st_mtime_ns))


def _same_time(first: int, second: int) -> bool:
    """Equal, or equal in seconds where one of them has no fraction: tars carry whole seconds."""
    return first == second or (first // _SECOND == second // _SECOND and (first % _SECOND == 0 or second % _SECOND == 0))
