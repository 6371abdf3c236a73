"""The packer: a layer's tar, compressed for its way to a registry or into an archive. Runs in a child of the launcher (`job`).

Blocks of the tar are compressed beside each other, each as a gzip member (RFC 1952, 2.2) or a zstd frame (RFC 8878, 3.1) of its own. The same
tar gives the same bytes every time and everywhere: there is no name and no time in them, and where the blocks end does not depend on who
compresses. So the packed form need not be kept: its digest is (database, `packings`, of the usual form), and it is made again when a registry lacks it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from corten.errors import ArchiveRefused
from corten.spec.layer_packing import GZIP, PLAIN, ZSTD
from corten.store.tar_job import LayerFolder

LEVEL = 2  # of libdeflate: two hundredths larger than `gzip -6`, in a quarter of its time
_ZSTD_LEVEL = 3
PACK_JOB, PACK_LAYER_JOB = "pack", "pack-layer"
_BLOCKS = {GZIP: 1 << 20, ZSTD: 2 << 20, PLAIN: 1 << 20}  # bytes
_MOST_THREADS = 4
_READ = 1 << 20


class Packing(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to pack: `kind` GZIP, ZSTD or PLAIN; `level` None: the usual one. `diff_id`: the source may be packed itself, and is to be this in plain."""

    kind: str = GZIP
    level: int | None = None
    diff_id: str = ""


class Packed(msgspec.Struct, frozen=True):
    digest: str
    size: int


def _compressor(packing: Packing) -> Callable[[bytes], bytes | bytearray]:
    """Imports what it needs: in the worker only, the daemon knows this module for its types."""
    if packing.kind == GZIP:
        from deflate import gzip_compress

        level = LEVEL if packing.level is None else packing.level
        return lambda block: gzip_compress(block, level)
    if packing.kind == ZSTD:
        from zstandard import ZstdCompressor

        level = _ZSTD_LEVEL if packing.level is None else packing.level
        return lambda block: ZstdCompressor(level, write_checksum=True).compress(block)
    return lambda block: block


def packer() -> str:
    """What decides which bytes come out. Not for a hot path: it reads the package's metadata."""
    from importlib import metadata  # which a start need not wait for

    return f"libdeflate of deflate {metadata.version('deflate')}, level {LEVEL}, blocks of {_BLOCKS[GZIP]}"


class Packer:
    """Packs what is written to it into a descriptor. Its threads are there from the beginning: a process that locks itself in can start none.

    `threads` 0: as many as there are processors, but not more than four.
    """

    def __init__(self, target: int, packing: Packing, threads: int = 0) -> None:
        self._target, self._packing, self._compress = target, packing, _compressor(packing)
        self._compress(b"")  # imports
        count = threads or min(_MOST_THREADS, len(os.sched_getaffinity(0)))
        self._pool = ThreadPoolExecutor(count)
        everybody = threading.Barrier(count + 1)
        for _ in range(count):
            self._pool.submit(everybody.wait)
        everybody.wait()
        self._gathered: list[bytes] = []
        self._left = _BLOCKS[packing.kind]  # bytes until a block is full: where blocks end is part of the result
        self._waiting: deque[Future[bytes | bytearray]] = deque()
        self._plain, self._digest, self._size = hashlib.sha256(), hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        """Raises OSError (EPIPE when the reader has gone)."""
        if self._packing.diff_id:
            self._plain.update(data)
        while len(data) >= self._left:
            self._gathered.append(data[: self._left])
            data = data[self._left :]
            self._submit()
        if data:
            self._gathered.append(data)
            self._left -= len(data)

    def _submit(self) -> None:
        self._waiting.append(self._pool.submit(self._compress, b"".join(self._gathered)))
        self._gathered, self._left = [], _BLOCKS[self._packing.kind]
        if len(self._waiting) > 2 * _MOST_THREADS:
            self._send_first()

    def _send_first(self) -> None:
        data = memoryview(self._waiting.popleft().result())
        self._digest.update(data)
        self._size += len(data)
        while data:
            data = data[os.write(self._target, data) :]

    def finish(self) -> Packed:
        """Raises ArchiveRefused if it was not what the packing says it is."""
        if self._gathered or not self._size + len(self._waiting):  # nothing at all is an empty block
            self._submit()
        while self._waiting:
            self._send_first()
        self._pool.shutdown()
        if self._packing.diff_id and f"sha256:{self._plain.hexdigest()}" != self._packing.diff_id:
            raise ArchiveRefused(f"the layer {self._packing.diff_id} does not match its digest: pull its image again")
        return Packed("sha256:" + self._digest.hexdigest(), self._size)


def pack(source: int, target: int, threads: int = 0) -> Packed:
    """Gzip what `source` has to its end into `target`. Raises OSError (EPIPE when the reader has gone)."""
    packer = Packer(target, Packing(), threads)
    with open(source, "rb", closefd=False) as tar:
        while data := tar.read(_READ):
            packer.write(data)
    return packer.finish()


def _packing(argument: bytes) -> Packing:
    return msgspec.json.decode(argument, type=Packing) if argument else Packing()


def job(argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the tar, a pipe, and, with a packing as argument (JSON), a folder to be confined to. Returns Packed as JSON."""
    packing = _packing(argument)
    packed = pack(fds[0], fds[1]) if packing == Packing() else _pack_confined(fds, packing)
    os.close(fds[1])  # the reader's end of file comes with the result, not after it
    return msgspec.json.encode(packed)


def _pack_confined(fds: list[int], packing: Packing) -> Packed:
    """What came packed was packed by strangers: this thread, which alone reads it, has no way out."""
    from corten.store.compression import open_decompressed, refusing_corrupt
    from corten.store.confine import confine_to

    packer = Packer(fds[1], packing)
    confine_to(fds[2])
    with open(fds[0], "rb", closefd=False) as source, refusing_corrupt(f"the layer {packing.diff_id}"):
        tar = open_decompressed(source)
        while data := tar.read(_READ):
            packer.write(data)
        return packer.finish()


def layer_job(argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are a pipe, a layer's folder, and its record if it has one; the argument is a packing (JSON) with its diff id.
    Returns Packed as JSON. Raises ArchiveRefused for a folder that is not what it was.
    """
    packer = Packer(fds[0], _packing(argument))
    LayerFolder(*fds[1:]).write_inside(packer)
    packed = packer.finish()
    os.close(fds[0])
    return msgspec.json.encode(packed)
