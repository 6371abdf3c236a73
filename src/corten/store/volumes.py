"""The folders of local volumes: making, measuring, moving and removing them. Which volumes there are is the database's to say.

Promises: a folder appears whole or not at all; what a row does not name and holds nothing is removed by `sweep`, what holds
something never is.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection
from contextlib import suppress

from corten.errors import CortenError
from corten.linux.mounts import is_mount_root
from corten.store import size_limit
from corten.store.layout import Layout
from corten.store.sizes import tree_size

_BLOCK = 512  # of st_blocks, whatever the file system's (inode(7))


class VolumeFolders:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def folder(self, name: str) -> str:
        """What holds the content's folder."""
        return self._layout.volume(name)

    def create(self, name: str, size: int = 0) -> None:
        """Make an empty volume, of at most `size` bytes if that is not 0. Idempotent: what is there stays. Raises as size_limit.create."""
        staging = f"{self._layout.temporary}/volume-{name}"
        with suppress(FileExistsError):
            os.mkdir(staging, 0o701)
        with suppress(FileExistsError):
            os.mkdir(f"{staging}/_data", 0o755)
            os.chmod(f"{staging}/_data", 0o755)  # whatever the umask
        if size:
            try:
                size_limit.create(f"{staging}/_data", f"{staging}/disk", size)
            except CortenError:
                shutil.rmtree(staging)
                raise
        try:
            os.rename(staging, self._layout.volume(name))
        except OSError:
            shutil.rmtree(staging)
            if not os.path.isdir(self._layout.volume_data(name)):
                raise

    def stage(self, path: str) -> None:
        """Make an empty volume's folders somewhere else, to be filled and then taken in."""
        os.mkdir(path, 0o701)
        os.mkdir(f"{path}/_data", 0o755)
        os.chmod(f"{path}/_data", 0o755)

    def take_in(self, path: str, name: str) -> None:
        """A staged folder becomes the volume's. Raises OSError if there is one that is not empty."""
        os.rename(path, self._layout.volume(name))

    def rename(self, name: str, new: str) -> None:
        """Idempotent. What is mounted in it or from it stays so."""
        with suppress(FileNotFoundError):  # done already
            os.rename(self._layout.volume(name), self._layout.volume(new))

    def attach(self, name: str) -> None:
        """Before a volume with a size limit is used. Idempotent. Raises OSError."""
        size_limit.attach(self._layout.volume_data(name), f"{self._layout.volume(name)}/disk")

    def release(self, name: str) -> None:
        """Before a volume with a size limit is removed. Idempotent. Raises OSError."""
        size_limit.detach(self._layout.volume_data(name), f"{self._layout.volume(name)}/disk", for_good=True)

    def set_aside(self, name: str) -> str:
        """Take the volume away at once, whatever it takes to delete; where it is now, or nothing if there was none or nothing in it.

        The caller has unmounted what was mounted on it; EBUSY otherwise: what is another's must not be deleted.
        """
        if is_mount_root(self._layout.volume_data(name)):
            raise OSError(errno.EBUSY, "still mounted", self._layout.volume_data(name))
        doomed = f"{self._layout.temporary}/removed-volume-{name}"
        try:
            os.rename(self._layout.volume(name), doomed)
        except FileNotFoundError:
            return ""
        with suppress(OSError):  # there is something in it
            os.rmdir(f"{doomed}/_data")
            os.rmdir(doomed)
            return ""
        return doomed

    def size(self, name: str) -> int:
        """Bytes of its files; of a limited volume, which need not be mounted now, what its file system takes of the disk."""
        with suppress(FileNotFoundError):
            return os.stat(f"{self._layout.volume(name)}/disk").st_blocks * _BLOCK
        return tree_size(self._layout.volume_data(name))

    def sweep(self, known: Collection[str]) -> list[str]:
        """Start-up: remove empty folders that no row names (a crash between folder and row). Returns those that hold something."""
        left = []
        for name in os.listdir(self._layout.volumes):
            if name in known:
                continue
            if is_mount_root(self._layout.volume_data(name)):
                left.append(name)
                continue
            try:
                os.rmdir(self._layout.volume_data(name))
                os.rmdir(self._layout.volume(name))
            except FileNotFoundError:
                continue
            except OSError:
                left.append(name)
        return left
