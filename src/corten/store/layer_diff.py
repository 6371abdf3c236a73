"""The diff worker: a container's writable layer as the tar of an image layer; and any tar packed as one.

Both run in a child of the launcher; reading a writable layer it is confined to that folder. Whiteouts go from overlay's form
to the image's (`.wh.`). Sources: OCI image-spec layer.md; Docker Engine 28.5's layers, entry for entry.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import IO

import msgspec
from isal import isal_zlib

from corten.store.compression import open_decompressed, refusing_corrupt
from corten.store.confine import confine_to
from corten.store.overlay_view import is_opaque, is_whiteout
from corten.store.tar_writer import TarWriter
from corten.store.unpack import OPAQUE, WHITEOUT

_CHUNK = 1 << 20
_LEVEL = 1
_GZIP_FRAME = 31  # zlib's window bits, with the gzip frame around


class MadeLayer(msgspec.Struct, frozen=True):
    """`digest` is that of the compressed data, `size` its length in bytes; `diff_id` the digest of the tar itself."""

    diff_id: str
    digest: str
    size: int


class Packer:
    """Where a tar is written to: compressed, and hashed on both sides. finish() at its end."""

    def __init__(self, output: IO[bytes]) -> None:
        self._output = output
        self._plain, self._packed = hashlib.sha256(), hashlib.sha256()
        self._gzip = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP_FRAME)  # its header has no time and no name
        self._size = 0

    def write(self, data: bytes) -> None:
        self._plain.update(data)
        self._emit(self._gzip.compress(data))

    def _emit(self, data: bytes) -> None:
        self._packed.update(data)
        self._size += len(data)
        self._output.write(data)

    def finish(self) -> MadeLayer:
        self._emit(self._gzip.flush())
        self._output.flush()
        return MadeLayer(f"sha256:{self._plain.hexdigest()}", f"sha256:{self._packed.hexdigest()}", self._size)


def write_diff(folder: str, writer: TarWriter) -> None:
    """Every entry of a writable layer, in the order of its names; folders before their content."""
    _write_folder(folder.rstrip("/"), "", writer)
    writer.finish()


def _write_folder(base: str, path: str, writer: TarWriter) -> None:
    try:
        names = sorted(os.listdir(f"{base}/{path}"))
    except (FileNotFoundError, NotADirectoryError):
        return  # it has gone while we look
    for name in names:
        inside = f"{path}/{name}".lstrip("/")
        full = f"{base}/{inside}"
        try:
            status = os.lstat(full)
        except FileNotFoundError:
            continue
        if is_whiteout(status):
            writer.marker(f"{path}/{WHITEOUT}{name}".lstrip("/"), 0o600, status)
            continue
        writer.add(full, inside, status)
        if stat.S_ISDIR(status.st_mode):
            if is_opaque(full):
                writer.marker(f"{inside}/{OPAQUE}", stat.S_IMODE(status.st_mode) & 0o777, status, timeless=True)
            _write_folder(base, inside, writer)


def diff_job(_argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the writable layer's folder and where its tar goes."""
    with os.fdopen(fds[1], "wb", buffering=_CHUNK) as output:  # closed here: the reader's end of file comes with the result, not after it
        confine_to(fds[0])
        write_diff("/", TarWriter(output))
    return b""


def repack_job(_argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are a tar in any compression, an empty folder, and the file to write. Returns MadeLayer as JSON."""
    with os.fdopen(fds[2], "wb", buffering=_CHUNK, closefd=False) as output:
        packer = Packer(output)
        source = open_decompressed(os.fdopen(fds[0], "rb", buffering=_CHUNK, closefd=False))
        confine_to(fds[1])
        with refusing_corrupt("the archive"):
            while data := source.read(_CHUNK):
                packer.write(data)
        return msgspec.json.encode(packer.finish())
