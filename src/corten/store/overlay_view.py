"""Folders in overlay form, seen merged as the kernel would show them. Reads only; the folders are layers, which never change.

Must not look into a writable layer: somebody may be changing that meanwhile (changes.py walks it by descriptors).
Source: overlayfs.rst, "whiteouts and opaque directories".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"


def is_whiteout(status: os.stat_result) -> bool:
    """A 0:0 character device: the name is deleted from here down."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(folder: str | int) -> bool:
    """Whether a folder (path or descriptor) hides what lies below it."""
    try:
        return os.getxattr(folder, OPAQUE_ATTRIBUTE) == b"y"
    except OSError:
        return False


@dataclass(frozen=True)
class Node:
    """One name of the merged tree: where it is, and (a folder) every layer's folder that contributes, topmost first."""

    path: str
    status: os.stat_result
    sources: tuple[str, ...] = ()

    @property
    def is_folder(self) -> bool:
        return bool(self.sources)

    @property
    def capability(self) -> bytes:
        return capability_of(self.path)


def capability_of(path: str | int) -> bytes:
    """The file capability, empty where there is none."""
    try:
        return os.getxattr(path, "security.capability", follow_symlinks=isinstance(path, int))
    except OSError:
        return b""


def root(layers: Sequence[str]) -> Node:
    """The merged root of at least one layer, topmost first."""
    return Node(layers[0], os.lstat(layers[0]), tuple(layers))


def children(folder: Node) -> dict[str, Node]:
    """What the merged folder shows, by name."""
    found: dict[str, Node] = {}
    closed: set[str] = set()
    for source in folder.sources:
        with os.scandir(source) as entries:
            for entry in entries:
                if entry.name in closed:
                    continue
                status = entry.stat(follow_symlinks=False)
                is_folder = stat.S_ISDIR(status.st_mode)
                if not is_folder or is_opaque(entry.path):
                    closed.add(entry.name)
                known = found.get(entry.name)
                if known is None:
                    if not is_whiteout(status):
                        found[entry.name] = Node(entry.path, status, (entry.path,) if is_folder else ())
                elif is_folder:
                    found[entry.name] = Node(known.path, known.status, (*known.sources, entry.path))
    return found


def look_up(layers: Sequence[str], path: str) -> Node | None:
    """The node at a path relative to the root, no link followed; None where there is nothing."""
    node = root(layers)
    for part in filter(None, path.split("/")):
        if not node.is_folder:
            return None
        below = children(node).get(part)
        if below is None:
            return None
        node = below
    return node
