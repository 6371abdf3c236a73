"""A tar's files as they arrive: each in a file of its own in a temporary folder, hashed on its way there. Names in the tar are keys, never paths.

So an archive is written to the disk once: what of it is a blob becomes one by a link. Reads a stream, never back.
"""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from typing import IO

from corten.errors import ArchiveRefused

_CHUNK = 1 << 20
_DOCUMENT_LIMIT = 8 << 20
_MAX_LINKS = 8
_MOST_FILES = 100_000


@dataclass(frozen=True)
class Arrived:
    """One file: where it is, its digest, and its bytes."""

    path: str
    digest: str
    size: int


class ArrivedFiles:
    """Everything that `source` has, in `folder`, which is the caller's to remove. Raises ArchiveRefused for what is no tar."""

    def __init__(self, source: IO[bytes], folder: str) -> None:
        self._found: dict[str, Arrived | str] = {}  # a link is the name that it means
        try:
            with tarfile.open(fileobj=source, mode="r|*", bufsize=_CHUNK) as archive:
                for member in archive:
                    self._take(archive, member, f"{folder}/{len(self._found)}")
        except (tarfile.TarError, EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise ArchiveRefused(f"invalid archive: {error}") from None

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        name = member.name.removeprefix("./").rstrip("/")
        if len(self._found) >= _MOST_FILES:
            raise ArchiveRefused(f"the archive has more than {_MOST_FILES} files")
        if member.issym():
            self._found[name] = link_target(name, member.linkname)
        elif member.islnk():
            self._found[name] = link_target("", member.linkname)
        content = archive.extractfile(member) if member.isreg() else None
        if content:
            digest, size = hashlib.sha256(), 0
            with open(path, "xb", buffering=0) as file:
                while data := content.read(_CHUNK):
                    digest.update(data)
                    size += len(data)
                    file.write(data)
            self._found[name] = Arrived(path, f"sha256:{digest.hexdigest()}", size)
        archive.members = []  # type: ignore[attr-defined]  # tarfile would remember every one

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def find(self, name: str) -> Arrived:
        """Old `docker save` writes a layer twice as a link: those are followed, inside the archive and nowhere else."""
        clean = name
        for _ in range(_MAX_LINKS):
            found = self._found.get(clean)
            if found is None:
                raise ArchiveRefused(f"{clean!r} is missing from the archive")
            if isinstance(found, Arrived):
                return found
            clean = found
        raise ArchiveRefused(f"{name!r} in the archive is not a file")

    def document(self, name: str) -> bytes:
        """A small file whole."""
        found = self.find(name)
        if found.size > _DOCUMENT_LIMIT:
            raise ArchiveRefused(f"{name!r} is larger than {_DOCUMENT_LIMIT >> 20} MiB")
        with open(found.path, "rb") as file:
            return file.read()


def link_target(name: str, link: str) -> str:
    """What a link means: from its own folder, or with an empty `name` from the archive's root. Nothing leads out."""
    parts: list[str] = []
    for part in f"{name.rpartition('/')[0]}/{link}".split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return "/".join(parts)
