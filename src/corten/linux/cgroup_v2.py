"""Version 2: one hierarchy; controllers are handed down from group to group.

Source: Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import os
import time

from corten.linux import bpf_devices
from corten.linux import cgroup_files as files
from corten.linux.cgroup import Layout, Setting
from corten.spec.runtime import DeviceRule


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
        enabled = set(files.read(f"{folder}/cgroup.subtree_control").split())
        missing = [f"+{name}" for name in files.read(f"{folder}/cgroup.controllers").split() if name not in enabled]
        if not missing:
            return
        try:
            files.write(f"{folder}/cgroup.subtree_control", " ".join(missing))
        except OSError:  # the kernel takes all of a write or nothing
            for name in missing:
                with contextlib.suppress(OSError):
                    files.write(f"{folder}/cgroup.subtree_control", name)

    def apply(self, settings: list[Setting], devices: list[DeviceRule] | None) -> None:
        for setting in settings:
            path = f"{self._directory}/{setting.file}"
            if not os.path.exists(path):
                if setting.optional:
                    continue
                raise OSError(2, self._why_missing(setting.controller), path)
            files.write(path, setting.value)
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
            if controller not in files.read(f"{current}/cgroup.controllers").split():
                parent = os.path.dirname(current)
                return f"the {controller} controller is not enabled in {parent}/cgroup.subtree_control" if part else f"this kernel has no {controller} controller"
        return "this kernel does not have it"

    def enter(self) -> None:
        files.write(f"{self._directory}/cgroup.procs", "0")

    def descriptor(self, beside: int = 0) -> int:
        directory = self._directory
        if beside and files.read(f"{directory}/cgroup.subtree_control").strip():
            path = files.read(f"/proc/{beside}/cgroup").strip().rpartition("0::")[2]
            if path.startswith(f"{self.path}/"):
                directory = self._mount + path
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def pids(self) -> list[int]:
        return files.pids_below(self._directory)

    def freeze(self, frozen: bool) -> None:
        files.write(f"{self._directory}/cgroup.freeze", "1" if frozen else "0")
        for _ in range(files.RETRIES):
            if f"frozen {int(frozen)}" in self.read("", "cgroup.events"):
                return
            time.sleep(files.PAUSE)
        raise OSError(16, "the group does not settle", f"{self._directory}/cgroup.freeze")

    def kill(self) -> None:
        if os.path.exists(f"{self._directory}/cgroup.kill"):
            files.write(f"{self._directory}/cgroup.kill", "1")
        files.kill_until_empty(self)

    def remove(self) -> None:
        files.remove_directory(self._directory)

    def read(self, controller: str, file: str) -> str:
        return files.read(f"{self._directory}/{file}")

    def oom_kills(self) -> int:
        for line in self.read("memory", "memory.events").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0
