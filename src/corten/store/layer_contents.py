"""What each layer of an image adds, changes and removes, and which of its bytes later layers make useless. Reads layers only.

Folders are not counted: a layer names those on the way to its files, changed or not. A hard link counts as a file, its bytes once.
Source of whiteouts and opaque folders: overlayfs.rst.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from corten.store.overlay_view import Node, children, is_opaque, is_whiteout, root

_CHUNK = 1 << 20


@dataclass
class LayerContents:
    """Paths from the image's root; `size` and `wasted` in bytes. `wasted`: of its own, hidden by a later layer."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    size: int = 0
    wasted: int = 0


@dataclass
class _Seen:
    """One name of the image as far as it has been laid: the layer that holds it, and a folder's names."""

    owner: int
    size: int
    below: dict[str, _Seen] | None = None


def layer_contents(folders: Sequence[str]) -> list[LayerContents]:
    """`folders` are the layers' in overlay form, lowest first. Reads every folder: not for the event loop."""
    found = [LayerContents() for _ in folders]
    everything = _Seen(0, 0, {})
    for number, folder in enumerate(folders):
        _Laying(found, number).folder(everything, folder, "")
    return found


class _Laying:
    """One layer being laid over what has been seen."""

    def __init__(self, found: list[LayerContents], number: int) -> None:
        self._found, self._number, self._own = found, number, found[number]
        self._inodes: set[int] = set()

    def folder(self, seen: _Seen, folder: str, path: str) -> None:
        below = seen.below if seen.below is not None else {}
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda item: item.name):
                self._entry(below, entry, f"{path}/{entry.name}")

    def _entry(self, below: dict[str, _Seen], entry: os.DirEntry[str], path: str) -> None:
        status = entry.stat(follow_symlinks=False)
        old = below.get(entry.name)
        if is_whiteout(status):
            if old:
                self._remove(below.pop(entry.name), path)
            return
        if stat.S_ISDIR(status.st_mode):
            if old and (old.below is None or is_opaque(entry.path)):
                self._remove(below.pop(entry.name), path)
                old = None
            self.folder(below.setdefault(entry.name, old or _Seen(self._number, 0, {})), entry.path, path)
            return
        size = 0 if status.st_ino in self._inodes else status.st_size
        self._inodes.add(status.st_ino)
        self._own.size += size
        if old and old.below is not None:
            self._remove(old, path)
            old = None
        if old:
            self._waste(old)
        (self._own.changed if old else self._own.added).append(path)
        below[entry.name] = _Seen(self._number, size)

    def _remove(self, gone: _Seen, path: str) -> None:
        """A file, or a folder with all that is in it."""
        if gone.below is None:
            self._own.removed.append(path)
            self._waste(gone)
            return
        for name, inside in sorted(gone.below.items()):
            self._remove(inside, f"{path}/{name}")

    def _waste(self, hidden: _Seen) -> None:
        self._found[hidden.owner].wasted += hidden.size


# --- two images
def differences(first: Sequence[str], second: Sequence[str]) -> Iterator[tuple[str, int]]:
    """(path, kind) for what `second` has otherwise than `first`; both topmost first. Kinds as a container's changes: 0 changed, 1 added, 2 removed."""
    if first and second:
        yield from _compare(root(first), root(second), "")
    elif first or second:
        yield from (("/" + name, 2 if first else 1) for name in sorted(children(root(first or second))))


def _compare(first: Node, second: Node, path: str) -> Iterator[tuple[str, int]]:
    if first.sources == second.sources:
        return  # the same layers, so the same below
    theirs, ours = children(first), children(second)
    for name in sorted({*theirs, *ours}):
        inside = f"{path}/{name}"
        one, other = theirs.get(name), ours.get(name)
        if one is None or other is None:
            yield inside, 1 if one is None else 2
            continue
        if one.path != other.path and not _same(one, other):
            yield inside, 0
        if one.is_folder and other.is_folder:
            yield from _compare(one, other, inside)


def _same(one: Node, other: Node) -> bool:
    """By what a program inside would see: kind, mode, owner, capability, and content; times do not count."""
    first, second = one.status, other.status
    if (first.st_mode, first.st_uid, first.st_gid, one.capability) != (second.st_mode, second.st_uid, second.st_gid, other.capability):
        return False
    if stat.S_ISLNK(first.st_mode):
        return os.readlink(one.path) == os.readlink(other.path)
    if stat.S_ISREG(first.st_mode):
        return first.st_size == second.st_size and _same_bytes(one.path, other.path)
    return stat.S_ISDIR(first.st_mode) or first.st_rdev == second.st_rdev


def _same_bytes(one: str, other: str) -> bool:
    with open(one, "rb") as first, open(other, "rb") as second:
        while data := first.read(_CHUNK):
            if data != second.read(_CHUNK):
                return False
    return True
