"""One asyncio lock a name (a container, a volume, a blob), there for as long as somebody holds or awaits it.

Never taken out of a table by hand: who waits on a lock that was, and who asks for the name after that, would not exclude one another.
"""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class NamedLocks:
    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __getitem__(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock
