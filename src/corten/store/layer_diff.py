"""The diff worker: a container's writable layer as the tar of an image layer.

It runs in a child of the launcher, confined to the layer's folder. Whiteouts go from overlay's form
to the image's (`.wh.`). Sources: OCI image-spec layer.md; Docker Engine 28.5's layers, entry for entry.
"""

from __future__ import annotations

import os
import stat

from corten.store.confine import confine_to
from corten.store.overlay_view import is_opaque, is_whiteout
from corten.store.tar_writer import TarWriter
from corten.store.unpack import OPAQUE, WHITEOUT

_CHUNK = 1 << 20


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
