"""A view of the running interpreter's binary that nothing can write to, and starting Python from it.

A container's first process is Python until it executes its program; whoever holds its /proc/PID/exe must not be able to
write to the host's binary (CVE-2019-5736). A detached read-only bind mount of the file does that without a copy.
"""

from __future__ import annotations

import os
import sys

from corten.linux import syscalls


def readonly_view() -> int:
    """A descriptor of the interpreter's binary on a read-only mount (a sealed copy where mounts are not allowed)."""
    binary = os.path.realpath("/proc/self/exe")
    try:
        fd = syscalls.open_tree(-100, binary, syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC)
        try:
            syscalls.mount_setattr(fd, "", syscalls.AT_EMPTY_PATH, attr_set=syscalls.MOUNT_ATTR_RDONLY)
        except OSError:
            os.close(fd)
            raise
        return fd
    except OSError:
        return _sealed_copy(binary)


def _sealed_copy(binary: str) -> int:
    copy = os.memfd_create("python", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(binary, "rb") as source:
        while block := source.read(1 << 20):
            os.write(copy, block)
    import fcntl  # only where mounts are refused

    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return copy


def runs_protected() -> bool:
    """Whether this process already runs from such a view."""
    fd = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY) or os.readlink("/proc/self/exe").startswith("/memfd:")
    finally:
        os.close(fd)


def re_execute_protected(arguments: list[str]) -> None:
    """Replace this process by the same Python from the protected view. Returns only if it runs protected already."""
    if not runs_protected():
        fd = readonly_view()
        os.execve(fd, [sys.executable, *arguments], dict(os.environ))


def make_undumpable() -> None:
    """From now on no process of a container can look into this one, or into a fork of it before its exec."""
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
