"""A folder that holds at most so many bytes: by a project quota where the file system enforces those, else by a disk image mounted on it.

A folder has one or the other for as long as it is there; `disk` beside it says which. A project's number is drawn at random among
those that nothing counts for, so that engines and other programs on one file system need not know of each other.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from corten.linux import project_quota
from corten.store import disk_image
from corten.store.disk_image import DiskUsage

_LOWEST, _NUMBERS = 1 << 24, 1 << 30


def create(folder: str, disk: str, size: int) -> None:
    """Limit a folder, which is empty. Idempotent. Raises as disk_image.create."""
    if os.path.exists(disk):
        return
    with _opened(folder) as fd:
        if not project_quota.enforced(fd):
            disk_image.create(disk, size)
        elif not _quota(fd):
            number = _free_number(fd)
            project_quota.set_limit(fd, number, size)
            project_quota.set_project(fd, number)


def attach(folder: str, disk: str) -> None:
    """Before it is used: mount it if need be. Idempotent. Raises OSError, also for a limit that the file system has forgotten."""
    if os.path.exists(disk):
        disk_image.mount(disk, folder)
        return
    with _opened(folder) as fd:
        if not (project_quota.enforced(fd) and _quota(fd)):
            raise OSError(errno.ENOTSUP, "its size limit was a project quota, which this file system does not have (any more)", folder)


def detach(folder: str, disk: str, *, for_good: bool = False) -> None:
    """Undo that; `for_good` also gives the project's number back. Raises as disk_image.unmount."""
    if os.path.exists(disk):
        disk_image.unmount(folder, for_good=for_good)
    elif for_good and os.path.isdir(folder):
        with _opened(folder) as fd:
            if project_quota.enforced(fd) and _quota(fd):
                project_quota.set_limit(fd, project_quota.project(fd), 0)


def usage(folder: str, disk: str) -> DiskUsage | None:
    """None for a folder without a limit."""
    if os.path.exists(disk):
        return disk_image.usage(folder)
    with _opened(folder) as fd:
        found = _quota(fd) if project_quota.enforced(fd) else None
    return DiskUsage(found.limit, found.used) if found else None


def _quota(fd: int) -> project_quota.Quota | None:
    """Of the folder's project, if it has one with a limit."""
    number = project_quota.project(fd)
    found = project_quota.quota(fd, number) if number else None
    return found if found and found.limit else None


def _free_number(fd: int) -> int:
    while True:
        number = _LOWEST + secrets.randbelow(_NUMBERS)
        if project_quota.quota(fd, number) == project_quota.Quota(0, 0):
            return number


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
