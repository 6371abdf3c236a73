"""One copy of every layer: a layer's blob goes once the layer is unpacked and the blob's very bytes can be had again (LayerTars.can_be_had).

That is: a plain tar, which folder and record give; what our own packer made; what a registry has. Any other packed blob stays, as nobody could
make it again. It goes after the work that brought it has ended, and after the disk has the folder: a power cut leaves one of the two. With
`keep` (daemon.json: corten.keep-blobs) nothing goes, and the tars of what was made here are written too, so that the store is a whole OCI layout.
Must not remove what nobody needs: sweeping.py does.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import suppress

from corten.errors import ArchiveRefused, StoreCorrupt
from corten.linux import syscalls
from corten.store.blobs import Blobs
from corten.store.holds import Holds
from corten.store.images import Images
from corten.store.layers import Layers
from corten.store.layout import Layout

_PAUSE = 1.0  # seconds after the work: a start that follows a pull has the disk to itself
_log = logging.getLogger("corten.store")


class Thinning:
    def __init__(self, layout: Layout, blobs: Blobs, layers: Layers, images: Images, holds: Holds, *, keep: bool) -> None:
        self._layout, self._blobs, self._layers, self._images, self._holds, self._keep = layout, blobs, layers, images, holds, keep
        self._waiting: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._impossible: set[str] = set()
        holds.when_free(self.soon)

    def soon(self) -> None:
        """Look in a moment. Idempotent."""
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().call_later(_PAUSE, self._begin)

    def _begin(self) -> None:
        self._waiting = None
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._complete() if self._keep else self._thin())

    async def stop(self) -> None:
        if self._waiting:
            self._waiting.cancel()
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _thin(self) -> None:
        """While somebody works on content nothing goes: the end of that work asks again."""
        found = set() if self._holds.leased else set(self._unneeded())
        if not found:
            return
        try:
            await asyncio.to_thread(_sync, self._layout.root)
        except OSError as error:
            _log.warning("no blob is let go: the disk does not take what is written: %s", error.strerror)
            return
        if not self._holds.leased:
            for digest in found & set(self._unneeded()):
                self._blobs.remove(digest)
            self._images.write_index()

    async def _complete(self) -> None:
        """Write the tars that images name and that nobody has written."""
        missing = {diff_id for blob, diff_id in self._pairs() if blob == diff_id and not self._blobs.has(blob)} - self._impossible
        if missing and not self._holds.leased:
            with self._holds.lease():
                for diff_id in missing:
                    await self._write(diff_id)
                self._images.write_index()

    async def _write(self, diff_id: str) -> None:
        part = f"{self._layout.temporary}/tar-{diff_id.partition(':')[2]}"
        try:
            await self._layers.tars.write(diff_id, part)
            self._blobs.adopt(part, diff_id)
            os.unlink(part)
        except (StoreCorrupt, OSError) as error:
            self._impossible.add(diff_id)
            _log.warning("a layer's tar cannot be kept: %s", error)

    def _unneeded(self) -> Iterator[str]:
        small = {digest for row in self._images.rows() for digest in (row.id, row.manifest)}
        for blob, diff_id in self._pairs():
            if blob not in small and self._blobs.has(blob) and self._layers.tars.can_be_had(blob, diff_id):
                yield blob

    def _pairs(self) -> list[tuple[str, str]]:
        """(blob, diff id) of all layers that are here, and of all that images name."""
        pairs = [(row.blob, row.diff_id) for row in self._layers.all()]
        for image in self._images.all():
            with suppress(StoreCorrupt, ArchiveRefused):  # what a broken one names is not known
                blobs = [layer.digest for layer in self._images.manifest(image).layers]
                pairs += zip(blobs, image.config.rootfs.diff_ids, strict=False)
        return pairs


def _sync(root: str) -> None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)
