"""Mounting an overlay of many layers: mount(2) takes one page of options, and a layer's path is most of them.

The newer calls (fsconfig with `lowerdir+`) have no such page; this way serves every kernel. Sources: Linux fs/overlayfs (OVL_MAX_STACK, 500 lower layers), mount(2).
"""

from __future__ import annotations

import os
from collections import Counter

from corten.linux import syscalls as sys


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None) -> None:
    """As the system call of that name, for an overlay of any number of layers, too. `target` is absolute.

    For a process of one thread: the current folder is another for a moment. Raises OSError.
    """
    folder, fitting = fit(data or "") if fstype == "overlay" else ("", data)
    if not folder:
        sys.mount(source, target, fstype, flags, data or None)
        return
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(folder)
        sys.mount(source, target, fstype, flags, fitting)
    finally:
        os.fchdir(before)
        os.close(before)


def mount_among_threads(source: str, target: str, fstype: str, flags: int, data: str) -> None:
    """The same for a process of several threads: a thread of its own changes the folder that is current for it alone. Raises OSError."""
    if fstype != "overlay" or not fit(data)[0]:
        sys.mount(source, target, fstype, flags, data or None)
        return
    from concurrent.futures import ThreadPoolExecutor  # nothing that forks carries it

    def alone() -> None:
        sys.unshare(sys.CLONE_FS)
        mount(source, target, fstype, flags, data)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(alone).result()


def fit(data: str) -> tuple[str, str]:
    """Pure: (folder to be in, options that name the layers from there); no folder for options that fit as they are."""
    if len(os.fsencode(data)) < sys.MOUNT_PAGE:
        return "", data
    options = dict(option.partition("=")[::2] for option in data.split(","))
    lower = options["lowerdir"].split(":")
    (folder, _), = Counter(map(os.path.dirname, lower)).most_common(1)
    options["lowerdir"] = ":".join(os.path.relpath(path, folder) for path in lower)
    return folder, ",".join(f"{key}={value}" if value else key for key, value in options.items())
