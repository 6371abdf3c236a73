"""One build from its plan to its image: solve, export, tell. What a Dockerfile means is convert.py's, what a client sends the fronts'."""

from __future__ import annotations

from dataclasses import dataclass

from corten.builder.export import Exporter, config_document
from corten.builder.plan import BuildPlan
from corten.builder.progress import Emit
from corten.builder.solve import SolveOptions, Solver
from corten.spec.digest import digest_of


@dataclass(frozen=True)
class Built:
    """`created` (nanoseconds) is what the image says of its age. `config` is its config document, `chain` its layers' diff ids."""

    image_id: str
    created: int
    chain: tuple[str, ...]
    config: bytes


class Builder:
    def __init__(self, solver: Solver, exporter: Exporter) -> None:
        self.solver, self._exporter = solver, exporter

    async def build(self, plan: BuildPlan, options: SolveOptions, names: list[str], emit: Emit, *, store: bool = True) -> Built:
        """Solve the plan and, with `store`, keep the image under its names (in full). Raises what the first failing step did; no image is made then."""
        with self.solver.running():
            result, made = await self.solver.solve(plan.target, options, emit)
            created = result.time if options.newest is None else options.newest
            config = config_document(plan, result, made, created)
        image_id = self._exporter.store(plan, result, made, config, names) if store else digest_of(config)
        return Built(image_id, created, result.chain, config)

