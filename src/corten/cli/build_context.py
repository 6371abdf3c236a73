"""A build context that is not a folder, as a tar: a Dockerfile alone, or with what is asked of it."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from io import BytesIO


def sent_files(files: Mapping[str, bytes]) -> BytesIO:
    """A context of nothing but these files."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, BytesIO(data))
    buffer.seek(0)
    return buffer
