"""The context worker: reads the tar of a build context once, hashing every file, and keeps the bytes where a step finds them.

Nothing is made under a name from the tar: small files go one after the other into a spool, a large one into a file of its own (which a
layer can then have as a hard link). Runs in a child of the launcher, confined to the empty folder of the context.
Sources: POSIX pax; Docker Engine 28.5's build contexts (tar in any compression).
"""

from __future__ import annotations

import hashlib
import io
import os
from typing import IO, cast

import msgspec

from corten.builder import entries
from corten.builder.entries import Entry
from corten.builder.spool import LARGE, SPOOL
from corten.errors import ArchiveRefused
from corten.spec import plain_names
from corten.store import tar_reader
from corten.store.compression import open_decompressed, refusing_corrupt
from corten.store.confine import confine_to
from corten.store.tar_reader import Head, TarReader
from corten.store.unpack import safe_name

INDEX = "index"
CONTEXT_JOB = "context"
_CHUNK = 1 << 18
_XATTR = "SCHILY.xattr."
_KEPT = (_XATTR + "security.capability", _XATTR + "user.")
_KINDS = {
    tar_reader.FOLDER: entries.FOLDER, tar_reader.SYMLINK: entries.LINK, tar_reader.FIFO: entries.FIFO, tar_reader.CHAR: entries.CHAR,
    tar_reader.BLOCK: entries.BLOCK,
}  # fmt: skip


class _Indexer:
    def __init__(self, archive: TarReader, spool: IO[bytes]) -> None:
        self._archive, self._spool, self._files, self._offset = archive, spool, 0, 0
        self.found: dict[str, Entry] = {}

    def run(self) -> list[Entry]:
        for head in self._archive:
            path = plain_names.plain(safe_name(head.name))
            self.found[path] = self._entry(path, head)
        return complete(self.found)

    def _entry(self, path: str, head: Head) -> Entry:
        mode, attributes = head.mode & 0o7777, _attributes(head.pax) if head.pax else ()
        if head.type == tar_reader.REGULAR:
            digest, place = self._keep(head)
            return Entry(path, entries.FILE, mode, 0, 0, head.size, 0, "", digest, place, 0, attributes)
        if head.type == tar_reader.HARD_LINK:
            return self._linked(path, head)
        if head.type not in _KINDS:
            raise ArchiveRefused(f"the context's entry {head.name!r} has the unknown type {head.type!r}")
        device = os.makedev(*head.device) if head.type in (tar_reader.CHAR, tar_reader.BLOCK) else 0
        link = plain_names.plain(head.link) if head.type == tar_reader.SYMLINK else ""
        if "\0" in head.link:
            raise ArchiveRefused(f"invalid tar entry {head.name!r}: the link {head.link!r} has a NUL in its name")
        return Entry(path, _KINDS[head.type], mode, time=head.time, link=link, device=device, attributes=attributes)

    def _linked(self, path: str, head: Head) -> Entry:
        target = self.found.get(plain_names.plain(safe_name(head.link)))
        if target is None or target.kind == entries.FOLDER:
            raise ArchiveRefused(f"the context's hard link {head.name!r}: its target {head.link!r} is no file before it")
        return msgspec.structs.replace(target, path=path)

    def _keep(self, head: Head) -> tuple[str, int]:
        if head.size < LARGE:
            data = self._archive.read(head.size)
            place, self._offset = self._offset, self._offset + len(data)
            self._spool.write(data)
            return hashlib.sha256(data).hexdigest(), place
        number, self._files = self._files, self._files + 1
        content = hashlib.sha256()
        fd = os.open(f"/{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb", buffering=_CHUNK) as file:
            while data := self._archive.read(_CHUNK):
                content.update(data)
                file.write(data)
        return content.hexdigest(), -1 - number


def _attributes(pax: dict[str, str]) -> tuple[tuple[str, bytes], ...]:
    kept = ((key[len(_XATTR) :], value.encode("utf-8", "surrogateescape")) for key, value in pax.items() if key.startswith(_KEPT))
    return tuple(sorted(kept))


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


def job(_argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the body and the context's empty folder."""
    source = io.BufferedReader(cast("io.RawIOBase", os.fdopen(fds[0], "rb", buffering=0, closefd=False)), _CHUNK)
    reader = open_decompressed(source)
    confine_to(fds[1])
    with refusing_corrupt("the build context"), open(f"/{SPOOL}", "wb", buffering=_CHUNK) as spool:
        listed = _Indexer(TarReader(reader, "the build context"), spool).run()
    with open(f"/{INDEX}", "wb") as file:
        file.write(msgspec.msgpack.encode(listed))
    return b""
