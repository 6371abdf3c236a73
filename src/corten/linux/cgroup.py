"""Control groups: what is mounted, one write into a group, and what can be done with a group of either version.

Values and the interface only: cgroup_v1.py and cgroup_v2.py are what does it, cgroup_versions.py chooses, cgroup_settings.py makes
the writes out of OCI resources.
Source: cgroups(7).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from corten.spec.runtime import DeviceRule


@dataclass(frozen=True)
class Setting:
    """One write: `controller` picks the hierarchy on version 1; `optional` files may be absent on this kernel."""

    controller: str
    file: str
    value: str
    optional: bool = False


@dataclass(frozen=True)
class Layout:
    """What is mounted. `v1` maps controller -> mount point; `v2` is the unified mount point or empty.

    `named` are version 1 hierarchies without a controller (name=systemd): other runtimes make groups there too.
    """

    v1: dict[str, str] = field(default_factory=dict)
    v2: str = ""
    named: tuple[str, ...] = ()

    @property
    def unified(self) -> bool:
        """Version 2 is used only where no controller that matters sits on version 1."""
        return bool(self.v2) and not self.v1


_CONTROLLERS = frozenset({"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"})


def parse_layout(mountinfo: str) -> Layout:
    """Pure: the layout that a /proc/self/mountinfo text shows."""
    v1: dict[str, str] = {}
    v2 = ""
    named: list[str] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fstype, _, options = right.split(" ", 2)
        mount_point = left.split(" ")[4]
        if fstype == "cgroup2":
            v2 = v2 or mount_point
        elif fstype == "cgroup":
            for option in options.split(","):
                if option in _CONTROLLERS:
                    v1.setdefault(option, mount_point)
                elif option.startswith("name="):
                    named.append(mount_point)
    return Layout(v1, v2, tuple(named))


def host_layout() -> Layout:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mountinfo:
        return parse_layout(mountinfo.read())


class Cgroup(Protocol):
    """A control group by its path below the root. Every call may raise OSError naming the file."""

    path: str

    def create(self) -> None:
        """Make the group in every hierarchy. Idempotent."""

    def apply(self, settings: list[Setting], devices: list[DeviceRule] | None) -> None:
        """Write limits and device rules."""

    def enter(self) -> None:
        """Move the calling single-threaded process in."""

    def descriptor(self, beside: int = 0) -> int:
        """A descriptor for CLONE_INTO_CGROUP, or -1 where the child has to enter() by itself. Caller closes.

        `beside`: a process inside. If it has divided the group, the one it is in itself: a divided group takes no process.
        """

    def pids(self) -> list[int]:
        """Every process inside, in the reader's pid namespace."""

    def freeze(self, frozen: bool) -> None:
        """Freeze or thaw, and wait until it is so."""

    def kill(self) -> None:
        """SIGKILL every process inside, and wait until none is left."""

    def remove(self) -> None:
        """Remove the empty group. Idempotent."""

    def read(self, controller: str, file: str) -> str:
        """A control file's text; empty where there is none."""

    def oom_kills(self) -> int:
        """How often the kernel killed a process inside for lack of memory."""
