"""How many bytes a folder holds. For threads: it walks."""

from __future__ import annotations

import os
import stat
from contextlib import suppress


def tree_size(root: str) -> int:
    """Bytes of the files; one with several names counts once. What vanishes meanwhile is passed over: others use the folder."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for folder, _, files in os.walk(root):
        for name in files:
            with suppress(FileNotFoundError):
                found = os.lstat(os.path.join(folder, name))
                if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                    if (found.st_dev, found.st_ino) in seen:
                        continue
                    seen.add((found.st_dev, found.st_ino))
                total += found.st_size
    return total
