"""Snapshots: a container's writable layer over an image's layers. Returns mounts as data; the one thing it mounts is a layer's own disk."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress

from corten.errors import StoreCorrupt
from corten.spec.runtime import Mount
from corten.store import init_layer, size_limit
from corten.store.database import Database
from corten.store.disk_image import DiskUsage
from corten.store.layout import Layout
from corten.store.sizes import tree_size

_BLOCK = 512  # of st_blocks


class Snapshots:
    def __init__(self, layout: Layout, database: Database) -> None:
        self._layout, self._database = layout, database

    def create(self, container_id: str, size: int = 0) -> None:
        """Make the folders of a writable layer, of at most `size` bytes if that is not 0. Idempotent. Raises as size_limit.create."""
        base = self._layout.container(container_id)
        os.makedirs(f"{base}/rootfs", mode=0o755, exist_ok=True)
        inside = ""
        if size:
            os.makedirs(f"{base}/writable", mode=0o700, exist_ok=True)
            size_limit.create(f"{base}/writable", f"{base}/disk", size)
            self.attach(container_id)
            inside = "writable/"
            for name in ("upper", "work"):
                with suppress(FileExistsError):
                    os.symlink(f"writable/{name}", f"{base}/{name}")
        for name in ("upper", "work"):
            os.makedirs(f"{base}/{inside}{name}", mode=0o755, exist_ok=True)

    def attach(self, container_id: str) -> None:
        """Before a layer with a size limit is used. Idempotent. Raises OSError."""
        size_limit.attach(*self._limited(container_id))

    def detach(self, container_id: str, *, for_good: bool = False) -> None:
        """Undo that. Idempotent, also for layers without a limit. Raises OSError while it is in use (but when it is to be removed)."""
        size_limit.detach(*self._limited(container_id), for_good=for_good)

    def disk_usage(self, container_id: str) -> DiskUsage | None:
        """What of its limit the writable layer takes; None without a limit."""
        folder, disk = self._limited(container_id)
        return size_limit.usage(folder, disk) if os.path.isdir(folder) else None

    def _limited(self, container_id: str) -> tuple[str, str]:
        """Folder and disk image (size_limit.py) of a writable layer with a limit; others have neither."""
        base = self._layout.container(container_id)
        return f"{base}/writable", f"{base}/disk"

    def mounts(self, container_id: str, diff_ids: Sequence[str]) -> list[Mount]:
        """What to mount on the root folder, lowest layer last. Raises StoreCorrupt if a layer is missing."""
        base = self._layout.container(container_id)
        options = [f"lowerdir={':'.join(self.below(diff_ids))}", f"upperdir={base}/upper", f"workdir={base}/work"]
        return [Mount("", "overlay", "overlay", options)]

    def view(self, diff_ids: Sequence[str]) -> Mount:
        """The layers as they are, to be mounted read-only somewhere. Raises StoreCorrupt."""
        lower = self.lower(diff_ids)
        if not lower:
            return Mount("", "tmpfs", "tmpfs", ["ro", "size=0k"])
        if len(lower) == 1:  # overlayfs wants two folders, or one and an upper
            return Mount("", "bind", lower[0], ["bind", "ro"])
        return Mount("", "overlay", "overlay", ["ro", f"lowerdir={':'.join(lower)}"])

    def frozen(self, container_id: str, diff_ids: Sequence[str]) -> Mount:
        """A stopped container's root as it is, to be mounted read-only somewhere. Raises StoreCorrupt."""
        return Mount("", "overlay", "overlay", ["ro", f"lowerdir={':'.join([self.upper(container_id), *self.below(diff_ids)])}"])

    def lower(self, diff_ids: Sequence[str]) -> list[str]:
        """The layers' folders, topmost first. Raises StoreCorrupt if one is missing.

        A layer that an image has twice is there once, at its upper place: it hides all that it would bring further down, and overlayfs
        refuses a folder given twice (ELOOP).
        """
        return [self._layer_path(diff_id) for diff_id in dict.fromkeys(reversed(diff_ids))]

    def below(self, diff_ids: Sequence[str]) -> list[str]:
        """All that lies under a container's writable layer, topmost first: the init layer, then the image's layers."""
        lower = self.lower(diff_ids)
        path = f"{self._layout.inits}/{_chain(diff_ids)}"
        if not os.path.isdir(path):
            staging = f"{self._layout.temporary}/init-{secrets.token_hex(8)}"
            os.mkdir(staging, 0o755)
            init_layer.fill(staging, lower)
            os.rename(staging, path)
        return [path, *lower]

    def upper(self, container_id: str) -> str:
        """The folder of the writable layer."""
        return f"{self._layout.container(container_id)}/upper"

    def root(self, container_id: str) -> str:
        """Where the mounts belong, in the container's own mount namespace."""
        return f"{self._layout.container(container_id)}/rootfs"

    def _layer_path(self, diff_id: str) -> str:
        row = self._database.layer(diff_id)
        if row is None:
            raise StoreCorrupt(f"layer {diff_id} is missing from the store: pull or load its image again")
        return self._layout.layer(row.number)

    def size(self, container_id: str) -> int:
        """Bytes in the writable layer."""
        return tree_size(f"{self._layout.container(container_id)}/upper")

    def disk_size(self, container_id: str) -> int:
        """Bytes that its removal frees: as above; of one with a disk image, which need not be mounted now, what that takes."""
        with suppress(FileNotFoundError):
            return os.stat(self._limited(container_id)[1]).st_blocks * _BLOCK
        return self.size(container_id)

    def set_aside(self, container_id: str) -> str:
        """Move the container's folder, log included, to where start-up empties; deleting it is the caller's. Idempotent.

        Returns the new path. Raises OSError if something holds the folder (a mount on it): then it is as it was.
        """
        aside = os.path.join(self._layout.temporary, f"removed-{container_id}")
        with suppress(FileNotFoundError):  # an earlier engine has got that far
            os.rename(self._layout.container(container_id), aside)
        return aside

    def remove(self, container_id: str) -> None:
        """Remove the container's folder, log included. Idempotent."""
        self.detach(container_id, for_good=True)
        shutil.rmtree(self._layout.container(container_id), ignore_errors=True)

    def sweep(self, known: Mapping[str, Sequence[str]]) -> list[str]:
        """Remove the folders of containers that have no row (`known`: id -> diff ids): a crash between the folder and its row.

        Returns their ids. Init layers that no container stands on go too.
        """
        left = [name for name in os.listdir(self._layout.containers) if name not in known]
        for container_id in left:
            self.remove(container_id)
        for container_id in os.listdir(self._layout.runs):
            if container_id not in known:
                shutil.rmtree(self._layout.run(container_id), ignore_errors=True)
        for chain in set(os.listdir(self._layout.inits)) - {_chain(diff_ids) for diff_ids in known.values()}:
            shutil.rmtree(f"{self._layout.inits}/{chain}", ignore_errors=True)
        return left


def _chain(diff_ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(diff_ids).encode()).hexdigest()[:32]
