"""Processes that are not our children, by a descriptor: how one has ended. Source: pidfd_open(2), proc_pid_stat(5), linux/pidfd.h.

Waiting for a descriptor to become readable, and signalling, are os.pidfd_open and signal.pidfd_send_signal.
"""

from __future__ import annotations

import fcntl
import struct

_INFO = struct.Struct("QQ11Ii")  # struct pidfd_info, version 0: mask, cgroupid, eleven ids, exit_code
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11  # PIDFD_GET_INFO
_INFO_EXIT = 1 << 3  # Linux 6.15; says nothing before the process has been reaped
_STATE, _PARENT, _EXIT_CODE = 0, 1, 49  # fields of /proc/PID/stat behind the command


def exit_status(pidfd: int, pid: int) -> int | None:
    """The wait status of a process that has ended, child or not; None where nothing tells (reaped, on an older kernel)."""
    for _ in range(2):  # it may be reaped between the two looks
        status = _of_reaped(pidfd)
        if status is None:
            status = _of_zombie(pid)
        if status is not None:
            return status
    return None


def parent_of(pid: int) -> int:
    """Raises OSError if there is no such process."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return int(file.read().rsplit(")", 1)[1].split()[_PARENT])


def _of_reaped(pidfd: int) -> int | None:
    try:
        mask, *_, status = _INFO.unpack(fcntl.ioctl(pidfd, _GET_INFO, _INFO.pack(_INFO_EXIT, *[0] * 13)))
    except OSError:  # older than Linux 6.13
        return None
    return status if mask & _INFO_EXIT else None


def _of_zombie(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[_EXIT_CODE]) if fields[_STATE] in "ZX" else None
