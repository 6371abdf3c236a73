"""Blobs by digest. Written to a temporary name while they are hashed, fsynced, then renamed: a blob is whole or absent."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
from types import TracebackType

from corten.errors import ArchiveRefused, StoreCorrupt
from corten.spec.digest import digest_of, encoded
from corten.store.layout import Layout
from corten.store.locks import NamedLocks

_CHUNK = 1 << 20
_PARTIAL_AGE = 7 * 24 * 3600


class BlobWriter:
    """Use as a context manager: what is not committed leaves nothing behind.

    With `path`, the file there is gone on with, and left for the next try unless its content was refused. Raises OSError.
    """

    def __init__(self, layout: Layout, path: str = "") -> None:
        self._layout, self._kept = layout, bool(path)
        self._path = path or f"{layout.temporary}/blob-{secrets.token_hex(8)}"
        self._hash = hashlib.sha256()
        self._file = open(self._path, "a+b", buffering=0)  # noqa: SIM115 - closed by commit or __exit__
        self._file.seek(0)
        while data := self._file.read(_CHUNK):
            self._hash.update(data)
        self.size = self._file.tell()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def reader(self) -> int:
        """A descriptor that reads from the beginning what is written, as it is; the caller's."""
        return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def commit(self, expected: str = "") -> str:
        """Make the blob visible; returns its digest. Raises ArchiveRefused if it is not the expected one."""
        digest = "sha256:" + self._hash.hexdigest()
        if expected and digest != expected:
            raise ArchiveRefused(f"the data's digest is {digest}, expected {expected}: it was altered or cut off on its way")
        os.fsync(self._file.fileno())
        self._file.close()
        os.rename(self._path, self._layout.blob(digest))
        return digest

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if self._kept and not isinstance(error, ArchiveRefused):
            return  # gone by commit, or to be gone on with
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


class Blobs:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._downloads = NamedLocks()

    def writer(self) -> BlobWriter:
        return BlobWriter(self._layout)

    def resume(self, digest: str) -> BlobWriter:
        """A writer that goes on where an interrupted download of this blob ended. Reads what is there: not for the event loop."""
        return BlobWriter(self._layout, self._layout.partial(digest))

    def exclusive(self, digest: str) -> asyncio.Lock:
        """Held for one download of the blob; who comes second finds it there."""
        return self._downloads[digest]

    def remove_stale_partials(self, now: float) -> None:
        """Start-up: downloads that nobody has gone on with for a week. `now` is seconds since the epoch."""
        for name in os.listdir(self._layout.partials):
            path = f"{self._layout.partials}/{name}"
            if os.stat(path).st_mtime < now - _PARTIAL_AGE:
                os.unlink(path)

    def put(self, data: bytes) -> str:
        """Idempotent; returns the digest."""
        digest = digest_of(data)
        if not self.has(digest):
            with self.writer() as writer:
                writer.write(data)
                writer.commit()
        return digest

    def adopt(self, path: str, digest: str) -> None:
        """Make a file that is known to have the digest a blob too; it must not be written to any more. Idempotent."""
        if not self.has(digest):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            with contextlib.suppress(FileExistsError):
                os.link(path, self._layout.blob(digest))

    def all(self) -> list[tuple[str, os.stat_result]]:
        """(digest, status) of every blob."""
        return [(f"sha256:{entry.name}", entry.stat()) for entry in os.scandir(self._layout.blobs)]

    def has(self, digest: str) -> bool:
        return os.path.exists(self._layout.blob(digest))

    def size(self, digest: str) -> int:
        return os.stat(self._layout.blob(digest)).st_size

    def read(self, digest: str) -> bytes:
        """A small blob (manifest, config), verified. Raises StoreCorrupt."""
        try:
            with open(self._layout.blob(digest), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            raise StoreCorrupt(f"blob {digest} is missing from the store: `corten system fsck --repair` fetches it again") from None
        if digest_of(data) != digest:
            raise StoreCorrupt(f"blob {digest} does not match its digest: `corten system fsck --repair` fetches it again")
        return data

    def open(self, digest: str) -> int:
        """A descriptor for reading; the caller's."""
        return os.open(self._layout.blob(digest), os.O_RDONLY | os.O_CLOEXEC)

    def set_aside(self, digest: str) -> str:
        """Take a blob out of the store: moved to where start-up empties, for the caller to delete. Empty if it is not there."""
        aside = f"{self._layout.temporary}/removed-blob-{encoded(digest)}"
        try:
            os.rename(self._layout.blob(digest), aside)
        except FileNotFoundError:
            return ""
        return aside

    def actual_digest(self, digest: str) -> str:
        """Of the content that the blob has; empty if it is not there. Reads it whole: not for the event loop."""
        try:
            with open(self._layout.blob(digest), "rb", buffering=0) as file:
                return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return ""

    def remove(self, digest: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._layout.blob(digest))
