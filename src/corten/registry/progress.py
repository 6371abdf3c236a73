"""What a transfer says while it is under way, as values, and how work that says it becomes a stream of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """`id` is a layer's short digest or a tag; `total` 0 means that there is no bar."""

    status: str
    id: str = ""
    current: int = 0
    total: int = 0


@dataclass(frozen=True)
class Pushed:
    """The end of a push: what the registry has under the tag now. `size` is the manifest's, in bytes."""

    tag: str
    digest: str
    size: int


Emit = Callable[[Progress | Pushed], None]


async def stream(work: Callable[[Emit], Awaitable[None]]) -> AsyncGenerator[Progress | Pushed, None]:
    """What `work` emits, as it does; then its error, if it raised one. Whoever stops listening ends the work."""
    queue: asyncio.Queue[Progress | Pushed | None] = asyncio.Queue()
    task = asyncio.ensure_future(work(queue.put_nowait))
    task.add_done_callback(lambda _done: queue.put_nowait(None))
    try:
        while (progress := await queue.get()) is not None:
            yield progress
        try:
            await task
        except ExceptionGroup as group:
            raise first_error(group) from None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def first_error(error: Exception) -> Exception:
    """Of tasks at once: the first that failed has ended the others."""
    return first_error(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error
