"""Steps that are being carried out: one that two builds want at the same time runs once, for as long as one of them still wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from corten.builder.results import MadeLayer

Message = tuple[str, bytes]  # what a step said: its container's id under the name `container`, or a stream's name and data
Listener = Callable[[Message], None]


async def ended(task: asyncio.Future[Any]) -> None:
    """Wait for a task's end, however often who waits is cancelled meanwhile: it is not cancelled by that, and what comes after must not begin before."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


@dataclass
class _Running:
    task: asyncio.Task[MadeLayer]
    said: list[Message] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)


class InFlight:
    def __init__(self) -> None:
        self._running: dict[str, _Running] = {}

    async def share(self, key: str, work: Callable[[Listener], Awaitable[MadeLayer]], listener: Listener) -> MadeLayer:
        """The result of `work`, which is begun unless somebody has. Who comes later hears from the beginning.

        A caller that is cancelled leaves; when the last one has left, the work is cancelled, and has ended before this returns.
        """
        running = self._running.get(key)
        if running is None:
            running = self._begin(key, work)
        for message in running.said:
            listener(message)
        running.listeners.append(listener)
        try:
            return await asyncio.shield(running.task)
        finally:
            running.listeners.remove(listener)
            if not running.listeners and not running.task.done():
                self._running.pop(key, None)
                running.task.cancel()
                await ended(running.task)

    def _begin(self, key: str, work: Callable[[Listener], Awaitable[MadeLayer]]) -> _Running:
        said: list[Message] = []

        async def run() -> MadeLayer:
            return await work(tell)

        def tell(message: Message) -> None:
            said.append(message)
            for each in tuple(running.listeners):
                each(message)

        running = self._running[key] = _Running(asyncio.ensure_future(run()), said)
        running.task.add_done_callback(lambda _done: self._running.pop(key, None) if self._running.get(key) is running else None)
        return running
