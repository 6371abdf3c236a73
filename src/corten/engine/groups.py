"""Where a container's control group is: its own parent or the engine's. What is written into it is others' to decide."""

from __future__ import annotations

import os
from contextlib import suppress

from corten.engine.records import ContainerRecord
from corten.linux.cgroup import Cgroup, Layout, host_layout
from corten.linux.cgroup_abilities import abilities
from corten.linux.cgroup_versions import open_cgroup, remove_if_empty


def group_path(parent: str, container_id: str) -> str:
    """A parent that a client names stays below the root, whatever it is."""
    return os.path.normpath(f"/{parent}/{container_id}").replace("//", "/")


class Groups:
    def __init__(self, parent: str) -> None:
        self.parent = parent
        self.layout: Layout = host_layout()
        self.abilities = abilities(self.layout)

    @property
    def unified(self) -> bool:
        return self.layout.unified

    def of(self, record: ContainerRecord) -> Cgroup:
        return open_cgroup(group_path(record.host_config.cgroup_parent or self.parent, record.id), self.layout)

    def has(self, record: ContainerRecord, pid: int) -> bool:
        """Whether a process is the container's."""
        try:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
                paths = [line.rstrip("\n").split(":", 2)[2] for line in file]
        except (FileNotFoundError, ProcessLookupError):
            return False
        wanted = group_path(record.host_config.cgroup_parent or self.parent, record.id)
        return any(path.endswith(wanted) or f"{wanted}/" in path for path in paths)

    def sweep(self, record: ContainerRecord) -> None:
        """Kill and remove what is left of a container that nobody watches any more."""
        group = self.of(record)
        with suppress(OSError):
            group.kill()
            group.remove()

    def remove_parent(self) -> None:
        """Take the parent away if nothing is in it."""
        remove_if_empty(self.parent, self.layout)
