"""Taking links of the host away without making anybody wait for it.

The kernel lets go of a link in its own time: whoever removes one waits for RCU (25 ms, measured; for a bridge most of that with the lock that
every other change of the network needs). So a veth is removed by a thread, and the caller waits for the link only; a bridge is switched off and
renamed, and removed a moment after the last one, one after the other. What a crash leaves of those is swept by its name.
"""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor

from corten.linux import rtnetlink
from corten.linux.netlink import NETLINK_ROUTE, Netlink

_THREADS = 4
_STEP = 0.0003  # seconds
_CALM, _PAUSE = 0.25, 0.02  # seconds: after the last bridge was switched off, between two removals
_GRAVE = "gone-"
_log = logging.getLogger("corten.network")


class LinkRemoval:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "corten-links")
        self._under_way: set[asyncio.Future[None]] = set()
        self._buried: list[str] = []
        self._burying: asyncio.Task[None] | None = None

    async def remove(self, name: str) -> None:
        """Until the link is gone. Idempotent. Raises OSError."""
        removal = self.begin(name)
        while not removal.done() and rtnetlink.has_link(name):
            await asyncio.sleep(_STEP)
        if removal.done():
            removal.result()

    def begin(self, name: str) -> asyncio.Future[None]:
        """As `remove`, without waiting; what goes wrong is in the log."""
        removal = asyncio.get_running_loop().run_in_executor(self._threads, _remove, [name])
        self._under_way.add(removal)
        removal.add_done_callback(self._ended)
        return removal

    def _ended(self, removal: asyncio.Future[None]) -> None:
        self._under_way.discard(removal)
        if not removal.cancelled() and (error := removal.exception()):
            _log.warning("a link cannot be removed: %s", error)

    def bury(self, route: Netlink, name: str) -> None:
        """Of a bridge (or a VLAN): nobody sees it by its name any more, it carries nothing, and it goes soon. Idempotent. Raises OSError."""
        if not rtnetlink.has_link(name):
            return
        grave = f"{_GRAVE}{os.urandom(5).hex()}"
        index = rtnetlink.link_index(name)
        route.execute([rtnetlink.set_down(index), rtnetlink.rename(index, grave)])
        self._buried.append(grave)
        if self._burying:
            self._burying.cancel()
        self._burying = asyncio.ensure_future(self._remove_buried())

    async def _remove_buried(self) -> None:
        await asyncio.sleep(_CALM)
        while self._buried:
            await asyncio.shield(self.begin(self._buried.pop()))
            await asyncio.sleep(_PAUSE)

    def sweep(self, route: Netlink) -> None:
        """Start-up: what an engine that was killed had switched off. Raises OSError."""
        self._buried += [name for name in rtnetlink.kinds(route) if name.startswith(_GRAVE)]
        self._burying = asyncio.ensure_future(self._remove_buried())

    def close(self) -> None:
        """What is switched off goes now. Raises OSError."""
        if self._burying:
            self._burying.cancel()
        self._threads.shutdown()
        _remove(self._buried)


def _remove(names: list[str]) -> None:
    with Netlink(NETLINK_ROUTE) as route:
        route.execute([rtnetlink.delete_link(name) for name in names])
