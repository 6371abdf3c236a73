"""The smallest loop that the launcher and the monitor need: descriptors and what to call when they are ready, and times.

Not an event loop library: no futures, no threads. Imports must stay this light, every fork pays for them.
"""

from __future__ import annotations

import heapq
import itertools
import select
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

READ, WRITE, HANGUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR
Callback = Callable[[int], None]


class Reactor:
    """epoll with a callback per descriptor. A callback gets the event mask."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._masks: dict[int, int] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call once, not before then. There is no cancelling: the callback looks whether it is still wanted."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), callback))

    def watch(self, fd: int, mask: int, callback: Callback) -> None:
        """Register, or change what a registered descriptor is watched for."""
        if fd not in self._callbacks:
            self._epoll.register(fd, mask)
        elif self._masks[fd] != mask:
            self._epoll.modify(fd, mask)
        self._callbacks[fd], self._masks[fd] = callback, mask

    def forget(self, fd: int) -> None:
        """Idempotent; call it before closing the descriptor."""
        if self._callbacks.pop(fd, None) is not None:
            del self._masks[fd]
            with suppress(OSError):
                self._epoll.unregister(fd)

    def run_once(self, timeout: float = -1) -> None:
        if self._timers:
            due = max(0.0, self._timers[0][0] - time.monotonic())
            timeout = due if timeout < 0 else min(timeout, due)
        for fd, mask in self._epoll.poll(timeout):
            callback = self._callbacks.get(fd)
            if callback is None:  # an earlier callback of this round has forgotten it
                continue
            try:
                callback(mask)
            except Exception:
                # A fault costs the descriptor it came by, not the others that are served here; watched on, it would spin.
                traceback.print_exc()
                self.forget(fd)
        while self._timers and self._timers[0][0] <= time.monotonic():
            try:
                heapq.heappop(self._timers)[2]()
            except Exception:
                traceback.print_exc()
