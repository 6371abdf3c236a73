"""What `corten-runtime` remembers of a container between two of its commands: one folder each under --root.

<root>/<id>/state.json     everything below, written once by create
<root>/<id>/config.json    the bundle's config as it was then
<root>/<id>/start.sock     there until `start`: the child waits on it
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec

from corten.errors import Conflict, Invalid, NotFound
from corten.linux.cgroup import Cgroup
from corten.linux.cgroup_versions import open_cgroup
from corten.spec.runtime import OCI_VERSION, RuntimeConfig, parse_runtime_config

DEFAULT_ROOT = "/run/corten-runtime"
_NAME_MARKS = "_+-."


class NoSuchOciContainer(NotFound):
    template = "container {id!r} does not exist"


class OciState(msgspec.Struct, frozen=True):
    """`start_time` (clock ticks since boot) tells this process from a later one with the same pid."""

    id: str
    bundle: str
    pid: int
    start_time: int
    created: str
    cgroup: str
    annotations: dict[str, str]


def process_start_time(pid: int) -> int:
    """0 if the process has gone or is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


class OciStates:
    def __init__(self, root: str) -> None:
        self._root = root

    def folder(self, container_id: str) -> str:
        valid = container_id and all(letter.isalnum() or letter in _NAME_MARKS for letter in container_id)
        if not valid or container_id in (".", "..") or len(container_id) > 1024:
            raise Invalid(f"invalid container id format: {container_id!r}")
        return os.path.join(self._root, container_id)

    @contextmanager
    def start_socket(self, container_id: str) -> Iterator[str]:
        """Its address while in the block: by a descriptor of the folder, because sun_path holds 107 bytes (unix(7))."""
        folder = os.open(self.folder(container_id), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{folder}/start.sock"
        finally:
            os.close(folder)

    def reserve(self, container_id: str) -> str:
        """Make the folder. Raises Conflict if the id is taken."""
        folder = self.folder(container_id)
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            raise Conflict(f"container with id exists: {container_id}") from None
        return folder

    def save(self, state: OciState, config: bytes) -> None:
        folder = self.folder(state.id)
        for name, data in (("config.json", config), ("state.json", msgspec.json.encode(state))):
            with open(f"{folder}/{name}.new", "wb") as file:
                file.write(data)
            os.rename(f"{folder}/{name}.new", f"{folder}/{name}")

    def load(self, container_id: str) -> OciState:
        try:
            with open(f"{self.folder(container_id)}/state.json", "rb") as file:
                return msgspec.json.decode(file.read(), type=OciState)
        except FileNotFoundError:
            raise NoSuchOciContainer(id=container_id) from None

    def config(self, container_id: str) -> RuntimeConfig:
        with open(f"{self.folder(container_id)}/config.json", "rb") as file:
            return parse_runtime_config(file.read())

    def all(self) -> list[OciState]:
        found: list[OciState] = []
        with suppress(FileNotFoundError):
            for name in sorted(os.listdir(self._root)):
                with suppress(NoSuchOciContainer, Invalid):
                    found.append(self.load(name))
        return found

    def remove(self, container_id: str) -> None:
        shutil.rmtree(self.folder(container_id), ignore_errors=True)

    def status(self, state: OciState) -> str:
        """created, running, paused or stopped (runtime.md "State"); paused is what every runtime adds."""
        if process_start_time(state.pid) != state.start_time:
            return "stopped"
        if os.path.exists(f"{self.folder(state.id)}/start.sock"):
            return "created"
        group = group_of(state)
        frozen = group and (
            group.read("freezer", "freezer.state").strip() == "FROZEN" or "frozen 1" in group.read("", "cgroup.events")
        )
        return "paused" if frozen else "running"

    def document(self, state: OciState) -> dict[str, object]:
        """The state as the spec wants it printed."""
        status = self.status(state)
        return {
            "ociVersion": OCI_VERSION, "id": state.id, "status": status, "pid": 0 if status == "stopped" else state.pid,
            "bundle": state.bundle, "annotations": state.annotations, "created": state.created, "rootfs": f"{state.bundle}/rootfs",
            "owner": "",
        }  # fmt: skip


def group_of(state: OciState) -> Cgroup | None:
    return open_cgroup(state.cgroup) if state.cgroup else None


def wait_until_gone(state: OciState, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process_start_time(state.pid) != state.start_time:
            return True
        time.sleep(0.005)
    return False
