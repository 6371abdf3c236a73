"""Whether a layer's folder is what it was unpacked to: its tar put together and hashed, and every entry's kind, mode, owner, time, target, device
and attributes held against what is there. Runs in a child of the launcher, confined to the folder (`job`).

Where a tar leads through its own links it is only hashed: what a name means changes on the way then. Unpacking is unpack.py's.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import Any, cast

import msgspec

from corten.store.confine import confine_to
from corten.store.overlay_view import is_whiteout
from corten.store.tar_job import open_inside
from corten.store.tar_record import TarRecord
from corten.store.unpack import OPAQUE, WHITEOUT, XATTR, safe_name, times_of

CHECK_JOB = "check-layer"
_CHUNK = 1 << 20
_KINDS = {
    tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK, tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}  # fmt: skip
_LATEST = 1 << 31  # seconds: what every file system can keep


class CheckedLayer(msgspec.Struct, frozen=True):
    """`digest` of the tar; `difference`: the first that there is, or empty."""

    digest: str
    difference: str


class _Pieces(io.RawIOBase):
    """A file of pieces, hashed as it is read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest, self.hash = pieces, b"", hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = next(self._pieces, b"")
            self.hash.update(self._rest)
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


class Expected:
    """What the entries of a tar leave behind, by path. None stands for a whiteout."""

    def __init__(self) -> None:
        self._found: dict[str, tarfile.TarInfo | None] = {}
        self._folders = {""}
        self._links: set[str] = set()
        self.unsure = False

    def take(self, entry: tarfile.TarInfo) -> None:
        path = safe_name(entry.pax_headers.get("GNU.sparse.name", entry.name))
        parent, _, name = path.rpartition("/")
        self._note_folders(parent)
        if name == OPAQUE:
            return
        if name.startswith(WHITEOUT):
            self._put(f"{parent}/{name[len(WHITEOUT) :]}".lstrip("/"), None)
        elif entry.islnk():
            target = safe_name(entry.linkname)
            if target != path:
                self._put(path, self._found.get(target))
        else:
            self._put(path, entry)

    def _note_folders(self, parent: str) -> None:
        while parent and parent not in self._folders:
            self._folders.add(parent)
            self.unsure |= parent in self._links
            parent = parent.rpartition("/")[0]

    def _put(self, path: str, entry: tarfile.TarInfo | None) -> None:
        folder = entry is not None and entry.isdir()
        if not folder and path in self._folders:
            below = f"{path}/"
            self._found = {known: one for known, one in self._found.items() if not known.startswith(below)}
            self._folders = {known for known in self._folders if known != path and not known.startswith(below)}
            self._links = {known for known in self._links if not known.startswith(below)}
        self._links.discard(path)
        if folder:
            self._note_folders(path)
        elif entry is not None and entry.issym():
            self._links.add(path)
        self._found[path] = entry

    def differences(self, base: str) -> Iterator[str]:
        """What is otherwise below `base`, which ends with a slash."""
        for path, entry in self._found.items():
            if not path:
                continue
            try:
                status = os.lstat(base + path)
            except OSError:
                yield f"/{path} is missing"
                continue
            what = _difference(base + path, status, entry)
            if what:
                yield f"/{path} differs in its {what}"
        for parent, folders, files in os.walk(base):
            for name in folders + files:
                path = f"{parent}/{name}"[len(base) :].lstrip("/") if parent != base else name
                if path not in self._found and path not in self._folders:
                    yield f"/{path} is not in its tar"


def _difference(path: str, status: os.stat_result, entry: tarfile.TarInfo | None) -> str:
    if entry is None:
        return "" if is_whiteout(status) else "kind"
    if stat.S_IFMT(status.st_mode) != _KINDS.get(entry.type, stat.S_IFREG):
        return "kind"
    attributes = {key[len(XATTR) :]: value.encode("utf-8", "surrogateescape") for key, value in entry.pax_headers.items() if key.startswith(XATTR)}
    acl = any(name.startswith("system.posix_acl") for name in attributes)  # which has a say in the mode
    if not entry.issym() and not acl and stat.S_IMODE(status.st_mode) != entry.mode & 0o7777:
        return "mode"
    if status.st_uid != entry.uid:
        return "owner"
    if status.st_gid != entry.gid:
        return "group"
    if entry.issym() and os.readlink(path) != entry.linkname:
        return "target"
    if (entry.ischr() or entry.isblk()) and status.st_rdev != os.makedev(entry.devmajor, entry.devminor):
        return "device number"
    modified = times_of(entry)[1]
    if not entry.isdir() and 0 <= modified < _LATEST * 1_000_000_000 and status.st_mtime_ns != modified:
        return "time"
    return "extended attributes" if not _has(path, attributes) else ""


def _has(path: str, attributes: dict[str, bytes]) -> bool:
    """User attributes and capabilities: those wanted, and no others. What the file system cannot have does not count."""
    try:
        there = {name for name in os.listxattr(path, follow_symlinks=False) if _counts(name)}
        return there == {name for name in attributes if _counts(name)} and all(os.getxattr(path, name, follow_symlinks=False) == attributes[name] for name in there)
    except OSError as error:
        return error.errno == errno.ENOTSUP


def _counts(name: str) -> bool:
    return name == "security.capability" or (name.startswith("user.") and not name.startswith("user.overlay."))


def job(_argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the layer's folder and its record. Returns CheckedLayer as JSON. Raises ArchiveRefused, which names a broken file."""
    with os.fdopen(fds[1], "rb", buffering=_CHUNK) as source:
        record = TarRecord(source)
        confine_to(fds[0])
        pieces, expected = _Pieces(record.put_together(open_inside)), Expected()
        reader = io.BufferedReader(pieces, _CHUNK)
        with tarfile.open(fileobj=cast("Any", reader), mode="r|", bufsize=_CHUNK, errorlevel=2) as archive:
            for entry in archive:
                expected.take(entry)
                archive.members = []  # type: ignore[attr-defined]  # tarfile would remember every one
            while reader.read(_CHUNK):
                continue
    difference = "" if expected.unsure else next(expected.differences("/"), "")
    return msgspec.json.encode(CheckedLayer(f"sha256:{pieces.hash.hexdigest()}", difference))
