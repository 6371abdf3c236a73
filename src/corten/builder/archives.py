"""ADD's archives: unpacked by their content into the target, as the tar says, inside the worker's root.

Source: Docker's classic builder and BuildKit's file op: tar plain or compressed with gzip, bzip2, xz or zstd; anything else is copied.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from typing import BinaryIO, cast

from corten.errors import ArchiveRefused
from corten.spec.archive_head import BLOCK, is_tar
from corten.store.compression import open_decompressed, refusing_corrupt
from corten.store.unpack import Unpacker

_CHUNK = 1 << 18


def unpack_archive(fd: int, target: str, make_target: Callable[[], None], owner: tuple[int, int] | None) -> bool:
    """False where `fd` is no archive; then nothing has been done. Raises ArchiveRefused for one that is broken further on."""
    if not _is_archive(fd):
        return False
    make_target()
    os.chdir(target)
    reader = open_decompressed(_buffered(fd))
    with refusing_corrupt("the archive"), tarfile.open(fileobj=reader, mode="r|", bufsize=_CHUNK) as archive:
        Unpacker(base=".", whiteouts=False, owner=owner, keep_root=True).apply(archive)
    os.chdir("/")
    return True


def _buffered(fd: int) -> io.BufferedReader:
    os.lseek(fd, 0, os.SEEK_SET)
    return io.BufferedReader(cast("io.RawIOBase", os.fdopen(fd, "rb", buffering=0, closefd=False)), _CHUNK)


def _is_archive(fd: int) -> bool:
    """By what is in it: something else that is packed is copied like any file."""
    try:
        with refusing_corrupt("the archive"):
            reader: BinaryIO = open_decompressed(_buffered(fd))
            return is_tar(reader.read(BLOCK))
    except ArchiveRefused:
        return False
