"""A build context on its way to the engine: a folder as a tar without what its ignore file leaves out, written while it is sent."""

from __future__ import annotations

import os
import stat
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import IO

from corten.errors import CortenError, Invalid
from corten.spec.ignore_file import Ignore, ignore_file_names, read_patterns


@contextmanager
def sent_folder(folder: str, dockerfile: str, more: Mapping[str, bytes], named: Mapping[str, str]) -> Iterator[IO[bytes]]:
    """The tar, to be read once. `dockerfile` is its path in the context; it and the ignore file always go along.

    `more` are files besides; `named` other folders, with their own ignore files, by the path that they have in the tar.
    """
    reader, writer = os.pipe()
    failures: list[Exception] = []

    def write() -> None:
        try:
            with os.fdopen(writer, "wb") as pipe, tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for name, data in more.items():
                    add_file(tar, name, data)
                for path, below in _entries(folder, _ignore_of(folder, dockerfile), (dockerfile, *ignore_file_names(dockerfile))):
                    _add(tar, path, below)
                for prefix, other in named.items():
                    _add(tar, other, prefix)
                    for path, below in _entries(other, _ignore_of(other, dockerfile), ()):
                        _add(tar, path, f"{prefix}/{below}")
        except BrokenPipeError:
            return  # the engine has read enough
        except (OSError, CortenError) as error:
            failures.append(error)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    with os.fdopen(reader, "rb") as tar:
        yield tar
    thread.join()
    if failures:
        raise Invalid(f"reading the build context {folder}: {failures[0]}")


@contextmanager
def sent_files(files: Mapping[str, bytes]) -> Iterator[IO[bytes]]:
    """A context of nothing but these files."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            add_file(tar, name, data)
    buffer.seek(0)
    yield buffer


def add_file(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    tar.addfile(entry, BytesIO(data))


def _ignore_of(folder: str, dockerfile: str) -> Ignore:
    for name in ignore_file_names(dockerfile):
        try:
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
                return Ignore(read_patterns(file.read()))
        except FileNotFoundError:
            continue
    return Ignore(())


def _entries(folder: str, ignore: Ignore, always: tuple[str, ...], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(path, path in the context), sorted, a folder before its content. A folder that is ignored comes when something in it is not."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        below = prefix + entry.name
        ignored = ignore.ignores(below) and below not in always
        if not entry.is_dir(follow_symlinks=False):
            if not ignored:
                yield entry.path, below
            continue
        if not ignored:
            yield entry.path, below
        elif not ignore.has_exceptions and not any(name.startswith(f"{below}/") for name in always):
            continue
        inside = _entries(entry.path, ignore, always, f"{below}/")
        if ignored:
            first = next(inside, None)
            if first is None:
                continue
            yield entry.path, below
            yield first
        yield from inside


def _add(tar: tarfile.TarFile, path: str, below: str) -> None:
    """Owned by root, as docker sends it: who builds does not matter. Sockets are no content."""
    entry = tar.gettarinfo(path, below)
    if entry is None or stat.S_ISSOCK(os.lstat(path).st_mode):
        return
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = int(entry.mtime)
    if entry.isreg():
        with open(path, "rb") as file:
            tar.addfile(entry, file)
    else:
        tar.addfile(entry)
