"""The files and folders of control groups, the same in both versions: writing, reading, emptying, removing."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterable

from corten.linux.cgroup import Cgroup

RETRIES, PAUSE = 200, 0.005  # a frozen or dying group settles within a second


def write(path: str, value: str) -> None:
    write_each(path, (value,))


def write_each(path: str, values: Iterable[str]) -> None:
    """One value after the other, each a write of its own."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for value in values:
            try:
                os.write(fd, value.encode())
            except OSError as error:
                raise OSError(error.errno, f"{os.strerror(error.errno or 0)} (writing {value!r})", path) from None
    finally:
        os.close(fd)


def read(path: str) -> str:
    """Empty for a group that has gone, also between the opening of its file and the reading (ENODEV)."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return ""


def pids_below(directory: str) -> list[int]:
    """The processes of a group and of all groups below it."""
    found: list[int] = []
    for parent, _, names in os.walk(directory):
        if "cgroup.procs" in names:
            found.extend(int(pid) for pid in read(f"{parent}/cgroup.procs").split())
    return found


def kill_until_empty(group: Cgroup) -> None:
    for _ in range(RETRIES):
        pids = group.pids()
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE)
    raise OSError(16, f"processes {group.pids()} survive SIGKILL", group.path)


def remove_directory(path: str) -> None:
    """Remove a group and what the container made below it. A dying process holds a group for a moment: wait for it."""
    for attempt in range(RETRIES):
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError:
            for parent, folders, _ in os.walk(path, topdown=False):
                for name in folders:
                    with contextlib.suppress(OSError):
                        os.rmdir(os.path.join(parent, name))
            if attempt == RETRIES - 1:
                raise
            time.sleep(PAUSE)
