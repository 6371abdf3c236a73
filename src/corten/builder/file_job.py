"""The file worker: COPY, ADD, WORKDIR and heredocs, made inside the step's root and nowhere else.

Runs in a child of the launcher: the snapshot is mounted in a mount namespace of its own, and the worker is locked into it before
it looks at a path, so that no link of the image and no name of an archive leads out. It decides nothing about sources: those come as
entries (select.py). Source: BuildKit's file op (solver/llbsolver/file, fsutil copy) for what becomes of an existing target.
"""

from __future__ import annotations

import importlib
import os
import posixpath
import shutil
import stat
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from corten.builder import entries
from corten.builder.entries import Entry
from corten.builder.file_plan import Action, FilePlan, PutCopy, PutFile, PutFolder, Source, read_plan
from corten.builder.permissions import changed_mode, new_folder_mode, owner_of
from corten.linux import syscalls
from corten.runtime.operations import MountRoot, Sandbox
from corten.runtime.users import UnknownUser
from corten.spec import plain_names
from corten.store.confine import confine_to

FILE_JOB = "build-files"
SPOOL = "spool"
_CHUNK = 1 << 20
_LIMIT = 1 << 24
_INSIDE = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class CannotCopy(Exception):
    """A target that cannot be, in words for the client."""

    expected = True


class _Origins:
    """Descriptors of where bytes come from, opened before the worker is locked in."""

    def __init__(self, plan: FilePlan) -> None:
        self._layers = _open_folder(plan.layers)
        self._folders: dict[str, int] = {}
        self._spools: dict[str, int] = {}
        for origin in plan.origins:
            self._folders[origin] = _open_folder(origin)
            with suppress(FileNotFoundError):
                self._spools[origin] = os.open(f"{origin}/{SPOOL}", os.O_RDONLY | os.O_CLOEXEC)

    def spool(self, origin: str) -> int:
        return self._spools[origin]

    def folder(self, origin: str) -> int:
        return self._folders[origin]

    def open(self, origin: str, entry: Entry) -> int:
        """The file of an entry that is not in a spool."""
        if origin:
            return os.open(str(-1 - entry.place), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folders[origin])
        return syscalls.openat2(self._layers, f"{entry.place}/{plain_names.raw(entry.path)}", os.O_RDONLY | os.O_NOFOLLOW, resolve=_INSIDE)


def _open_folder(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


@dataclass(frozen=True)
class _Link:
    """A large file of a context that is to be linked: where to, and its number in its folder (a descriptor)."""

    path: str
    folder: int
    number: int
    mode: int
    owner: tuple[int, int]


class _Worker:
    """Everything after the lock: `/` is the step's root. `upper` is its writable layer, for hard links."""

    def __init__(self, plan: FilePlan, origins: _Origins, upper: int) -> None:
        self._plan, self._origins, self._upper = plan, origins, upper
        self._links: list[_Link] = []
        self._passwd = plan.passwd or _read("/etc/passwd")
        self._group = plan.group or _read("/etc/group")

    def run(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, PutCopy):
                self._copy(action)
            elif isinstance(action, PutFolder):
                owner = (0, 0)
                with suppress(UnknownUser):  # a WORKDIR of a USER that there is not (yet) is root's, as in BuildKit
                    owner = self._owner(action.owner) or owner
                self._make_folders(action.path, action.mode, owner)
            else:
                self._write_file(action)
        self._make_links()

    def _owner(self, text: str) -> tuple[int, int] | None:
        return owner_of(text, self._passwd, self._group) if text else None

    # --- folders
    def _make_folders(self, path: str, mode: int, owner: tuple[int, int]) -> None:
        """A folder and what is missing above it; links on the way are followed, and where one leads to nothing, that is made."""
        missing: list[str] = []
        asked, path = path, os.path.realpath(path)  # `/` is the step's root: nothing leads out of it
        while not os.path.lexists(path):
            missing.append(path)
            path = posixpath.dirname(path)
        if not os.path.isdir(path):
            raise CannotCopy(f"cannot make a folder below {_nearest(asked)}: it is not a directory")
        for each in reversed(missing):
            os.mkdir(each, 0o700)
            os.chown(each, *owner)
            os.chmod(each, mode)

    def _folder(self, path: str, entry: Entry, action: PutCopy, owner: tuple[int, int] | None, *, top: bool) -> None:
        """A copied folder takes the source's mode and owner. The target itself stays as it is if it is there, and is root's if it is new."""
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            found = os.stat(path) if top else os.lstat(path)
            if not stat.S_ISDIR(found.st_mode):
                raise CannotCopy(f"cannot copy to non-directory: {path}") from None
            if top:
                return
        os.chown(path, *(owner or ((0, 0) if top else (entry.uid, entry.gid))))
        os.chmod(path, new_folder_mode(action.mode) if top else changed_mode(action.mode, entry.mode, folder=True))
        self._set_attributes(path, entry)

    # --- copies
    def _copy(self, action: PutCopy) -> None:
        owner = self._owner(action.owner)
        for source in action.sources:
            self._put(action, source, owner)

    def _put(self, action: PutCopy, source: Source, owner: tuple[int, int] | None) -> None:
        if action.unpack and source.name and source.items and self._unpack(action, source, owner):
            return
        target, new = action.target, new_folder_mode(action.mode)
        if os.path.islink(target):
            target = os.path.realpath(target)  # what it leads to is written, there already or not
        if source.name:
            if target.endswith("/") or os.path.isdir(target):
                self._make_folders(target, new, owner or (0, 0))
                target = target.rstrip("/")
            else:
                self._make_folders(posixpath.dirname(target), new, owner or (0, 0))
                source = Source(source.name, source.origin, [("", entry) for _, entry in source.items], source.linkable)
        else:
            target = target.rstrip("/")
            self._make_folders(posixpath.dirname(target) or "/", new, owner or (0, 0))
        for below, entry in source.items:
            self._entry(f"{target}/{plain_names.raw(below)}" if below else target or "/", entry, action, source, owner, top=not below)

    def _entry(self, path: str, entry: Entry, action: PutCopy, source: Source, owner: tuple[int, int] | None, *, top: bool) -> None:
        ids = owner or (entry.uid, entry.gid)
        if entry.kind == entries.FOLDER:
            self._folder(path, entry, action, owner, top=top)
            return
        mode = changed_mode(action.mode, entry.mode, folder=False)
        if entry.kind == entries.FILE:
            self._file(path, entry, source, ids, mode)
            return
        self._clear(path)
        if entry.kind == entries.LINK:
            os.symlink(plain_names.raw(entry.link), path)
        else:
            kind = {entries.FIFO: stat.S_IFIFO, entries.CHAR: stat.S_IFCHR, entries.BLOCK: stat.S_IFBLK}[entry.kind]
            os.mknod(path, kind | 0o600, entry.device)
        os.chown(path, *ids, follow_symlinks=False)
        if entry.kind != entries.LINK:
            os.chmod(path, mode)
        self._set_attributes(path, entry)
        self._set_time(path, entry, source)

    def _file(self, path: str, entry: Entry, source: Source, ids: tuple[int, int], mode: int) -> None:
        try:
            fd = os.open(path, _MAKE, 0o600)
        except FileExistsError:
            self._clear(path)
            fd = os.open(path, _MAKE, 0o600)
        try:
            if source.origin and entry.place < 0 and entry.place in source.linkable and not entry.attributes:
                self._links.append(_Link(os.path.realpath(path), self._origins.folder(source.origin), -1 - entry.place, mode, ids))
                return
            self._fill(fd, entry, source)
            if ids != (0, 0):
                os.chown(fd, *ids)
            os.chmod(fd, mode)
            for name, value in entry.attributes:
                os.setxattr(fd, name, value)
            time = self._time_of(entry, source)
            os.utime(fd, ns=(time, time))
        finally:
            os.close(fd)

    def _fill(self, fd: int, entry: Entry, source: Source) -> None:
        if source.origin and entry.place >= 0:
            spool = self._origins.spool(source.origin)
            os.write(fd, os.pread(spool, entry.size, entry.place))
            return
        origin = self._origins.open(source.origin, entry)
        try:
            done = 0  # not copy_file_range(2): overlayfs is another file system
            while copied := os.sendfile(fd, origin, done, _CHUNK << 6):
                done += copied
        finally:
            os.close(origin)

    def _time_of(self, entry: Entry, source: Source) -> int:
        """A context's times are a check-out's, not its content's: what is copied from it gets the step's."""
        return self._plan.time if source.origin else min(entry.time * 1_000_000_000, self._plan.time)

    def _set_time(self, path: str, entry: Entry, source: Source) -> None:
        time = self._time_of(entry, source)
        os.utime(path, ns=(time, time), follow_symlinks=False)

    @staticmethod
    def _set_attributes(path: str, entry: Entry) -> None:
        for name, value in entry.attributes:
            os.setxattr(path, name, value, follow_symlinks=False)

    @staticmethod
    def _clear(path: str) -> None:
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            raise CannotCopy(f"cannot replace to directory {path} with file")
        os.unlink(path)

    def _make_links(self) -> None:
        """Large files of the context: the empty file that stands in the writable layer becomes a link to the one that is there."""
        for link in self._links:
            name = link.path.lstrip("/")
            os.unlink(name, dir_fd=self._upper)
            os.link(str(link.number), name, src_dir_fd=link.folder, dst_dir_fd=self._upper, follow_symlinks=False)
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._upper)
            try:
                os.chown(fd, *link.owner)
                os.chmod(fd, link.mode)
                os.utime(fd, ns=(self._plan.time, self._plan.time))
            finally:
                os.close(fd)

    # --- archives
    def _unpack(self, action: PutCopy, source: Source, owner: tuple[int, int] | None) -> bool:
        """An archive's content into the target; False if the file is none. Told by its content, never by its name."""
        from corten.builder.archives import unpack_archive  # job() has imported it

        entry = source.items[0][1]
        if entry.kind != entries.FILE:
            return False
        fd = os.memfd_create("archive") if source.origin and entry.place >= 0 else self._origins.open(source.origin, entry)
        try:
            if source.origin and entry.place >= 0:
                os.write(fd, os.pread(self._origins.spool(source.origin), entry.size, entry.place))
                os.lseek(fd, 0, os.SEEK_SET)
            return unpack_archive(fd, action.target, lambda: self._make_folders(action.target, 0o755, owner or (0, 0)), owner)
        finally:
            os.close(fd)

    # --- heredocs
    def _write_file(self, action: PutFile) -> None:
        owner = self._owner(action.owner) or (0, 0)
        path, new = action.path, new_folder_mode(action.mode)
        if action.name and (path.endswith("/") or os.path.isdir(path)):
            self._make_folders(path, new, owner)
            path = f"{path.rstrip('/')}/{action.name}"
        else:
            self._make_folders(posixpath.dirname(path), new, owner)
        self._clear(path)
        fd = os.open(path, _MAKE, 0o600)
        try:
            with os.fdopen(fd, "wb", closefd=False) as file:
                file.write(action.data)
            os.chown(fd, *owner)
            os.chmod(fd, changed_mode(action.mode, 0o644, folder=False))
            os.utime(fd, ns=(self._plan.time, self._plan.time))
        finally:
            os.close(fd)


def _nearest(path: str) -> str:
    """The path, or what of those above it is there, as it was written."""
    while not os.path.lexists(path):
        path = posixpath.dirname(path)
    return path


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""  # an image without the file: only numbers work


def _enter(plan: FilePlan) -> None:
    if not plan.mounts:
        confine_to(os.open(plan.upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        return
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    sandbox = Sandbox()
    MountRoot(plan.root, tuple(plan.mounts)).perform(sandbox)
    confine_to(sandbox.root_fd)


def job(_argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: the descriptor is the file with the plan."""
    os.umask(0)
    plan, actions = read_plan(os.fdopen(fds[0], "rb", closefd=False))
    if plan.unpack:
        importlib.import_module("corten.builder.archives")  # while it can be found; not every copy pays for tar and compression
    origins, upper = _Origins(plan), _open_folder(plan.upper)
    _enter(plan)
    try:
        _Worker(plan, origins, upper).run(actions)
    except (UnknownUser, tarfile.TarError, shutil.Error) as error:
        raise CannotCopy(str(error)) from None
    except NotADirectoryError as error:
        raise CannotCopy(f"cannot copy to non-directory: {error.filename}") from None
    return b""
