"""Files of this host as a tar, and a tar from elsewhere as files of this host: the client's half of a copy.

What comes in is not trusted: every folder on the way is opened without following links, so that no link of the archive or of the
folder leads out. Source: Docker CLI 28.5 `docker cp` (what a copy is called at its target, whose files are: the caller's).
"""

from __future__ import annotations

import errno
import os
import posixpath
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from corten.errors import Conflict, Invalid, NotFound

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def write_tar(path: str, name: str, output: IO[bytes]) -> None:
    """A file or a folder with all below it, called `name` in the archive. Raises NotFound."""
    try:
        with tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            archive.add(path, name)
    except FileNotFoundError as error:
        raise NotFound(f"{error.filename}: no such file or directory") from None


def read_tar(source: IO[bytes], folder: str, base: str, name: str) -> None:
    """Unpack into `folder` an archive of one thing called `base`, which is called `name` here. Raises Invalid, Conflict, OSError."""
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            for entry in archive:
                _make(top, archive, entry, base, name)
    except tarfile.TarError as error:
        raise Invalid(f"the archive is corrupt or cut off: {error}") from None
    finally:
        os.close(top)


def _parts(path: str, base: str, name: str) -> list[str]:
    parts = [part for part in posixpath.normpath(path).split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Invalid(f"the archive has an entry {path!r}, which leads out of it")
    return [name, *parts[1:]] if parts[:1] == [base] and name else parts


@contextmanager
def _parent(top: int, parts: list[str]) -> Iterator[int]:
    """The folder that holds the last of `parts`, made if need be, no link followed."""
    here = os.dup(top)
    try:
        for part in parts[:-1]:
            if not _exists(part, here):
                os.mkdir(part, dir_fd=here)
            below = _enter(part, here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _enter(name: str, folder: int) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise Conflict(f"{name}: is no folder, or a link to one") from None


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _make(top: int, archive: tarfile.TarFile, entry: tarfile.TarInfo, base: str, name: str) -> None:
    parts = _parts(entry.name, base, name)
    if not parts:
        return  # the folder itself
    with _parent(top, parts) as folder:
        last = parts[-1]
        if entry.isdir():
            if not _exists(last, folder):
                os.mkdir(last, entry.mode & 0o777 | 0o700, dir_fd=folder)
            os.close(_enter(last, folder))
            return
        if _exists(last, folder):
            os.unlink(last, dir_fd=folder)
        if entry.issym():
            os.symlink(entry.linkname, last, dir_fd=folder)
        elif entry.islnk():
            target = _parts(entry.linkname, base, name)
            with _parent(top, target) as other:
                os.link(target[-1], last, src_dir_fd=other, dst_dir_fd=folder, follow_symlinks=False)
        elif entry.isreg():
            _write(archive, entry, last, folder)


def _write(archive: tarfile.TarFile, entry: tarfile.TarInfo, name: str, folder: int) -> None:
    content = archive.extractfile(entry)
    if content is None:
        raise Invalid(f"the archive's entry {entry.name!r} has no content")
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, entry.mode & 0o777, dir_fd=folder)
    with os.fdopen(fd, "wb") as file:
        shutil.copyfileobj(content, file)
