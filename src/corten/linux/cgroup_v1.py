"""Version 1: one hierarchy a controller, also beside version 2 on hybrid hosts.

Source: Documentation/admin-guide/cgroup-v1.
"""

from __future__ import annotations

import contextlib
import os
import time
from itertools import groupby

from corten.linux import cgroup_files as files
from corten.linux.cgroup import Layout, Setting
from corten.spec.runtime import DeviceRule


def _device_line(rule: DeviceRule) -> str:
    major = "*" if rule.major is None or rule.major < 0 else str(rule.major)
    minor = "*" if rule.minor is None or rule.minor < 0 else str(rule.minor)
    return "a" if rule.type in ("a", "") else f"{rule.type} {major}:{minor} {rule.access or 'rwm'}"


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
        if files.read(f"{current}/cpuset.cpus").strip():
            return
        for name in ("cpuset.cpus", "cpuset.mems"):
            files.write(f"{current}/{name}", files.read(f"{parent}/{name}").strip())
        files.write(f"{current}/cgroup.clone_children", "1")

    def apply(self, settings: list[Setting], devices: list[DeviceRule] | None) -> None:
        for setting in settings:
            directory = self._directories.get(setting.controller)
            if directory is None:
                if setting.optional:
                    continue
                raise OSError(2, f"this kernel has no {setting.controller} controller", setting.file)
            if setting.optional and not os.path.exists(f"{directory}/{setting.file}"):
                continue
            files.write(f"{directory}/{setting.file}", setting.value)
        if devices is not None and "devices" in self._directories:
            for allow, rules in groupby(devices, key=lambda rule: rule.allow):
                files.write_each(self._directories["devices"] + ("/devices.allow" if allow else "/devices.deny"), map(_device_line, rules))

    def enter(self) -> None:
        # "0" into `tasks` moves only the caller and takes no global lock; a pid into `cgroup.procs` waits 5 to 10 ms
        # for an RCU grace period (kernel/cgroup: cgroup_procs_write_start).
        for directory in self._directories.values():
            files.write(f"{directory}/tasks", "0")

    def descriptor(self, beside: int = 0) -> int:
        return -1

    def pids(self) -> list[int]:
        for controller in ("pids", "freezer", "memory", "cpu", "devices"):
            if controller in self._directories:
                return files.pids_below(self._directories[controller])
        return []

    def freeze(self, frozen: bool) -> None:
        want = "FROZEN" if frozen else "THAWED"
        state = self._directories["freezer"] + "/freezer.state"
        for attempt in range(files.RETRIES):
            files.write(state, want)
            if files.read(state).strip() == want:
                return
            if attempt:
                time.sleep(files.PAUSE)
        files.write(state, "THAWED")
        raise OSError(16, f"the group does not become {want}", state)

    def kill(self) -> None:
        files.kill_until_empty(self)

    def remove(self) -> None:
        for directory in self._directories.values():
            files.remove_directory(directory)

    def read(self, controller: str, file: str) -> str:
        directory = self._directories.get(controller)
        return files.read(f"{directory}/{file}") if directory else ""

    def oom_kills(self) -> int:
        for line in self.read("memory", "memory.oom_control").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0
