"""The smallest loop that the launcher and the monitor need: descriptors and what to call when they are ready.

Not an event loop library: no futures, no threads. Imports must stay this light, every fork pays for them.
"""

from __future__ import annotations

import select
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
