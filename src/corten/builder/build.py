"""One build from its plan to its image: solve, export, tell. What a Dockerfile means is convert.py's, what a client sends the fronts'."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from corten.builder.export import Exporter
from corten.builder.limits import Policy
from corten.builder.plan import BuildPlan
from corten.builder.progress import Emit
from corten.builder.prune import Pruned, Pruning
from corten.builder.solve import SolveOptions, Solver


@dataclass(frozen=True)
class Built:
    """`created` (nanoseconds) is what the image says of its age."""

    image_id: str
    created: int
    chain: tuple[str, ...]


class Builder:
    def __init__(self, solver: Solver, exporter: Exporter, pruning: Pruning, policies: Sequence[Policy]) -> None:
        self.solver, self._exporter, self._pruning, self._policies = solver, exporter, pruning, policies
        self._tidying: asyncio.Task[Pruned] | None = None

    async def build(self, plan: BuildPlan, options: SolveOptions, names: list[str], emit: Emit) -> Built:
        """Solve the plan and store the image under its names (in full). Raises what the first failing step did; no image is made then."""
        with self.solver.running():
            result, made = await self.solver.solve(plan.target, options, emit)
            created = result.time if options.newest is None else options.newest
            image_id = self._exporter.store(plan, result, made, created, names)
        self._tidy()
        return Built(image_id, created, result.chain)

    def _tidy(self) -> None:
        """Let go of what the settings do not let stay, while nobody waits for it."""
        if self._policies and (self._tidying is None or self._tidying.done()):
            self._tidying = asyncio.create_task(self._pruning.collect(self._policies))
