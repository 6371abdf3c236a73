"""Which paths make a build context large: as few as hold nine tenths of its bytes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from corten.builder.entries import Entry

_SHARE = 0.9
_MOST = 10


def large_paths(listed: Iterable[Entry]) -> list[tuple[str, int]]:
    """(path, bytes), the largest first; a folder stands for what is in it while one thing in it has not most of it."""
    sizes: Counter[str] = Counter()
    below: dict[str, set[str]] = {}
    for entry in listed:
        path, size = entry.path, entry.size
        while path:
            parent = path.rpartition("/")[0]
            sizes[path] += size
            below.setdefault(parent, set()).add(path)
            path = parent
    total = sum(sizes[path] for path in below.get("", ()))
    found: list[tuple[str, int]] = []
    covered = 0
    for path in sorted(below.get("", ()), key=lambda path: (-sizes[path], path)):
        if covered >= _SHARE * total or not sizes[path] or len(found) == _MOST:
            break
        narrowed = _narrowed(path, sizes, below)
        found.append((narrowed, sizes[narrowed]))
        covered += sizes[path]
    return found


def _narrowed(path: str, sizes: Counter[str], below: dict[str, set[str]]) -> str:
    """Down to where the bytes are."""
    while inside := below.get(path):
        largest = max(inside, key=lambda name: (sizes[name], name))
        if sizes[largest] < _SHARE * sizes[path]:
            return path
        path = largest
    return path
