"""File trees that steps copy from: a context as it was received, and the merged layers of a chain. Looked at, never mounted.

A chain's layers never change, so walking them by names is safe: every component is looked at before it is entered, and a link is
followed here, inside the tree. Must not know what is copied where (select.py).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Protocol

import msgspec

from corten.builder import entries
from corten.builder.entries import Entry
from corten.errors import Invalid
from corten.spec import plain_names
from corten.store import overlay_view

_LINKS = 255  # as many as the kernel's file systems and BuildKit follow before they call it a loop
_CHUNK = 1 << 20
_KINDS = {
    stat.S_IFREG: entries.FILE, stat.S_IFDIR: entries.FOLDER, stat.S_IFLNK: entries.LINK, stat.S_IFIFO: entries.FIFO,
    stat.S_IFCHR: entries.CHAR, stat.S_IFBLK: entries.BLOCK,
}  # fmt: skip


class TooManyLinks(Invalid):
    template = "{path}: too many levels of symbolic links"


class NotSent(Invalid):
    template = "the content of {path} was not asked of the client: this is a mistake in Corten, please report it"


class Looking(Protocol):
    """Paths are relative to the root, without dots; the root is the empty path."""

    def look(self, path: str) -> Entry | None:
        """What is there; a link is not followed."""
        ...


class Tree(Looking, Protocol):
    def names(self, path: str) -> Sequence[str]:
        """Of a folder's entries, sorted."""
        ...

    def digested(self, entry: Entry) -> Entry:
        """The entry with its content's digest. Reads the file where that is not known yet."""
        ...


class ContextTree:
    """`listed` is asked when something is looked for, in the thread that does. `hides` says which paths the ignore file takes away; a folder
    stays while something in it does.
    """

    def __init__(self, listed: Callable[[], Iterable[Entry]], hides: Callable[[str], bool] | None = None) -> None:
        self._listed, self._hides = listed, hides

    @cached_property
    def _all(self) -> dict[str, Entry]:
        return {entry.path: entry for entry in self._listed()}

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        return self._all if self._hides is None else _visible(self._all, self._hides)

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {path: [] for path, entry in self._entries.items() if entry.kind == entries.FOLDER}
        for path in self._entries:
            if path:
                parent, _, name = path.rpartition("/")
                names[parent].append(name)
        return {path: sorted(below) for path, below in names.items()}

    def look(self, path: str) -> Entry | None:
        return self._entries.get(path)

    def names(self, path: str) -> Sequence[str]:
        return self._names.get(path, ())

    def digested(self, entry: Entry) -> Entry:
        """Raises NotSent: what nobody has asked the client for is never taken for an empty file."""
        if entry.kind == entries.FILE and not entry.digest:
            raise NotSent(path=entry.path)
        return entry

    def is_ignored(self, path: str) -> bool:
        """Also of what is not there: a client need not send what the ignore file excludes."""
        return path not in self._entries and self._hides is not None and self._hides(path)

    def all(self) -> Iterable[Entry]:
        return self._entries.values()


def _visible(listed: dict[str, Entry], hides: Callable[[str], bool]) -> dict[str, Entry]:
    kept: dict[str, Entry] = {"": listed[""]}
    for path, entry in listed.items():
        if path and not hides(path):
            kept[path] = entry
            parent = path.rpartition("/")[0]
            while parent not in kept:
                kept[parent] = listed[parent]
                parent = parent.rpartition("/")[0]
    return kept


class ChainTree:
    """`folders` are the layers' folders, topmost first; `numbers` tells the number of a layer's folder."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._numbers = {folder: int(os.path.basename(folder)) for folder in folders}
        self._root = overlay_view.root(folders) if folders else None
        self._children: dict[str, dict[str, overlay_view.Node]] = {}

    def _node(self, path: str) -> overlay_view.Node | None:
        node, walked = self._root, ""
        for part in filter(None, path.split("/")):
            if node is None or not node.is_folder:
                return None
            node = self._below(walked, node).get(part)
            walked = f"{walked}/{part}"
        return node

    def _below(self, path: str, node: overlay_view.Node) -> dict[str, overlay_view.Node]:
        found = self._children.get(path)
        if found is None:
            found = self._children[path] = overlay_view.children(node)
        return found

    def look(self, path: str) -> Entry | None:
        node = self._node(raw := plain_names.raw(path))
        if node is None:
            return Entry("", entries.FOLDER) if not path else None
        kind = _KINDS.get(stat.S_IFMT(node.status.st_mode))
        return _entry(node, path, kind, self._number(node.path, raw)) if kind else None

    def _number(self, full: str, path: str) -> int:
        return self._numbers[full[: -len(path) - 1] if path else full]

    def names(self, path: str) -> Sequence[str]:
        node = self._node(raw := plain_names.raw(path))
        return sorted(map(plain_names.plain, self._below(f"/{raw}" if raw else "", node))) if node and node.is_folder else ()

    def digested(self, entry: Entry) -> Entry:
        if entry.kind != entries.FILE or entry.digest:
            return entry
        node = self._node(plain_names.raw(entry.path))
        return msgspec.structs.replace(entry, digest=_file_digest(node.path)) if node else entry

    def read(self, path: str, limit: int) -> bytes:
        """The beginning of a small file, links followed; empty if it is none."""
        found = follow(self, path)
        node = self._node(plain_names.raw(found)) if found is not None else None
        if node is None or not stat.S_ISREG(node.status.st_mode):
            return b""
        with open(node.path, "rb") as file:
            return file.read(limit)


def _entry(node: overlay_view.Node, path: str, kind: str, number: int) -> Entry:
    status = node.status
    link = plain_names.plain(os.readlink(node.path)) if kind == entries.LINK else ""
    size = status.st_size if kind == entries.FILE else 0
    mode, time = stat.S_IMODE(status.st_mode), max(0, status.st_mtime_ns // 1_000_000_000)
    return Entry(path, kind, mode, status.st_uid, status.st_gid, size, time, link, "", number, status.st_rdev, _attributes(node.path))


def _attributes(path: str) -> tuple[tuple[str, bytes], ...]:
    try:
        names = sorted(os.listxattr(path, follow_symlinks=False))
    except OSError:
        return ()
    kept = [name for name in names if name == "security.capability" or (name.startswith("user.") and not name.startswith("user.overlay."))]
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in kept)


@lru_cache(maxsize=1 << 16)
def _file_digest(path: str) -> str:
    """Of a file in a layer. Layers never change and their numbers are never used again, so it holds as long as the path does."""
    content = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while data := os.read(fd, _CHUNK):
            content.update(data)
    finally:
        os.close(fd)
    return content.hexdigest()


def follow(tree: Looking, path: str) -> str | None:
    """Where a path leads once every link in it is followed, none out of the tree; None where there is nothing. Raises TooManyLinks."""
    todo = [part for part in reversed(path.split("/")) if part]
    at: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part in (".", ".."):
            at = at[:-1] if part == ".." else at
            continue
        entry = tree.look("/".join([*at, part]))
        if entry is None:
            return None
        if entry.kind == entries.LINK:
            links += 1
            if links > _LINKS:
                raise TooManyLinks(path=path)
            if entry.link.startswith("/"):
                at = []
            todo += [name for name in reversed(entry.link.split("/")) if name]
        else:
            at.append(part)
    return "/".join(at)
