"""What the engine does once nobody has asked it for anything for a while: give back the memory that the last requests needed.

A load or a pull leaves megabytes of free pages between what lives on, which the allocator keeps. Nothing is scheduled while nothing is
asked: an idle engine does not wake up for this.
"""

from __future__ import annotations

import asyncio

from corten.linux.memory import give_back

_QUIET = 2.0  # seconds after the end of a request


class Quiet:
    def __init__(self) -> None:
        self._last, self._looking = 0.0, False

    def asked(self) -> None:
        """A request has just ended."""
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        if not self._looking:
            self._looking = True
            loop.call_later(_QUIET, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._last + _QUIET - loop.time()
        if left > 0:
            loop.call_later(left, self._look)
            return
        self._looking = False
        give_back()
