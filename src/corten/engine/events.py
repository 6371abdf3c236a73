"""Events: what happened, to whoever listens, and the last 256 to whoever asks later. Source: moby daemon/events."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from corten.spec.timestamps import now_ns

RING = 256
_QUEUE = 1024
_LOOK = 5.0  # seconds between looks at whether the listener is still there


@dataclass(frozen=True)
class Event:
    """`attributes` are the actor's; `time` is nanoseconds since the epoch."""

    type: str
    action: str
    id: str
    attributes: dict[str, str]
    time: int


class Events:
    def __init__(self) -> None:
        self._ring: deque[Event] = deque(maxlen=RING)
        self._listeners: set[asyncio.Queue[Event | None]] = set()

    def emit(self, kind: str, action: str, actor: str, /, **attributes: str) -> None:
        event = Event(kind, action, actor, attributes, now_ns())
        self._ring.append(event)
        for queue in tuple(self._listeners):
            if queue.full():  # a listener that does not read is let go, not buffered for
                self._listeners.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def past(self, since: int, until: int) -> list[Event]:
        return [event for event in self._ring if since <= event.time <= until]

    async def follow(self, wanted: Callable[[Event], bool], since: int | None, until: int | None,
                     gone: Callable[[], bool]) -> AsyncIterator[Event]:  # fmt: skip
        """Past events from `since` or to `until`, then new ones, to `until` (or for ever, or until the listener is `gone`)."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(_QUEUE)
        self._listeners.add(queue)
        try:
            if since is not None or until is not None:
                for event in self.past(since or 0, now_ns() if until is None else until):
                    if wanted(event):
                        yield event
            while not gone() and (until is None or now_ns() < until):
                timeout = _LOOK if until is None else min(_LOOK, (until - now_ns()) / 1e9)
                try:
                    event_or_none = await asyncio.wait_for(queue.get(), timeout)
                except TimeoutError:
                    continue
                if event_or_none is None:
                    return
                if wanted(event_or_none):
                    yield event_or_none
        finally:
            self._listeners.discard(queue)
