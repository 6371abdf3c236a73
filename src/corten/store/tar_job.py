"""The tar worker: a layer's tar, made from its folder and, where there is one, its record. Runs in a child of the launcher, confined to the folder."""

from __future__ import annotations

import hashlib
import os

import msgspec

from corten.store.confine import confine_to
from corten.store.layer_diff import write_diff
from corten.store.tar_record import TarRecord
from corten.store.tar_writer import Output as Target
from corten.store.tar_writer import TarWriter

TAR_JOB = "tar"
_CHUNK = 1 << 20


class MadeTar(msgspec.Struct, frozen=True):
    """`length` in bytes."""

    digest: str
    length: int


class Output:
    """Where a tar goes: hashed on the way to `target`, if there is one."""

    def __init__(self, target: Target) -> None:
        self._target, self._hash, self._length = target, hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self._length += len(data)
        self._target.write(data)

    def made(self) -> MadeTar:
        return MadeTar(f"sha256:{self._hash.hexdigest()}", self._length)


class LayerFolder:
    """Descriptors of a layer's folder and, if it has one, its record."""

    def __init__(self, folder: int, record: int = -1) -> None:
        self._folder, self._record = folder, record

    def write_inside(self, output: Target) -> None:
        """Write the tar; the process is confined to the folder from then on. Raises ArchiveRefused for a file that is not what it was."""
        if self._record < 0:
            confine_to(self._folder)
            write_diff("/", TarWriter(output))
            return
        with os.fdopen(self._record, "rb", buffering=_CHUNK) as source:
            record = TarRecord(source)
            confine_to(self._folder)
            for data in record.put_together(open_inside):
                output.write(data)


def open_inside(path: bytes) -> int:
    """Of a process whose root is the folder."""
    return os.open(b"/" + path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def job(_argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are where the tar goes, the layer's folder, and its record if it has one. Returns MadeTar as JSON.

    Raises ArchiveRefused.
    """
    with os.fdopen(fds[0], "wb", buffering=_CHUNK) as target:
        output = Output(target)
        LayerFolder(*fds[1:]).write_inside(output)
    return msgspec.json.encode(output.made())
