"""The builder as the engine has it from the start: its cache, whose rows hold layers and are pruned, and the rest once somebody builds.

The rest (the language, the solver, outputs, attestations: 3 MiB) is loaded by the first request that needs it, and constructed by
build_assembly.py. Until then no step runs, so that nothing can be told to one.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from corten.api.call import Call
from corten.api.route import Handler
from corten.builder.cache import DOWNLOAD, MOUNT, SOURCE, Cache
from corten.builder.cache_mounts import CacheMounts
from corten.builder.kept_contexts import KeptContexts
from corten.builder.limits import BuilderSettings
from corten.builder.prune import Pruning
from corten.engine.build_images import BuildImages
from corten.engine.build_steps import BuildSteps
from corten.registry.hosts import RegistryHosts
from corten.runtime import messages
from corten.runtime.launch import Launch
from corten.store.blobs import Blobs
from corten.store.database import Database
from corten.store.holds import Holds
from corten.store.images import Images
from corten.store.layer_maker import LayerMaker
from corten.store.layers import Layers
from corten.store.layout import Layout
from corten.store.snapshots import Snapshots
from corten.store.sweeping import Sweeping

if TYPE_CHECKING:
    from corten.api.build_assembly import Workplace

_REST = "corten.api.build_assembly"


@dataclass(frozen=True)
class Parts:
    """What of the store, the runtime and the engine the builder works with."""

    layout: Layout
    database: Database
    blobs: Blobs
    layers: Layers
    images: Images
    snapshots: Snapshots
    maker: LayerMaker
    holds: Holds
    sweeping: Sweeping
    launch: Launch
    steps: BuildSteps
    sources: BuildImages
    hosts: RegistryHosts
    settings: BuilderSettings


class Building:
    """Construct before anything asks `holds` what is in use: the cache's rows hold layers, whether somebody builds or not."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._cache = Cache(parts.database, parts.layers)
        parts.holds.join(self._cache.holds)
        self.cache_mounts = CacheMounts(parts.layout, self._cache)
        self.contexts = KeptContexts(parts.layout, self._cache, parts.launch.run_job)
        self.pruning = Pruning(
            parts.layout.root, self._cache, {MOUNT: self.cache_mounts, DOWNLOAD: self.cache_mounts, SOURCE: self.contexts}, parts.images, parts.sweeping, self._busy_since,
        )  # fmt: skip
        self._workplace: Workplace | None = None

    async def workplace(self) -> Workplace:
        """All of the builder; loaded the first time, beside whatever else the engine does."""
        if self._workplace is None:
            rest = await asyncio.to_thread(importlib.import_module, _REST)
            if self._workplace is None:  # two builds may have asked at once
                self._workplace = rest.assemble(self._parts, self._cache, self.cache_mounts, self.contexts, self.pruning)
        return self._workplace

    def at(self, pick: Callable[[Workplace], Handler]) -> Handler:
        """An endpoint of the builder, as a row of the table of routes."""

        async def handle(call: Call) -> web.StreamResponse:
            return await pick(await self.workplace())(call)

        return handle

    def _busy_since(self) -> int | None:
        return self._workplace.busy_since() if self._workplace else None

    def step_ended(self, notice: messages.Exited) -> bool:
        """Whether it was a step of a build that ended."""
        return self._workplace is not None and self._workplace.steps.on_exit(notice)

    def steps_lost(self, container_ids: Sequence[str]) -> None:
        """Their monitor has died; some of them may be steps."""
        if self._workplace:
            self._workplace.steps.on_lost(container_ids)

    async def close(self) -> None:
        """Throw away what was built and never fetched, and have what is kept of contexts on disk."""
        if self._workplace:
            self._workplace.parcels.close()
        await self.contexts.settle()
