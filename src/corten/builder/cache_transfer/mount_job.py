"""The folder of a cache mount as a tar with zstd, and back. Runs in a child of the launcher, confined to the folder.

The same content gives the same bytes: sorted names, no times finer than a second. Sockets and what goes away meanwhile are left out.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from typing import cast

import msgspec
import zstandard

from corten.store.compression import open_decompressed, refusing_corrupt
from corten.store.confine import confine_to
from corten.store.tar_writer import TarWriter
from corten.store.unpack import Unpacker

PACK_MOUNT_JOB, UNPACK_MOUNT_JOB = "pack-cache-mount", "unpack-cache-mount"
_CHUNK = 1 << 20


class PackedMount(msgspec.Struct, frozen=True):
    digest: str
    size: int


class _Hashing:
    def __init__(self, fd: int) -> None:
        self._fd, self.hash, self.size = fd, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        self.hash.update(view)
        self.size += len(view)
        while view:
            view = view[os.write(self._fd, view) :]
        return len(data)


def pack_job(_argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the folder and a file. Returns PackedMount as JSON."""
    sink = _Hashing(fds[1])
    confine_to(fds[0])
    with zstandard.ZstdCompressor(level=3).stream_writer(sink, closefd=False) as packed:  # type: ignore[arg-type]  # write is all it uses
        writer = TarWriter(packed)
        _add(writer, "")
        writer.finish()
    return msgspec.json.encode(PackedMount(f"sha256:{sink.hash.hexdigest()}", sink.size))


def _add(writer: TarWriter, folder: str) -> None:
    todo = [folder]
    while todo:
        path = todo.pop()
        if path:
            writer.add(f"/{path}", path, os.lstat(f"/{path}"))
        if not path or (os.path.isdir(f"/{path}") and not os.path.islink(f"/{path}")):
            todo += [f"{path}/{name}" if path else name for name in sorted(os.listdir(f"/{path}"), reverse=True)]


def unpack_job(_argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the packed tar and the empty folder. Raises ArchiveRefused."""
    source = io.BufferedReader(cast("io.RawIOBase", os.fdopen(fds[0], "rb", buffering=0, closefd=False)), _CHUNK)
    reader = open_decompressed(source)
    confine_to(fds[1])
    with refusing_corrupt("the cache mount"), tarfile.open(fileobj=reader, mode="r|", bufsize=_CHUNK) as archive:
        Unpacker(whiteouts=False).apply(archive)
    return b""
