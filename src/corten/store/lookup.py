"""What is at a path of an image, read from its layers without mounting them. Answers for plain paths; a symbolic link on the way
is for whoever mounts (and enters) the image to follow.

Source: overlayfs.rst, "whiteouts and opaque directories", "merging".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from corten.store.overlay_view import is_opaque, is_whiteout


@dataclass(frozen=True)
class Found:
    """`kind`: missing, file, folder, or link (one is on the way, and nothing more is known). `folders` are a folder's parts, top first, or the file."""

    kind: str
    folders: tuple[str, ...] = ()


MISSING = Found("missing")


def look_up(lower: Sequence[str], path: str) -> Found:
    """`lower` are the layers' folders, topmost first; `path` is normal."""
    folders = tuple(lower)
    for name in filter(None, path.split("/")):
        found = _step(folders, name)
        if found.kind != "folder":
            return found
        folders = found.folders
    return Found("folder", folders)


def _step(folders: tuple[str, ...], name: str) -> Found:
    merged: list[str] = []
    for folder in folders:
        candidate = f"{folder}/{name}"
        try:
            status = os.lstat(candidate)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISDIR(status.st_mode):
            if merged or is_whiteout(status):
                break
            return Found("link") if stat.S_ISLNK(status.st_mode) else Found("file", (candidate,))
        merged.append(candidate)
        if is_opaque(candidate):
            break
    return Found("folder", tuple(merged)) if merged else MISSING


def is_empty(folders: Sequence[str]) -> bool:
    """Whether a merged folder has no entry. Whiteouts are none."""
    return not any(is_entry(folder, name) for folder in folders for name in os.listdir(folder))


def is_entry(folder: str, name: str) -> bool:
    return not is_whiteout(os.lstat(f"{folder}/{name}"))
