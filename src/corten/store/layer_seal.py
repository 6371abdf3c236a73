"""A writable layer becomes an image layer as it is: its times made repeatable, its tar read once and hashed, nothing written.

Runs in a child of the launcher, confined to the folder. The tar itself is made when somebody wants it (a push, `save`): the same folder
gives the same bytes, and tar_job.py makes them. What is in a tar, and in which order, is layer_diff.py's.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from corten.linux import syscalls
from corten.store.confine import confine_to
from corten.store.layer_diff import write_diff
from corten.store.overlay_view import OPAQUE_ATTRIBUTE, is_opaque
from corten.store.tar_writer import TarWriter

_CHUNK = 1 << 20
_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS


class Sealed(msgspec.Struct, frozen=True):
    """`length` is the tar's in bytes, `size` the sum of the files' sizes."""

    diff_id: str
    length: int
    size: int


class SealRequest(msgspec.Struct, frozen=True):
    """`newest`: later times become this one, and so do those since `began`, by the clock of the file system: a machine whose clock is behind
    its images makes the same layer. Both in nanoseconds. Descriptors: the layer's folder, then the folders below it, topmost first.
    """

    newest: int
    began: int


class _Hashing:
    """Where a tar goes that only its digest is wanted of."""

    def __init__(self) -> None:
        self._hash, self.length = hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self.length += len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


@dataclass(frozen=True)
class _Clamp:
    """Which times are the step's own doing, or later than anything may be: `newest` takes their place."""

    newest: int
    began: int
    ended: int

    def takes(self, time: int) -> bool:
        return time > self.newest or self.began <= time <= self.ended


def seal(newest: int, began: int, below: Sequence[int]) -> Sealed:
    """Seal the layer that is this process's root. `below` are descriptors of the folders under it, topmost first."""
    os.utime("/")
    size = _settle("", _Clamp(newest, began, os.stat("/").st_mtime_ns), below)
    os.chown("/", 0, 0)
    os.chmod("/", 0o755)  # what a tar without an entry for its root unpacks to
    os.utime("/", ns=(newest, newest))
    hashing = _Hashing()
    write_diff("/", TarWriter(hashing))
    return Sealed(hashing.digest, hashing.length, size)


def _settle(path: str, clamp: _Clamp, below: Sequence[int]) -> int:
    """Clamp the times of all that is in a folder, and take away what a tar cannot say. Returns the bytes of its files."""
    size = 0
    with os.scandir(f"/{path}") as entries:
        found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    for name, status in found:
        inside = f"{path}/{name}" if path else name
        full = f"/{inside}"
        if stat.S_ISSOCK(status.st_mode):
            os.unlink(full)
            continue
        if stat.S_ISDIR(status.st_mode):
            size += _settle(inside, clamp, below)
            if is_opaque(full) and not _hides(inside, below):
                os.removexattr(full, OPAQUE_ATTRIBUTE)
        elif stat.S_ISREG(status.st_mode):
            size += status.st_size
        time = clamp.newest if clamp.takes(status.st_mtime_ns) else status.st_mtime_ns
        if time != status.st_mtime_ns or stat.S_ISDIR(status.st_mode):  # a socket's removal has changed a folder's
            os.utime(full, ns=(time, time), follow_symlinks=False)
    return size


def _hides(path: str, below: Sequence[int]) -> bool:
    """Whether a folder would be seen at the path if the layer did not hide it. overlayfs marks every new folder, needed or not."""
    for fd in below:
        try:
            found = syscalls.openat2(fd, path, os.O_PATH | os.O_NOFOLLOW, resolve=_BENEATH)
        except OSError:
            continue  # nothing there, or its folder is none in this layer
        try:
            status = os.fstat(found)
        finally:
            os.close(found)
        return stat.S_ISDIR(status.st_mode)
    return False


def seal_job(argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: returns Sealed as JSON."""
    request = msgspec.json.decode(argument, type=SealRequest)
    folder, *below = fds
    confine_to(folder)
    return msgspec.json.encode(seal(request.newest, request.began, below))
