"""Doing one thing in another network namespace, and naming namespaces. Source: setns(2), namespaces(7)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from corten.linux import syscalls


@contextmanager
def network_namespace(fd: int) -> Iterator[None]:
    """The calling thread is in the namespace inside the block. Keep it short and make no await in it."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(fd, syscalls.CLONE_NEWNET)
        try:
            yield
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)
