"""File trees that steps copy from: a context as it was received, and the merged layers of a chain. Looked at, never mounted.

A chain's layers never change, so walking them by names is safe: every component is looked at before it is entered, and a link is
followed here, inside the tree. Must not know what is copied where (select.py).
"""

from __future__ import annotations

import hashlib
import os
import stat
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
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

    def inside(self, path: str) -> Iterator[Entry]:
        """What `look` says of each of a folder's entries, in the order of their names."""
        ...

    def digested(self, entry: Entry) -> Entry:
        """The entry with its content's digest. Reads the file where that is not known yet."""
        ...


class ContextTree:
    """`listed`, sorted by path, is asked when something is looked for, in the thread that does. `hides` says which paths the ignore file takes
    away; a folder stays while something in it does.

    No entry is kept but what `listed` keeps: what is found is numbers, as there may be hundreds of thousands.
    """

    def __init__(self, listed: Callable[[], Sequence[Entry]], hides: Callable[[str], bool] | None = None) -> None:
        self._list, self._hides = listed, hides

    @cached_property
    def _listed(self) -> Sequence[Entry]:
        return self._list()

    @cached_property
    def _numbers(self) -> tuple[array[int], array[int]]:
        """Hashes of all paths, sorted, and whose they are."""
        hashes = array("q", (hash(entry.path) for entry in self._listed))
        numbers = array("I", sorted(range(len(hashes)), key=hashes.__getitem__))
        return array("q", map(hashes.__getitem__, numbers)), numbers

    def _find(self, path: str) -> tuple[int, Entry] | None:
        """Also what is hidden."""
        hashes, numbers = self._numbers
        at = bisect_left(hashes, wanted := hash(path))
        while at < len(hashes) and hashes[at] == wanted:
            entry = self._listed[numbers[at]]
            if entry.path == path:
                return numbers[at], entry
            at += 1
        return None

    @cached_property
    def _shown(self) -> bytearray:
        """By number, whether it is there for who looks."""
        if self._hides is None:
            return bytearray(b"\1") * len(self._listed)
        shown, last = bytearray(len(self._listed)), ""
        for number, entry in enumerate(self._listed):
            if entry.path and self._hides(entry.path):
                continue
            shown[number] = True
            parent = entry.path.rpartition("/")[0]
            while parent != last and (above := self._find(parent)) and not shown[above[0]]:
                shown[above[0]] = True
                parent = parent.rpartition("/")[0]
            last = entry.path.rpartition("/")[0]
        return shown

    @cached_property
    def _children(self) -> dict[str, array[int]]:
        """Numbers of what is shown, by the path of its folder."""
        children: dict[str, array[int]] = {}
        for number, entry in enumerate(self._listed):
            if entry.path and self._shown[number]:
                parent = entry.path.rpartition("/")[0]
                found = children.get(parent)
                if found is None:
                    found = children[parent] = array("I")
                found.append(number)
        return children

    def number(self, path: str) -> int | None:
        """In the listing, of what `look` finds."""
        found = self._find(path)
        return found[0] if found and self._shown[found[0]] else None

    def look(self, path: str) -> Entry | None:
        found = self._find(path)
        return found[1] if found and self._shown[found[0]] else None

    def names(self, path: str) -> Sequence[str]:
        return [entry.path.rpartition("/")[2] for entry in self.inside(path)]

    def inside(self, path: str) -> Iterator[Entry]:
        return map(self._listed.__getitem__, self._children.get(path, ()))

    def digested(self, entry: Entry) -> Entry:
        """Raises NotSent: what nobody has asked the client for is never taken for an empty file."""
        if entry.kind == entries.FILE and not entry.digest:
            raise NotSent(path=entry.path)
        return entry

    def is_ignored(self, path: str) -> bool:
        """Also of what is not there: a client need not send what the ignore file excludes."""
        return self.look(path) is None and self._hides is not None and self._hides(path)


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

    def inside(self, path: str) -> Iterator[Entry]:
        return filter(None, (self.look(f"{path}/{name}".lstrip("/")) for name in self.names(path)))

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
