"""The builder's part of the composition root: everything that builds share, constructed in the order of what needs what."""

from __future__ import annotations

import os
from dataclasses import dataclass

from corten.api.build_joints import JoinedHost
from corten.builder.build import Builder
from corten.builder.cache import Cache
from corten.builder.cache_mounts import CacheMounts
from corten.builder.exec_step import ExecSteps
from corten.builder.export import Exporter
from corten.builder.limits import BuilderSettings, Policy
from corten.builder.prune import Pruning
from corten.builder.solve import Solver
from corten.builder.workshop import Workshop
from corten.engine.build_steps import BuildSteps
from corten.runtime.launch import Launch
from corten.spec.ignore_file import Ignore
from corten.store.blobs import Blobs
from corten.store.database import Database
from corten.store.holds import Holds
from corten.store.images import Images
from corten.store.layer_maker import LayerMaker
from corten.store.layers import Layers
from corten.store.layout import Layout
from corten.store.snapshots import Snapshots
from corten.store.sweeping import Sweeping


@dataclass(frozen=True)
class Parts:
    """What of the store and the runtime the builder works with."""

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


@dataclass(frozen=True)
class Building:
    builder: Builder
    steps: ExecSteps
    cache_mounts: CacheMounts
    pruning: Pruning


def assemble(parts: Parts, host: BuildSteps, settings: BuilderSettings) -> Building:
    workshop = Workshop(parts.layout, parts.snapshots, parts.maker, parts.launch.run_job)
    cache = Cache(parts.database, parts.layers)
    parts.holds.join(cache.holds)
    cache_mounts = CacheMounts(parts.layout, cache)
    steps = ExecSteps(workshop, parts.launch, JoinedHost(host), cache_mounts)
    solver = Solver(workshop, parts.images, cache, steps, lambda patterns: Ignore(patterns).ignores, parts.holds, settings,
                    at_once=max(2, os.cpu_count() or 1))  # fmt: skip
    pruning = Pruning(cache, cache_mounts, parts.images, parts.sweeping, solver.busy_since)
    policies = (Policy(_default_keep(parts.layout.root)),) if settings.policies is None else settings.policies
    return Building(Builder(solver, Exporter(parts.blobs, parts.layers, parts.images), pruning, policies), steps, cache_mounts, pruning)


def _default_keep(folder: str) -> int:
    """A tenth of the disk, in bytes."""
    found = os.statvfs(folder)
    return found.f_blocks * found.f_frsize // 10
