"""What this machine is and can do, read from the kernel's files. No policy, nothing kept.

Sources: proc(5), os-release(5). What control groups can do is cgroup_abilities.py's.
"""

from __future__ import annotations

import os

# Docker names these after their common magic number.
_FILESYSTEMS = {"ext2": "extfs", "ext3": "extfs", "ext4": "extfs"}


def read_text(path: str) -> str:
    """The content without space around it; empty if the file is not there or says nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def os_release() -> dict[str, str]:
    """os-release(5)."""
    rows = (line.partition("=") for line in (read_text("/etc/os-release") or read_text("/usr/lib/os-release")).splitlines() if "=" in line)
    return {key: value.strip("\"'") for key, _, value in rows}


def memory_total() -> int:
    """Bytes."""
    return int(read_text("/proc/meminfo").split()[1]) * 1024


def filesystem(path: str) -> str:
    """The type of the file system that holds a path, as Docker names it."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in read_text("/proc/self/mountinfo").splitlines():
        fields = line.split()
        if fields[2] == wanted:
            kind = fields[fields.index("-") + 1]
            return _FILESYSTEMS.get(kind, kind)
    return "<unknown>"


def has_seccomp() -> bool:
    return os.path.exists("/proc/sys/kernel/seccomp/actions_avail")


def forwards_ipv4() -> bool:
    return read_text("/proc/sys/net/ipv4/ip_forward") == "1"
