"""A build told in the words of Docker's classic builder: one step after the other in the Dockerfile's order, though they run side by side.

Source: Docker Engine 28.5 with version=1 (recorded). No container stands behind an instruction that only changes the config, and no image
behind a step: the id after `--->` is the step's own, the last one the image's.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import Any

from corten.builder.graph import LAYERED, Scratch, Vertex
from corten.builder.plan import BuildPlan, Step
from corten.builder.progress import Difference, Failed, Finished, Progress, Said, Started, Told
from corten.spec.digest import encoded

Send = Callable[[dict[str, Any]], Awaitable[None]]


class ClassicLines:
    """`take` is the build's Emit; `write` sends messages until every step is told, or nothing more comes."""

    def __init__(self, plan: BuildPlan, send: Send, *, explain: bool = False) -> None:
        self._plan, self._send, self._explain = plan, send, explain
        self._events: defaultdict[Vertex, deque[Progress]] = defaultdict(deque)
        self._news, self._ended = asyncio.Event(), False
        self._failed: Vertex | None = None
        self._cached: dict[str, bool] = {}  # stage -> whether all its layers so far came from the cache

    def take(self, event: Progress) -> None:
        if isinstance(event, Failed):
            self._failed = self._failed or event.vertex
        self._events[event.vertex].append(event)
        self._news.set()

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._news.set()

    async def stream(self, text: str) -> None:
        await self._send({"stream": text})

    async def write(self) -> None:
        steps, total = self._plan.steps, len(self._plan.steps)
        ident = ""
        for number, step in enumerate(steps, 1):
            await self._head(number, total, step)
            finished = await self._vertex(step) if step.vertex else None
            if step.vertex and finished is None:
                await self._other_failure(number, step)
                return
            ident = _ident(ident, step, finished)
            await self._tail(step, finished, ident)

    async def _head(self, number: int, total: int, step: Step) -> None:
        await self.stream(f"Step {number}/{total} : {step.text}")
        await self.stream("\n")

    async def _tail(self, step: Step, finished: Finished | None, ident: str) -> None:
        if step.vertex is None:
            if self._cached.get(step.stage, True):
                await self.stream(" ---> Using cache\n")
        elif isinstance(step.vertex.op, LAYERED) and finished:
            self._cached[step.stage] = self._cached.get(step.stage, True) and finished.cached
            if finished.cached:
                await self.stream(" ---> Using cache\n")
        await self.stream(f" ---> {ident}\n")

    async def _other_failure(self, number: int, told: Step) -> None:
        """The step that failed, if it is not the one that was being told."""
        if self._failed is None or self._failed == told.vertex:
            return
        for later, step in enumerate(self._plan.steps[number:], number + 1):
            if step.vertex == self._failed:
                await self._head(later, len(self._plan.steps), step)
                await self._vertex(step)

    async def _vertex(self, step: Step) -> Finished | None:
        """Tell a vertex to its end; None if it has none."""
        vertex, container = step.vertex, ""
        if vertex is None:
            return None
        events = self._events[vertex]
        while True:
            while events:
                event = events.popleft()
                if isinstance(event, Started) and event.container:
                    container = event.container[:12]
                    await self.stream(f" ---> Running in {container}\n")
                elif isinstance(event, Said):
                    await self.stream(_said(event))
                elif isinstance(event, Told):
                    await self._send({"status": event.status})
                elif isinstance(event, Finished):
                    events.append(event)  # a vertex may stand behind several steps
                    if container:
                        await self.stream(f" ---> Removed intermediate container {container}\n")
                    if event.missed and self._explain:
                        await self.stream(f" ---> Not in the cache: {missed_text(event.missed)}\n")
                    return event
                elif isinstance(event, Failed):
                    return None
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()


def _said(event: Said) -> str:
    text = event.data.decode("utf-8", "replace")
    return f"\x1b[91m{text}\x1b[0m" if event.stream == "stderr" else text


def missed_text(difference: Difference) -> str:
    """Why a step was not in the cache, in words."""
    if not difference.cached:
        return f"{difference.ingredient} is new"
    if not difference.now:
        return f"{difference.ingredient} is gone"
    return f"{difference.ingredient} is {_short(difference.now)}, and was {_short(difference.cached)}"


def _short(value: str) -> str:
    return value if len(value) <= 80 else f"{value[:77]}..."


def _ident(before: str, step: Step, finished: Finished | None) -> str:
    """What stands for the step: the base image's own id, nothing for scratch, else a digest of all that led here."""
    vertex = step.vertex
    if vertex and not isinstance(vertex.op, LAYERED):
        image_id = getattr(vertex.op, "id", "")
        return "" if isinstance(vertex.op, Scratch) else encoded(image_id)[:12]
    chain = finished.chain if finished else ()
    return hashlib.sha256("\n".join((before, step.text, *chain)).encode()).hexdigest()[:12]


