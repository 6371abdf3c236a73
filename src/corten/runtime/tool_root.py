"""An exec with a root of its own: another image's files at `/`, the container's whole root at `/target`.

The process joins every namespace of the container but has a mount namespace of its own, a copy of the container's: nothing
that it mounts or writes outside `/target` is seen by anybody, and all of it is gone when its last process ends.
Sources: pivot_root(2), move_mount(2), open_tree(2).
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from corten.linux import mounts
from corten.linux import syscalls as sys
from corten.runtime.operations import MountRoot, Operation, PivotRoot, Sandbox
from corten.spec.runtime import Mount

TARGET = "target"
_FOLDERS = ("proc", "sys", "dev")
_FILES = ("etc/resolv.conf", "etc/hosts", "etc/hostname")
_HOLD = "/proc"  # every container has it; in the copy it is only a place to mount on


@dataclass(frozen=True)
class LayTools(Operation):
    """Mount the layers (topmost first) in `scratch`, join the namespaces, and make the tools the root with the container's below.

    `scratch` is any folder of the host: what is mounted there only this process sees.
    """

    layers: tuple[str, ...]
    scratch: str
    namespaces: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"{len(self.layers)} layers"

    def perform(self, sandbox: Sandbox) -> None:
        opened = [(os.open(path, os.O_RDONLY | os.O_CLOEXEC), flag) for path, flag in self.namespaces]
        tools = self._mount_tools(sandbox)
        for fd, flag in opened:
            sys.setns(fd, flag)
            os.close(fd)
        sys.unshare(sys.CLONE_NEWNS)
        sys.mount(None, "/", None, sys.MS_REC | sys.MS_PRIVATE)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        target = mounts.clone_tree(root)
        os.close(root)
        mounts.attach_tree(tools, _HOLD)
        os.close(tools)
        sandbox.root_fd = os.open(_HOLD, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._attach(sandbox.root_fd, target, TARGET, directory=True)
        for name in (*_FOLDERS, *_FILES):
            with suppress(FileNotFoundError, NotADirectoryError):  # the container has none
                self._share(sandbox.root_fd, target, name)
        os.close(target)
        PivotRoot().perform(sandbox)

    def _mount_tools(self, sandbox: Sandbox) -> int:
        """A detached tree of the layers under a throw-away writable folder."""
        sys.unshare(sys.CLONE_NEWNS)
        sys.mount(None, "/", None, sys.MS_REC | sys.MS_PRIVATE)
        sys.mount("tmpfs", self.scratch, "tmpfs", sys.MS_NODEV, "mode=755")
        for name in ("upper", "work", "root"):
            os.mkdir(f"{self.scratch}/{name}", 0o755)
        options = [f"lowerdir={':'.join(self.layers)}", f"upperdir={self.scratch}/upper", f"workdir={self.scratch}/work"]
        MountRoot(f"{self.scratch}/root", (Mount("", "overlay", "overlay", options),)).perform(sandbox)
        tree = mounts.clone_tree(sandbox.root_fd)
        os.close(sandbox.root_fd)
        return tree

    def _share(self, root: int, target: int, name: str) -> None:
        source = mounts.open_in_root(target, name)
        try:
            tree = mounts.clone_tree(source)
        finally:
            os.close(source)
        try:
            self._attach(root, tree, name, directory=name in _FOLDERS)
        finally:
            os.close(tree)

    @staticmethod
    def _attach(root: int, tree: int, name: str, *, directory: bool) -> None:
        place = mounts.make_in_root(root, name, directory=directory)
        try:
            sys.move_mount(tree, "", place, "", sys.MOVE_MOUNT_F_EMPTY_PATH | sys.MOVE_MOUNT_T_EMPTY_PATH)
        finally:
            os.close(place)
