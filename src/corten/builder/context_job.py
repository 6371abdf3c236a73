"""The context worker: reads the tar of a build context once, hashing every file, and keeps the bytes where a step finds them.

Nothing is made under a name from the tar: small files go one after the other into a spool, a large one into a file of its own (which a
layer can then have as a hard link). Runs in a child of the launcher, confined to the empty folder of the context.
Sources: POSIX pax; Docker Engine 28.5's build contexts (tar in any compression).
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from typing import IO, BinaryIO, cast

import msgspec

from corten.builder import entries
from corten.builder.entries import Entry
from corten.errors import ArchiveRefused
from corten.store.compression import open_decompressed, refusing_corrupt
from corten.store.confine import confine_to
from corten.store.unpack import safe_name

SPOOL, INDEX = "spool", "index"
CONTEXT_JOB = "context"
LARGE = 1 << 18
_CHUNK = 1 << 18
_XATTR = "SCHILY.xattr."
_KEPT = (_XATTR + "security.capability", _XATTR + "user.")
_KINDS = {
    tarfile.DIRTYPE: entries.FOLDER, tarfile.SYMTYPE: entries.LINK, tarfile.FIFOTYPE: entries.FIFO, tarfile.CHRTYPE: entries.CHAR,
    tarfile.BLKTYPE: entries.BLOCK,
}  # fmt: skip


class Received(msgspec.Struct, frozen=True):
    """How many entries there are, and the bytes of all files."""

    count: int
    size: int


class _Indexer:
    def __init__(self, spool: IO[bytes]) -> None:
        self._spool, self._files, self._offset = spool, 0, 0
        self.found: dict[str, Entry] = {}

    def add(self, archive: tarfile.TarFile, item: tarfile.TarInfo) -> None:
        path = safe_name(item.name)
        mode = item.mode & 0o7777
        attributes = tuple(sorted((key[len(_XATTR) :], value.encode("utf-8", "surrogateescape"))
                                  for key, value in item.pax_headers.items() if key.startswith(_KEPT)))  # fmt: skip
        if item.islnk():
            entry = self._linked(path, item)
        elif item.isreg():
            digest, place = self._keep(archive, item)
            entry = Entry(path, entries.FILE, mode, size=item.size, time=int(item.mtime), digest=digest, place=place, attributes=attributes)
        elif item.type in _KINDS:
            device = os.makedev(item.devmajor, item.devminor) if item.type in (tarfile.CHRTYPE, tarfile.BLKTYPE) else 0
            link = item.linkname if item.issym() else ""
            entry = Entry(path, _KINDS[item.type], mode, time=int(item.mtime), link=link, device=device, attributes=attributes)
        else:
            raise ArchiveRefused(f"the context's entry {item.name!r} has the unknown type {item.type!r}")
        self.found[path] = entry

    def _linked(self, path: str, item: tarfile.TarInfo) -> Entry:
        target = self.found.get(safe_name(item.linkname))
        if target is None or target.kind == entries.FOLDER:
            raise ArchiveRefused(f"the context's hard link {item.name!r}: its target {item.linkname!r} is no file before it")
        return msgspec.structs.replace(target, path=path)

    def _keep(self, archive: tarfile.TarFile, item: tarfile.TarInfo) -> tuple[str, int]:
        source = archive.extractfile(item)
        if source is None:
            raise ArchiveRefused(f"the context's entry {item.name!r} has no content")
        if item.size < LARGE:
            data = source.read()
            if len(data) != item.size:
                raise ArchiveRefused(f"the context's entry {item.name!r} is cut off")
            place, self._offset = self._offset, self._offset + len(data)
            self._spool.write(data)
            return hashlib.sha256(data).hexdigest(), place
        number, self._files = self._files, self._files + 1
        content = hashlib.sha256()
        fd = os.open(f"/{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            left = item.size
            while left:
                data = source.read(min(left, _CHUNK))
                if not data:
                    raise ArchiveRefused(f"the context's entry {item.name!r} is cut off")
                content.update(data)
                os.write(fd, data)
                left -= len(data)
        finally:
            os.close(fd)
        return content.hexdigest(), -1 - number


def complete(found: dict[str, Entry]) -> list[Entry]:
    """Pure: every folder that is only named in the path of another entry gets one of its own; sorted by path."""
    known = dict(found)
    known.setdefault("", Entry("", entries.FOLDER))
    for path in found:
        parent = path.rpartition("/")[0]
        while parent not in known:
            known[parent] = Entry(parent, entries.FOLDER)
            parent = parent.rpartition("/")[0]
    return sorted(known.values(), key=lambda entry: entry.path)


def _receive_tar(reader: BinaryIO, spool: IO[bytes]) -> list[Entry]:
    indexer = _Indexer(spool)
    with tarfile.open(fileobj=reader, mode="r|", bufsize=_CHUNK) as archive:
        for item in archive:
            indexer.add(archive, item)
            archive.members = []  # type: ignore[attr-defined]  # it would keep every header
    return complete(indexer.found)


def job(_argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the body and the context's empty folder. Returns Received as JSON."""
    source = io.BufferedReader(cast("io.RawIOBase", os.fdopen(fds[0], "rb", buffering=0, closefd=False)), _CHUNK)
    reader = open_decompressed(source)
    confine_to(fds[1])
    with refusing_corrupt("the build context"), open(f"/{SPOOL}", "wb", buffering=_CHUNK) as spool:
        listed = _receive_tar(reader, spool)
    with open(f"/{INDEX}", "wb") as file:
        file.write(msgspec.msgpack.encode(listed))
    return msgspec.json.encode(Received(len(listed), sum(entry.size for entry in listed)))
