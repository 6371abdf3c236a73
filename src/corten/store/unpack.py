"""The layer worker: unpacks one layer into one folder, confined to it, and says what it was.

Whiteouts are stored in overlay form (a 0:0 character device, trusted.overlay.opaque), so that a layer needs no parent.
Runs in a child of the launcher (`job`). Sources: OCI image-spec layer.md; overlayfs.rst "whiteouts and opaque directories".
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tarfile
from typing import IO, Any, BinaryIO, cast

import msgspec

from corten.errors import ArchiveRefused, OtherKind
from corten.store.compression import open_decompressed, refusing_corrupt
from corten.store.confine import confine_to
from corten.store.tar_record import Recorder

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
PLAIN = b"plain"
_CHUNK, _NEWS = 1 << 20, 1 << 12
XATTR = "SCHILY.xattr."
_ZEROS = bytes(_CHUNK)
_LOOK_EVERY = 4 << 20
_SHARE, _MOST_KEPT = 50, 256 << 20  # a fiftieth of the disk, and no more than 256 MiB


class Unpacked(msgspec.Struct, frozen=True):
    """`size` is the sum of the files' sizes in bytes, `length` the tar's, `recorded` that of its record (tar_record.py) or 0 if there is none;
    `implied` the folders that had no entry of their own.
    """

    diff_id: str
    size: int
    length: int
    recorded: int
    entries: int
    implied: list[str]


class _HashingReader(io.RawIOBase):
    """Hands on what it reads from a decompressor and hashes it: the diff id is the digest of the uncompressed tar."""

    def __init__(self, source: BinaryIO, recorder: Recorder | None = None) -> None:
        self._source, self._recorder = source, recorder
        self.hash, self.length = hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.hash.update(data)
        self.length += len(data)
        if self._recorder:
            self._recorder.feed(data)
        return data


class GrowingFile(io.RawIOBase):
    """A file that another process still writes: its end is where the writer has closed the pipe of news, not where it is now."""

    def __init__(self, fd: int, news: int) -> None:
        self._fd, self._news = fd, news

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            read = os.readv(self._fd, [buffer])
            if read or self._news < 0:
                return read
            if not os.read(self._news, _NEWS):  # closed: what is there now is all
                self._news = -1


def safe_name(name: str) -> str:
    """The entry's path below the root, without leading slash. Raises ArchiveRefused if it would lead out."""
    if "\0" in name:
        raise ArchiveRefused(f"invalid tar entry {name!r}: NUL in its name")
    clean = os.path.normpath("/" + name.lstrip("/"))
    depth = 0
    for part in name.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            raise ArchiveRefused(f"invalid tar entry {name!r}: it leads out of the layer")
    return clean.lstrip("/")


class Unpacker:
    """Applies tar entries below `base`. The caller has made sure that nothing outside can be reached from there.

    `whiteouts`: `.wh.` names are an image layer's deletions; otherwise they are names like any other.
    `keep_kinds_in`: refuse to put a file in a folder's place, or the reverse (Docker's noOverwriteDirNonDir); the folder's
    name for the message. `owner`: (uid, gid) of all that is made, instead of the tar's. `keep_free`: bytes of the disk that stay free.
    `keep_root`: what the tar says of the root itself, whatever kind it gives it, is passed over (Docker's, of an archive that is added to a folder).
    `recorder` is told what becomes of the tar's bytes; finishing it is the caller's.
    """

    def __init__(self, base: str = "/", *, whiteouts: bool = True, keep_kinds_in: str = "", owner: tuple[int, int] | None = None,
                 keep_free: int = 0, keep_root: bool = False, recorder: Recorder | None = None) -> None:  # fmt: skip
        self._keep_root = keep_root
        self._base, self._recorder = base.rstrip("/") + "/", recorder
        self._whiteouts, self._keep_kinds_in, self._owner, self._keep_free = whiteouts, keep_kinds_in, owner, keep_free
        self._unseen = 0
        self.size = 0
        self.entries = 0
        self.implied: list[str] = []
        self._folders: list[tuple[str, tarfile.TarInfo]] = []
        self._known: set[str] = {""}

    def apply(self, archive: tarfile.TarFile) -> None:
        for entry in archive:
            self.entries += 1
            self._entry(archive, entry)
            archive.members = []  # type: ignore[attr-defined]  # tarfile would remember every one
        for path, entry in reversed(self._folders):
            os.utime(self._base + path, ns=times_of(entry), follow_symlinks=False)

    def _entry(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        path = safe_name(entry.pax_headers.get("GNU.sparse.name", entry.name))  # tarfile prefers the substitute that `path` may have
        if not path and self._keep_root:
            return
        parent, _, name = path.rpartition("/")
        self._make_parents(parent)
        if name == OPAQUE and self._whiteouts:
            os.setxattr(self._base + parent, "trusted.overlay.opaque", b"y")
            return
        if name.startswith(WHITEOUT) and self._whiteouts:
            hidden = f"{parent}/{name[len(WHITEOUT) :]}".lstrip("/")
            self._clear(hidden)
            target = self._base + hidden
            os.mknod(target, stat.S_IFCHR | 0, 0)
            os.chown(target, *(self._owner or (entry.uid, entry.gid)), follow_symlinks=False)
            os.utime(target, ns=times_of(entry), follow_symlinks=False)  # so that the layer's tar comes out the same when it is made again
            return
        self._make(archive, entry, path)

    def _make_parents(self, parent: str) -> None:
        if parent in self._known:
            return
        grown = ""
        for part in parent.split("/"):
            grown = f"{grown}/{part}".lstrip("/")
            if grown in self._known:
                continue
            try:
                os.mkdir(self._base + grown, 0o755)
                self.implied.append(grown)
            except FileExistsError:
                if not os.path.isdir(self._base + grown):
                    raise ArchiveRefused(f"invalid tar entry below {grown!r}: that is not a folder") from None
            self._known.add(grown)

    def _clear(self, path: str, *, folder: bool = False) -> None:
        try:
            found = os.lstat(self._base + path)
        except FileNotFoundError:
            return
        if path and self._keep_kinds_in and stat.S_ISDIR(found.st_mode) != folder:
            there, wanted = ("non-directory", "directory") if folder else ("directory", "non-directory")
            raise OtherKind(there=there, path=path, wanted=wanted, target=self._keep_kinds_in)
        if stat.S_ISDIR(found.st_mode):
            if not folder and path:
                self._losing_all_in(self._base + path)
                shutil.rmtree(self._base + path)
                self._known = {known for known in self._known if known != path and not known.startswith(path + "/")}
                self._folders = [(known, entry) for known, entry in self._folders if known != path and not known.startswith(path + "/")]
        else:
            if self._recorder:
                self._recorder.losing(self._base + path, found.st_ino)
            os.unlink(self._base + path)

    def _losing_all_in(self, folder: str) -> None:
        for parent, _, names in os.walk(folder) if self._recorder else ():
            for name in names:
                if self._recorder:
                    self._recorder.losing(f"{parent}/{name}", os.lstat(f"{parent}/{name}").st_ino)

    def _make(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> None:
        target = self._base + path
        if entry.islnk():
            source = self._base + safe_name(entry.linkname)
            if source != target:
                self._clear(path)
                try:
                    os.link(source, target, follow_symlinks=False)
                except FileNotFoundError:
                    raise ArchiveRefused(f"hard link {entry.name!r}: its target {entry.linkname!r} is not in the layer") from None
            return
        self._clear(path, folder=entry.isdir())
        if entry.isdir():
            if path and not os.path.isdir(target):
                os.mkdir(target, 0o700)
            self._known.add(path)
            self._folders.append((path, entry))
        elif entry.issym():
            os.symlink(entry.linkname, target)
            self.size += len(os.fsencode(entry.linkname))  # as lstat, and so Docker, counts it
        elif entry.isreg():
            self._write(archive, entry, target)
        elif entry.ischr() or entry.isblk() or entry.isfifo():
            kind = stat.S_IFIFO if entry.isfifo() else stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
            os.mknod(target, kind | 0o600, os.makedev(entry.devmajor, entry.devminor))
        else:
            raise ArchiveRefused(f"tar entry {entry.name!r} has the unknown type {entry.type!r}")
        self._finish(entry, target)

    def _write(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, target: str) -> None:
        self.size += entry.size
        source = archive.extractfile(entry)
        if source is None:
            raise ArchiveRefused(f"tar entry {entry.name!r} has no content")
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            holes = cast("list[tuple[int, int]] | None", entry.sparse)
            parts = [(0, entry.size)] if holes is None else holes
            parts = [part for part in parts if part[1]]  # GNU tar ends a map with an empty one
            piece = self._recorder.file(fd, target[len(self._base) :], entry.offset_data, parts) if self._recorder and parts else 0
            if holes is not None:
                # As stored, without the holes: a stream cannot be asked to seek in the file's own terms.
                stored = cast("IO[bytes]", archive.fileobj)
                stored.seek(entry.offset_data)
                for number, (offset, length) in enumerate(parts, piece):
                    os.lseek(fd, offset, os.SEEK_SET)
                    self._copy(stored, fd, length, entry.name, number)
                os.ftruncate(fd, entry.size)
            else:
                self._copy(source, fd, entry.size, entry.name, piece)
                if entry.size >= _CHUNK:  # it may end with a hole
                    os.ftruncate(fd, entry.size)
        finally:
            os.close(fd)

    def _copy(self, source: IO[bytes], fd: int, length: int, name: str, piece: int) -> None:
        """`piece`: the recorder's number for it."""
        left = length
        while left:
            data = source.read(min(left, _CHUNK))
            if not data:
                raise ArchiveRefused(f"tar entry {name!r} is cut off")
            if self._recorder:
                self._recorder.add(piece, data)
            if data == _ZEROS:
                os.lseek(fd, len(data), os.SEEK_CUR)  # a hole: a tar has none, and a file that had some gets them back
            else:
                self._leave_room(fd, len(data))
                os.write(fd, data)
            left -= len(data)

    def _leave_room(self, fd: int, wanted: int) -> None:
        """A few packed bytes can be a disk full of files, and a full disk stops more than this layer."""
        self._unseen += wanted
        if not self._keep_free or self._unseen < _LOOK_EVERY:
            return
        self._unseen = 0
        disk = os.fstatvfs(fd)
        if disk.f_bavail * disk.f_frsize < self._keep_free:
            raise ArchiveRefused(f"unpacked it needs more room than the disk has: it is {self.size >> 20} MiB so far, and {self._keep_free >> 20} MiB stay free")

    def _finish(self, entry: tarfile.TarInfo, target: str) -> None:
        os.chown(target, *(self._owner or (entry.uid, entry.gid)), follow_symlinks=False)
        if not entry.issym():
            os.chmod(target, entry.mode & 0o7777)
        for key, value in entry.pax_headers.items():
            # trusted.* is overlayfs's own: an image that carries it would steer the host's mounts.
            if key.startswith(XATTR) and not key.startswith(XATTR + "trusted."):
                _set_xattr(target, key[len(XATTR) :], value.encode("utf-8", "surrogateescape"))
        if not entry.isdir():
            os.utime(target, ns=times_of(entry), follow_symlinks=False)


def _set_xattr(target: str, name: str, value: bytes) -> None:
    try:
        os.setxattr(target, name, value, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (95, 1):  # ENOTSUP, EPERM: the file system or the name space does not take it
            raise


def times_of(entry: tarfile.TarInfo) -> tuple[int, int]:
    """(Access, modification) as utime takes them, in nanoseconds."""
    # PAX times are decimal fractions; as text no nanosecond is lost to a float.
    whole, _, fraction = str(entry.pax_headers.get("mtime", int(entry.mtime))).partition(".")
    modified = int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, "0") or 0)
    return modified, modified


def unpack(blob_fd: int, folder_fd: int, record_fd: int, news_fd: int = -1, *, packed: bool = True) -> Unpacked:
    """Unpack the blob into the folder; the process is confined to it from then on. `news_fd`: the blob is still being written.

    `packed` False: it is a tar as it is, whatever its first name looks like.
    """
    file = io.BufferedReader(GrowingFile(blob_fd, news_fd), _CHUNK)
    disk = os.fstatvfs(folder_fd)
    with os.fdopen(record_fd, "wb", buffering=_CHUNK, closefd=False) as record:
        recorder = Recorder(record)
        reader = _HashingReader(open_decompressed(file) if packed else file, recorder)
        confine_to(folder_fd)
        unpacker = Unpacker(keep_free=min(_MOST_KEPT, disk.f_blocks * disk.f_frsize // _SHARE), recorder=recorder)
        with refusing_corrupt("the layer"), tarfile.open(fileobj=cast("BinaryIO", reader), mode="r|", bufsize=_CHUNK, errorlevel=2) as archive:
            unpacker.apply(archive)
            # What follows the end marker belongs to the digest.
            while reader.read(_CHUNK):
                continue
        recorded = record.tell() if recorder.finish("/") else 0
    return Unpacked("sha256:" + reader.hash.hexdigest(), unpacker.size, reader.length, recorded, unpacker.entries, unpacker.implied)


def diff_id_of(path: str) -> str:
    """The digest of a blob's uncompressed content. Raises ArchiveRefused if it cannot be uncompressed."""
    with open(path, "rb", buffering=_CHUNK) as file:
        reader = _HashingReader(open_decompressed(file))
        with refusing_corrupt("the layer"):
            while reader.read(_CHUNK):
                continue
        return "sha256:" + reader.hash.hexdigest()


def job(argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the blob, the empty target folder, an empty file for the record, and the pipe of news of a growing blob.
    The argument PLAIN: it is not compressed. Returns Unpacked as JSON.
    """
    os.umask(0)
    return msgspec.json.encode(unpack(*fds, packed=argument != PLAIN))
