"""The builder's part of the composition root: everything that builds share, constructed in the order of what needs what.

Loaded by the first build (building.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from corten.api.build import BuildHandlers
from corten.api.build_cache_transfer import BuildCacheTransfer, CacheStore
from corten.api.build_calls import BuildCallHandlers
from corten.api.build_folders import BuildFolders
from corten.api.build_joints import JoinedHost
from corten.api.build_outputs import BuildResults
from corten.api.building import Parts
from corten.builder.attest.attestor import Attestor
from corten.builder.build import Builder
from corten.builder.cache import SOURCE, Cache
from corten.builder.cache_mounts import CacheMounts
from corten.builder.cache_transfer.export import CacheExport
from corten.builder.cache_transfer.imports import Importer
from corten.builder.exec_step import ExecSteps
from corten.builder.export import Exporter
from corten.builder.kept_contexts import KeptContexts
from corten.builder.limits import Policy, Space
from corten.builder.outputs.delivery import Delivery
from corten.builder.outputs.parcels import Parcels
from corten.builder.prune import Pruning
from corten.builder.solve import Solver
from corten.builder.url_files import UrlFiles
from corten.builder.workshop import Workshop
from corten.registry.refetch import Refetching
from corten.spec.ignore_file import Ignore

_WEEK = 7 * 24 * 3600 * 1_000_000_000


@dataclass(frozen=True)
class Workplace:
    """`busy_since`: since when (nanoseconds) the oldest running build has been, if one is."""

    builds: BuildHandlers
    calls: BuildCallHandlers
    folders: BuildFolders
    steps: ExecSteps
    parcels: Parcels
    busy_since: Callable[[], int | None]


def assemble(parts: Parts, cache: Cache, cache_mounts: CacheMounts, contexts: KeptContexts, pruning: Pruning) -> Workplace:
    layout, blobs, layers, hosts, run_job = parts.layout, parts.blobs, parts.layers, parts.hosts, parts.launch.run_job
    workshop = Workshop(layout, parts.snapshots, parts.maker, run_job)
    steps = ExecSteps(workshop, parts.launch, JoinedHost(parts.steps), cache_mounts)
    solver = Solver(workshop, parts.images, cache, steps, lambda patterns: Ignore(patterns).ignores, parts.holds, parts.settings,
                    UrlFiles(layout, cache, cache_mounts), at_once=max(2, os.cpu_count() or 1))  # fmt: skip
    parcels, bring_back = Parcels(run_job), Refetching(hosts, blobs, layers).bring_back
    parts.holds.join(parcels.holds)
    results = BuildResults(Delivery(layout, blobs, layers, bring_back), Attestor(layout, layers, parts.images, run_job), parcels, hosts, parts.holds)
    export = CacheExport(layout, blobs, layers, cache, cache_mounts, run_job, bring_back)
    importer = Importer(layout, blobs, layers, cache, cache_mounts, run_job)
    caches = BuildCacheTransfer(export, importer, parcels, hosts, CacheStore(layout, parts.images, layers, blobs, cache, parts.holds))
    policies = _default_policies(layout.root) if parts.settings.policies is None else parts.settings.policies
    builder = Builder(solver, Exporter(blobs, layers, parts.images), pruning, policies)
    folders = BuildFolders(contexts)
    builds = BuildHandlers(builder, parts.sources, results, caches, folders, layout, run_job)
    return Workplace(builds, BuildCallHandlers(parts.sources, layout, run_job), folders, steps, parcels, solver.busy_since)


def _default_policies(folder: str) -> tuple[Policy, ...]:
    """A tenth of the disk, and of contexts those that were used within a week."""
    found = os.statvfs(folder)
    return Policy(unused_for=_WEEK, types=(SOURCE,)), Policy(Space(most=found.f_blocks * found.f_frsize // 10))
