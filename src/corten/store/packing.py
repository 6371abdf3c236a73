"""The packer: a layer's tar, compressed for its way to a registry or into an archive. Runs in a child of the launcher (`job`).

Blocks of the tar are compressed beside each other, each as a gzip member (RFC 1952, 2.2) or a zstd frame (RFC 8878, 3.1) of its own. The same
tar gives the same bytes every time and everywhere: there is no name and no time in them, and where the blocks end does not depend on who
compresses. So the packed form need not be kept: its digest is (database, `packings`, of the usual form), and it is made again when a registry lacks it.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO

import msgspec

from corten.errors import ArchiveRefused
from corten.spec.layer_packing import GZIP, PLAIN, ZSTD

LEVEL = 2  # of libdeflate: two hundredths larger than `gzip -6`, in a quarter of its time
_ZSTD_LEVEL = 3
PACK_JOB = "pack"
_BLOCKS = {GZIP: 1 << 20, ZSTD: 2 << 20, PLAIN: 1 << 20}  # bytes
_MOST_THREADS = 4


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


def pack(source: int, target: int, threads: int = 0) -> Packed:
    """Gzip what `source` has to its end into `target`. Raises OSError (EPIPE when the reader has gone).

    `threads` 0: as many as there are processors, but not more than four.
    """
    with open(source, "rb", closefd=False) as tar, ThreadPoolExecutor(threads or _threads()) as pool:
        return _pack(tar, target, pool, Packing())


def _threads() -> int:
    return min(_MOST_THREADS, len(os.sched_getaffinity(0)))


def _pack(tar: IO[bytes], target: int, pool: ThreadPoolExecutor, packing: Packing) -> Packed:
    """Raises ArchiveRefused if it is not what the packing says it is."""
    compress, length = _compressor(packing), _BLOCKS[packing.kind]
    waiting: deque[Future[bytes | bytearray]] = deque()
    plain, digest, size = hashlib.sha256(), hashlib.sha256(), 0

    def send_first() -> None:
        nonlocal size
        data = memoryview(waiting.popleft().result())
        digest.update(data)
        size += len(data)
        while data:
            data = data[os.write(target, data) :]

    block = _read(tar, length)
    while True:
        if packing.diff_id:
            plain.update(block)
        waiting.append(pool.submit(compress, block))
        block = _read(tar, length)
        if not block:
            break
        if len(waiting) > 2 * _MOST_THREADS:
            send_first()
    while waiting:
        send_first()
    if packing.diff_id and f"sha256:{plain.hexdigest()}" != packing.diff_id:
        raise ArchiveRefused(f"the layer {packing.diff_id} does not match its digest: pull its image again")
    return Packed("sha256:" + digest.hexdigest(), size)


def _read(tar: IO[bytes], length: int) -> bytes:
    """That much, unless it ends: where blocks end is part of the result, and a reader of packed data gives what it has."""
    pieces: list[bytes] = []
    while length and (piece := tar.read(length)):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def job(argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the tar, a pipe, and, with a packing as argument (JSON), a folder to be confined to. Returns Packed as JSON."""
    packing = msgspec.json.decode(argument, type=Packing) if argument else Packing()
    if packing == Packing():
        packed = pack(fds[0], fds[1])
    else:
        with ThreadPoolExecutor(_threads()) as pool:
            list(pool.map(lambda _number: None, range(_MOST_THREADS)))  # the threads, which cannot be begun any more once it is confined
            packed = _packed_confined(fds, packing, pool)
    os.close(fds[1])  # the reader's end of file comes with the result, not after it
    return msgspec.json.encode(packed)


def _packed_confined(fds: list[int], packing: Packing, pool: ThreadPoolExecutor) -> Packed:
    """What came packed was packed by strangers: this thread, which alone reads it, has no way out."""
    from corten.store.compression import open_decompressed, refusing_corrupt
    from corten.store.confine import confine_to

    _compressor(packing)(b"")  # imports
    confine_to(fds[2])
    with open(fds[0], "rb", closefd=False) as source, refusing_corrupt(f"the layer {packing.diff_id}"):
        return _pack(open_decompressed(source), fds[1], pool, packing)
