"""Filling an empty volume with what the image has at its place, so that a crash leaves it empty or full, never half.

The content is copied into a folder beside (or, where another file system is mounted, inside) the volume's, renamed to say that it
is complete, and then moved up entry by entry: `finish` does the rest of that after a crash. The copying itself is copy_up_job.py's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

import msgspec

from corten.engine.copy_up_job import CopyUpRequest, CopyUpResult, copy_metadata
from corten.errors import CortenError
from corten.runtime.launch import Launch
from corten.store.layout import Layout
from corten.store.lookup import is_empty, look_up
from corten.store.snapshots import Snapshots

COPY_UP_JOB = "copy-up"
_PARTIAL, _COMPLETE = ".corten-copying", ".corten-copied"


class NotAFolder(CortenError):
    template = "source {path} is not directory"


class CopyUp:
    def __init__(self, layout: Layout, snapshots: Snapshots, launch: Launch) -> None:
        self._layout, self._snapshots, self._launch = layout, snapshots, launch

    async def fill(self, diff_ids: Sequence[str], path: str, data: str, beside: str) -> None:
        """Copy the image's folder `path` into the folder `data`, if that is empty. `beside` is on the same file system: where to
        work. Raises NotAFolder if the image has a file there.
        """
        finish(data, beside)
        with os.scandir(data) as entries:
            if any(True for _ in entries):
                return
        found = look_up(self._snapshots.lower(diff_ids), path)
        if found.kind == "missing":
            return
        if found.kind == "file":
            raise NotAFolder(path=path)
        if found.kind == "folder" and is_empty(found.folders):
            _take_metadata(found.folders[0], data)
            return
        await self._copy(diff_ids, path, data, beside)

    async def _copy(self, diff_ids: Sequence[str], path: str, data: str, beside: str) -> None:
        partial = f"{beside}/{_PARTIAL}"
        os.mkdir(partial, 0o700)
        folder = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            request = CopyUpRequest(self._snapshots.view(diff_ids), self._layout.temporary, path)
            result = await self._launch.run_job(COPY_UP_JOB, msgspec.json.encode(request), (folder,))
            kind = msgspec.json.decode(result, type=CopyUpResult).kind
            if kind == "folder":
                os.rename(partial, f"{beside}/{_COMPLETE}")
        finally:
            os.close(folder)
            finish(data, beside)
        if kind == "file":
            raise NotAFolder(path=path)


def finish(data: str, beside: str) -> None:
    """Complete what is copied, remove what is half copied. Idempotent; for start-up too."""
    shutil.rmtree(f"{beside}/{_PARTIAL}", ignore_errors=True)
    complete = f"{beside}/{_COMPLETE}"
    try:
        names = os.listdir(complete)
    except FileNotFoundError:
        return
    for name in names:
        os.rename(f"{complete}/{name}", f"{data}/{name}")
    _take_metadata(complete, data)
    os.rmdir(complete)


def _take_metadata(source: str, target: str) -> None:
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in (source, target)]
    try:
        copy_metadata(fds[0], fds[1], os.fstat(fds[0]))
    finally:
        for fd in fds:
            os.close(fd)
