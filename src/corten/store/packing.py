"""The packer: a layer's tar, gzipped for its way to a registry. Runs in a child of the launcher (`job`).

Blocks of the tar are compressed beside each other, each as a member of its own (RFC 1952, 2.2). The same tar gives the same bytes
every time and everywhere: a member has no name and no time, and where the blocks end does not depend on who compresses them. So
the packed form need not be kept: its digest is (database, `packings`), and it is made again when a registry lacks it.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

LEVEL = 2  # of libdeflate: two hundredths larger than `gzip -6`, in a quarter of its time
PACK_JOB = "pack"
_BLOCK = 1 << 20
_MOST_THREADS = 4


class Packed(msgspec.Struct, frozen=True):
    digest: str
    size: int


def pack(source: int, target: int, threads: int = 0) -> Packed:
    """Gzip what `source` has to its end into `target`. Raises OSError (EPIPE when the reader has gone).

    `threads` 0: as many as there are processors, but not more than four.
    """
    from deflate import gzip_compress  # in the worker only: the daemon knows this module for its types

    count = threads or min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    waiting: deque[Future[bytearray]] = deque()
    digest, size = hashlib.sha256(), 0

    def send_first() -> None:
        nonlocal size
        data = memoryview(waiting.popleft().result())
        digest.update(data)
        size += len(data)
        while data:
            data = data[os.write(target, data) :]

    with open(source, "rb", closefd=False) as tar, ThreadPoolExecutor(count) as pool:
        block = tar.read(_BLOCK)
        while True:
            waiting.append(pool.submit(gzip_compress, block, LEVEL))
            block = tar.read(_BLOCK)
            if not block:
                break
            if len(waiting) > 2 * count:
                send_first()
        while waiting:
            send_first()
    return Packed("sha256:" + digest.hexdigest(), size)


def job(_argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the tar and a pipe. Returns Packed as JSON."""
    packed = pack(fds[0], fds[1])
    os.close(fds[1])  # the reader's end of file comes with the result, not after it
    return msgspec.json.encode(packed)
