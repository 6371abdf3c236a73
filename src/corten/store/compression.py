"""Telling compressed data by its first bytes, and reading it: gzip, zstd, bzip2, xz, or as it is. Never by name or media type."""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import zstandard
from isal import igzip

from corten.errors import ArchiveRefused

_UNREADABLE = (zstandard.ZstdError, lzma.LZMAError, zlib.error, tarfile.TarError, EOFError, ValueError)


def _gzip(file: BinaryIO) -> Any:
    untyped: Any = igzip.IGzipFile
    return untyped(fileobj=file, mode="rb")


def _zstd(file: BinaryIO) -> Any:
    return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)


# what the data begins with -> what reads it
_READERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": _gzip,
    b"\x28\xb5\x2f\xfd": _zstd,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_LONGEST = max(map(len, _READERS))


def open_decompressed(file: BinaryIO) -> BinaryIO:
    """The content of a buffered file; read it inside refusing_corrupt()."""
    start = file.peek(_LONGEST)[:_LONGEST] if isinstance(file, io.BufferedReader) else b""
    for magic, reader in _READERS.items():
        if start.startswith(magic):
            return cast("BinaryIO", reader(file))
    return file


@contextmanager
def refusing_corrupt(what: str) -> Iterator[None]:
    """What the block finds out about broken data becomes ArchiveRefused, naming `what`."""
    try:
        yield
    except _UNREADABLE as error:
        raise ArchiveRefused(f"{what} is corrupt or cut off: {error}") from None
    except OSError as error:
        if error.errno:  # the machine's trouble, not the data's: gzip and bzip2 report theirs without a number
            raise
        raise ArchiveRefused(f"{what} is corrupt or cut off: {error}") from None
