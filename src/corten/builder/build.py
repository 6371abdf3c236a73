"""One build from its plan to its image: solve, export, tell. What a Dockerfile means is convert.py's, what a client sends the fronts'."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corten.builder.cache_transfer.documents import INLINE, inline_annotation
from corten.builder.export import Exporter, config_document
from corten.builder.graph import Vertex, layers_of
from corten.builder.limits import Policy
from corten.builder.outputs.documents import Predicate
from corten.builder.plan import BuildPlan
from corten.builder.progress import Emit
from corten.builder.prune import Pruned, Pruning
from corten.builder.results import MadeLayer
from corten.builder.solve import SolveOptions, Solver
from corten.spec.digest import digest_of
from corten.spec.reference import Reference
from corten.spec.timestamps import now_ns


@dataclass(frozen=True)
class Built:
    """`created` (nanoseconds) is what the image says of its age. `config` is its config document, `chain` its layers' diff ids, `made`
    what every step put on it. `solved`: when (nanoseconds) the last step had ended, and storing began.
    """

    image_id: str
    created: int
    chain: tuple[str, ...]
    config: bytes
    made: Mapping[Vertex, MadeLayer]
    solved: int


def inline_of(target: Vertex, made: Mapping[Vertex, MadeLayer]) -> str:
    """The annotation of an image that carries its own cache."""
    return inline_annotation((made[step].key, made[step].diff_id) for step in layers_of(target))


class Builder:
    def __init__(self, solver: Solver, exporter: Exporter, pruning: Pruning, policies: Sequence[Policy]) -> None:
        self.solver, self._exporter, self._pruning, self._policies = solver, exporter, pruning, policies
        self._tidying: asyncio.Task[Pruned] | None = None

    async def build(self, plan: BuildPlan, options: SolveOptions, names: list[str], emit: Emit, *, store: bool = True,
                    inline: bool = False) -> Built:  # fmt: skip
        """Solve the plan and, with `store`, keep the image under its names (in full). `inline`: it carries its own cache.

        Raises what the first failing step did; no image is made then.
        """
        with self.solver.running():
            result, made = await self.solver.solve(plan.target, options, emit)
            solved = now_ns()
            created = result.time if options.newest is None else options.newest
            annotations = {INLINE: inline_of(plan.target, made)} if inline else None
            config = config_document(plan, result, made, created)
            image_id = self._exporter.store(plan, result, made, config, names, annotations) if store else digest_of(config)
        self._tidy()
        return Built(image_id, created, result.chain, config, made, solved)

    def name_together(self, made: Mapping[str, Sequence[Predicate]], names: Sequence[Reference]) -> None:
        """Have the names mean the images (id -> what is attested of it) of several platforms, or one and its attestations."""
        self._exporter.name_together(made, names)

    def _tidy(self) -> None:
        """Let go of what the settings do not let stay, while nobody waits for it."""
        if self._policies and (self._tidying is None or self._tidying.done()):
            self._tidying = asyncio.create_task(self._pruning.collect(self._policies))
