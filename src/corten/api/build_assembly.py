"""The builder's part of the composition root: everything that builds share, constructed in the order of what needs what."""

from __future__ import annotations

import os
from dataclasses import dataclass

from corten.api.build_cache_transfer import BuildCacheTransfer, CacheStore
from corten.api.build_joints import JoinedHost
from corten.api.build_outputs import BuildResults
from corten.builder.attest.attestor import Attestor
from corten.builder.build import Builder
from corten.builder.cache import Cache
from corten.builder.cache_mounts import CacheMounts
from corten.builder.cache_transfer.export import CacheExport
from corten.builder.cache_transfer.imports import Importer
from corten.builder.exec_step import ExecSteps
from corten.builder.export import Exporter
from corten.builder.limits import BuilderSettings, Policy
from corten.builder.outputs.delivery import Delivery
from corten.builder.outputs.parcels import Parcels
from corten.builder.prune import Pruning
from corten.builder.solve import Solver
from corten.builder.workshop import Workshop
from corten.engine.build_steps import BuildSteps
from corten.registry.hosts import RegistryHosts
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
    results: BuildResults
    caches: BuildCacheTransfer
    parcels: Parcels


def assemble(parts: Parts, host: BuildSteps, hosts: RegistryHosts, settings: BuilderSettings) -> Building:
    workshop = Workshop(parts.layout, parts.snapshots, parts.maker, parts.launch.run_job)
    cache = Cache(parts.database, parts.layers)
    parts.holds.join(cache.holds)
    cache_mounts = CacheMounts(parts.layout, cache)
    steps = ExecSteps(workshop, parts.launch, JoinedHost(host), cache_mounts)
    solver = Solver(workshop, parts.images, cache, steps, lambda patterns: Ignore(patterns).ignores, parts.holds, settings,
                    at_once=max(2, os.cpu_count() or 1))  # fmt: skip
    pruning = Pruning(cache, cache_mounts, parts.images, parts.sweeping, solver.busy_since)
    layout, blobs, layers, run_job = parts.layout, parts.blobs, parts.layers, parts.launch.run_job
    parcels = Parcels(run_job)
    parts.holds.join(parcels.holds)
    results = BuildResults(Delivery(layout, blobs, layers), Attestor(layout, layers, parts.images, run_job), parcels, hosts, parts.holds)
    export = CacheExport(layout, blobs, layers, cache, cache_mounts, run_job)
    importer = Importer(layout, blobs, layers, cache, cache_mounts, run_job)
    caches = BuildCacheTransfer(export, importer, parcels, hosts, CacheStore(layout, parts.images, layers, blobs, cache, parts.holds))
    policies = (Policy(_default_keep(parts.layout.root)),) if settings.policies is None else settings.policies
    return Building(Builder(solver, Exporter(blobs, layers, parts.images), pruning, policies), steps, cache_mounts, pruning, results, caches, parcels)


def _default_keep(folder: str) -> int:
    """A tenth of the disk, in bytes."""
    found = os.statvfs(folder)
    return found.f_blocks * found.f_frsize // 10
