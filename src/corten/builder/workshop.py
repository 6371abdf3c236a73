"""Where steps are carried out: a snapshot for each, which becomes its layer or goes away whole, and the trees that they look at."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from corten.builder.results import MadeLayer, Result
from corten.builder.trees import ChainTree, Tree
from corten.spec.runtime import Mount
from corten.store.layer_maker import EMPTY_LAYER, LayerMaker
from corten.store.layout import Layout
from corten.store.snapshots import Snapshots
from corten.store.workers import RunJob

_OVERLAY = ["redirect_dir=off", "metacopy=off"]  # a layer holds all that it changes, whatever the host's defaults


class Workshop:
    def __init__(self, layout: Layout, snapshots: Snapshots, maker: LayerMaker, run_job: RunJob) -> None:
        self.layout, self.run_job = layout, run_job
        self._snapshots, self._maker = snapshots, maker

    def tree(self, result: Result) -> Tree:
        """What a step sees of an input; looking into it is for threads."""
        return result.folder.tree if result.folder else ChainTree(self.folders(result.chain))

    def folders(self, chain: Sequence[str]) -> list[str]:
        """The layers' folders, topmost first. Raises StoreCorrupt."""
        return self._snapshots.lower(chain)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[str]:
        """A step's id, with folders of its own for as long as the block lasts."""
        step = secrets.token_hex(32)
        self._snapshots.create(step)
        try:
            yield step
        finally:
            await asyncio.shield(asyncio.to_thread(self._remove, step))

    def _remove(self, step: str) -> None:
        self._snapshots.remove(step)
        shutil.rmtree(self.layout.run(step), ignore_errors=True)

    def home(self, step: str) -> str:
        return self.layout.container(step)

    def upper(self, step: str) -> str:
        return self._snapshots.upper(step)

    def root(self, step: str) -> str:
        return self._snapshots.root(step)

    def mounts(self, step: str, below: Sequence[str]) -> list[Mount]:
        """The step's root over folders, topmost first; none of them: the writable layer alone."""
        if not below:
            return []
        base = self.home(step)
        return [Mount("", "overlay", "overlay", [f"lowerdir={':'.join(below)}", f"upperdir={base}/upper", f"workdir={base}/work", *_OVERLAY])]

    async def seal(self, step: str, below: Sequence[str], time: int) -> MadeLayer:
        """The snapshot's writable layer becomes a layer of the store."""
        began = os.stat(self.root(step)).st_mtime_ns  # what is mounted there is another mount namespace's: it is as old as the step
        sealed = await self._maker.seal(self.upper(step), below, time, began)
        empty = sealed.diff_id == EMPTY_LAYER
        return MadeLayer() if empty else MadeLayer(sealed.diff_id, sealed.length, sealed.size)

    def scratch(self, step: str, name: str) -> str:
        """A folder beside the snapshot that goes with it."""
        path = f"{self.home(step)}/{name}"
        os.makedirs(path, mode=0o755, exist_ok=True)
        return path
