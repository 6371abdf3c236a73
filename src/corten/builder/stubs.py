"""Mount points for a RUN step, in a folder between its base and its writable layer: what is mounted there leaves no trace in the layer."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from corten.builder.entries import FOLDER, Entry
from corten.builder.trees import ChainTree, follow
from corten.store import init_layer


def fill(folder: str, below: Sequence[str], targets: Sequence[tuple[str, bool]]) -> None:
    """`below`: the layers' folders, topmost first. `targets`: (path, whether a folder is mounted there). For threads: it reads folders."""
    init_layer.fill(folder, below)
    tree = ChainTree(below)
    for path, is_folder in sorted(targets):
        _make(folder, tree, path, is_folder=is_folder)


def _make(folder: str, tree: ChainTree, path: str, *, is_folder: bool) -> None:
    parts = [part for part in path.split("/") if part]
    at = ""
    for count, part in enumerate(parts, 1):
        real = follow(tree, f"{at}/{part}")
        inside = real if real is not None else f"{at}/{part}".lstrip("/")
        last = count == len(parts)
        entry = tree.look(inside)
        if entry is not None and (last or entry.kind != FOLDER):
            return  # there is something to mount on, or the mount fails and says so
        if last and not is_folder:
            if not os.path.lexists(f"{folder}/{inside}"):
                _copy_parents(folder, tree, inside)
                os.close(os.open(f"{folder}/{inside}", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o644))
            return
        if last:
            _copy_parents(folder, tree, f"{inside}/")
        at = inside


def _copy_parents(folder: str, tree: ChainTree, path: str) -> None:
    """Every folder above the last slash, as it is below."""
    grown = ""
    for part in path.split("/")[:-1]:
        grown = f"{grown}/{part}".lstrip("/")
        full = f"{folder}/{grown}"
        if os.path.isdir(full) and not os.path.islink(full):
            continue
        os.mkdir(full)
        entry = tree.look(grown)
        os.chmod(full, 0o755)
        if entry and entry.kind == FOLDER:
            _like(full, entry)


def _like(path: str, entry: Entry) -> None:
    os.chown(path, entry.uid, entry.gid)
    os.chmod(path, stat.S_IMODE(entry.mode))
    os.utime(path, (entry.time, entry.time))
