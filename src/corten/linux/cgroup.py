"""Control groups, version 1 (one hierarchy a controller, also hybrid) and version 2, behind one small interface.

Owns: which hierarchies the host has, making, entering, reading, freezing, emptying and removing a group.
What is written into a group is a list of Setting values made by cgroup_settings.py.
Sources: cgroups(7); Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Protocol

from corten.linux import bpf_devices
from corten.spec.runtime import DeviceRule

_RETRIES, _PAUSE = 200, 0.005  # a frozen or dying group settles within a second


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


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)} (writing {value!r})", path) from None
    finally:
        os.close(fd)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _kill_until_empty(group: Cgroup) -> None:
    for _ in range(_RETRIES):
        pids = group.pids()
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE)
    raise OSError(16, f"processes {group.pids()} survive SIGKILL", group.path)


def _remove_directory(path: str) -> None:
    """Remove a group and what the container made below it. A dying process holds a group for a moment: wait for it."""
    for attempt in range(_RETRIES):
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
            if attempt == _RETRIES - 1:
                raise
            time.sleep(_PAUSE)


class CgroupV1:
    """One directory in each hierarchy. `devices` rules go to devices.deny and devices.allow."""

    def __init__(self, layout: Layout, path: str) -> None:
        self.path = path
        self._mounts = layout.v1
        self._directories = {controller: mount + path for controller, mount in layout.v1.items()}

    def create(self) -> None:
        for controller, mount in self._mounts.items():
            directory = self._directories[controller]
            try:
                os.mkdir(directory)
            except FileExistsError:
                continue
            except FileNotFoundError:
                self._make_parents(controller, mount)
                os.mkdir(directory)
            if controller == "cpuset":
                self._inherit_cpuset(os.path.dirname(directory), directory)

    def _make_parents(self, controller: str, mount: str) -> None:
        current = mount
        for part in self.path.strip("/").split("/")[:-1]:
            current = f"{current}/{part}"
            with contextlib.suppress(FileExistsError):
                os.mkdir(current)
            if controller == "cpuset":
                self._inherit_cpuset(os.path.dirname(current), current)

    @staticmethod
    def _inherit_cpuset(parent: str, current: str) -> None:
        # A new cpuset is empty and admits nobody; clone_children makes the groups below copy this one.
        if _read(f"{current}/cpuset.cpus").strip():
            return
        for name in ("cpuset.cpus", "cpuset.mems"):
            _write(f"{current}/{name}", _read(f"{parent}/{name}").strip())
        _write(f"{current}/cgroup.clone_children", "1")

    def apply(self, settings: list[Setting], devices: list[DeviceRule] | None) -> None:
        for setting in settings:
            directory = self._directories.get(setting.controller)
            if directory is None:
                if setting.optional:
                    continue
                raise OSError(2, f"this kernel has no {setting.controller} controller", setting.file)
            if setting.optional and not os.path.exists(f"{directory}/{setting.file}"):
                continue
            _write(f"{directory}/{setting.file}", setting.value)
        if devices is not None and "devices" in self._directories:
            for rule in devices:
                self._apply_device(rule)

    def _apply_device(self, rule: DeviceRule) -> None:
        major = "*" if rule.major is None or rule.major < 0 else str(rule.major)
        minor = "*" if rule.minor is None or rule.minor < 0 else str(rule.minor)
        line = "a" if rule.type in ("a", "") else f"{rule.type} {major}:{minor} {rule.access or 'rwm'}"
        _write(self._directories["devices"] + ("/devices.allow" if rule.allow else "/devices.deny"), line)

    def enter(self) -> None:
        # "0" into `tasks` moves only the caller and takes no global lock; a pid into `cgroup.procs` waits 5 to 10 ms
        # for an RCU grace period (kernel/cgroup: cgroup_procs_write_start).
        for directory in self._directories.values():
            _write(f"{directory}/tasks", "0")

    def descriptor(self, beside: int = 0) -> int:
        return -1

    def pids(self) -> list[int]:
        for controller in ("pids", "freezer", "memory", "cpu", "devices"):
            if controller in self._directories:
                found: list[int] = []
                for parent, _, files in os.walk(self._directories[controller]):
                    if "cgroup.procs" in files:
                        found.extend(int(pid) for pid in _read(f"{parent}/cgroup.procs").split())
                return found
        return []

    def freeze(self, frozen: bool) -> None:
        want = "FROZEN" if frozen else "THAWED"
        state = self._directories["freezer"] + "/freezer.state"
        for attempt in range(_RETRIES):
            _write(state, want)
            if _read(state).strip() == want:
                return
            if attempt:
                time.sleep(_PAUSE)
        _write(state, "THAWED")
        raise OSError(16, f"the group does not become {want}", state)

    def kill(self) -> None:
        _kill_until_empty(self)

    def remove(self) -> None:
        for directory in self._directories.values():
            _remove_directory(directory)

    def read(self, controller: str, file: str) -> str:
        directory = self._directories.get(controller)
        return _read(f"{directory}/{file}") if directory else ""

    def oom_kills(self) -> int:
        for line in self.read("memory", "memory.oom_control").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0


class CgroupV2:
    """One directory in the unified hierarchy. Device rules become a BPF program."""

    def __init__(self, layout: Layout, path: str) -> None:
        self.path = path
        self._mount = layout.v2
        self._directory = layout.v2 + path

    def create(self) -> None:
        current = self._mount
        for part in self.path.strip("/").split("/"):
            self._hand_down(current)
            current = f"{current}/{part}"
            with contextlib.suppress(FileExistsError):
                os.mkdir(current)

    @staticmethod
    def _hand_down(folder: str) -> None:
        """Let the groups below have every controller that this one has.

        What the kernel refuses (a group with processes of its own, real-time tasks that keep `cpu`) is not there below: a limit
        that needs it says so, and a container without one runs.
        """
        enabled = set(_read(f"{folder}/cgroup.subtree_control").split())
        missing = [f"+{name}" for name in _read(f"{folder}/cgroup.controllers").split() if name not in enabled]
        if not missing:
            return
        try:
            _write(f"{folder}/cgroup.subtree_control", " ".join(missing))
        except OSError:  # the kernel takes all of a write or nothing
            for name in missing:
                with contextlib.suppress(OSError):
                    _write(f"{folder}/cgroup.subtree_control", name)

    def apply(self, settings: list[Setting], devices: list[DeviceRule] | None) -> None:
        for setting in settings:
            path = f"{self._directory}/{setting.file}"
            if not os.path.exists(path):
                if setting.optional:
                    continue
                raise OSError(2, self._why_missing(setting.controller), path)
            _write(path, setting.value)
        if devices is not None:
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                bpf_devices.attach(directory, devices)
            finally:
                os.close(directory)

    def _why_missing(self, controller: str) -> str:
        """For a control file that is not there: the first group from the root that does not have its controller."""
        current = self._mount
        for part in ("", *self.path.strip("/").split("/")):
            current = f"{current}/{part}" if part else current
            if controller not in _read(f"{current}/cgroup.controllers").split():
                parent = os.path.dirname(current)
                return f"the {controller} controller is not enabled in {parent}/cgroup.subtree_control" if part else f"this kernel has no {controller} controller"
        return "this kernel does not have it"

    def enter(self) -> None:
        _write(f"{self._directory}/cgroup.procs", "0")

    def descriptor(self, beside: int = 0) -> int:
        directory = self._directory
        if beside and _read(f"{directory}/cgroup.subtree_control").strip():
            path = _read(f"/proc/{beside}/cgroup").strip().rpartition("0::")[2]
            if path.startswith(f"{self.path}/"):
                directory = self._mount + path
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def pids(self) -> list[int]:
        found: list[int] = []
        for parent, _, files in os.walk(self._directory):
            if "cgroup.procs" in files:
                found.extend(int(pid) for pid in _read(f"{parent}/cgroup.procs").split())
        return found

    def freeze(self, frozen: bool) -> None:
        _write(f"{self._directory}/cgroup.freeze", "1" if frozen else "0")
        for _ in range(_RETRIES):
            if f"frozen {int(frozen)}" in self.read("", "cgroup.events"):
                return
            time.sleep(_PAUSE)
        raise OSError(16, "the group does not settle", f"{self._directory}/cgroup.freeze")

    def kill(self) -> None:
        if os.path.exists(f"{self._directory}/cgroup.kill"):
            _write(f"{self._directory}/cgroup.kill", "1")
        _kill_until_empty(self)

    def remove(self) -> None:
        _remove_directory(self._directory)

    def read(self, controller: str, file: str) -> str:
        return _read(f"{self._directory}/{file}")

    def oom_kills(self) -> int:
        for line in self.read("memory", "memory.events").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0


def open_cgroup(path: str, layout: Layout | None = None) -> Cgroup:
    """The group at `path` (absolute below the root, such as /corten/ID) in the host's own version."""
    layout = layout or host_layout()
    return CgroupV2(layout, path) if layout.unified else CgroupV1(layout, path)



def remove_if_empty(path: str, layout: Layout) -> None:
    """Remove a parent group that holds nothing any more; somebody else's containers in it keep it."""
    for mount in {*layout.v1.values(), *layout.named, *([layout.v2] if layout.v2 else [])}:
        with contextlib.suppress(OSError):
            os.rmdir(mount + path)
