"""The packer: a layer's tar, gzipped for its way to a registry. Runs in a child of the launcher (`job`).

The same tar gives the same bytes every time and everywhere: no name, no time in the header, and a fixed number of threads
(it shows in the stream). So the packed form need not be kept: its digest is (database, `packings`), and it is made again when a
registry lacks it.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import msgspec

LEVEL, THREADS = 5, 2
PACK_JOB = "pack"
_CHUNK = 1 << 20


class Packed(msgspec.Struct, frozen=True):
    digest: str
    size: int


class _HashingPipe:
    """Writes to a descriptor all that it is given, and knows digest and size of it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        self.hash.update(view)
        self.size += len(view)
        while view:
            view = view[os.write(self._fd, view) :]
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def pack(source: int, target: int) -> Packed:
    """Gzip what `source` has to its end into `target`. Raises OSError (EPIPE when the reader has gone)."""
    from zlib_ng import gzip_ng_threaded  # in the worker only: the daemon knows this module for its types

    sink = _HashingPipe(target)
    untyped: Any = gzip_ng_threaded.open
    writer = untyped(sink, "wb", compresslevel=LEVEL, threads=THREADS)
    while data := os.read(source, _CHUNK):
        writer.write(data)
    writer.close()
    return Packed("sha256:" + sink.hash.hexdigest(), sink.size)


def job(_argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the tar and a pipe. Returns Packed as JSON."""
    packed = pack(fds[0], fds[1])
    os.close(fds[1])  # the reader's end of file comes with the result, not after it
    return msgspec.json.encode(packed)
