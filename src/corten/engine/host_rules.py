"""The host's own input rules, for published ports: reading them again whenever they change, and saying what cannot be obeyed.

What the copies are is network.mirror's. Who has damaged our table, and what others do to forwarded packets, is not asked here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from corten.linux.nft_foreign import HostTable
from corten.linux.xt_legacy import input_rules
from corten.network.apply import Kernel
from corten.network.mirror import NO_MIRROR, Mirror, make_mirror

_QUIET = 0.03  # seconds: a firewall that is loaded changes a thousand things at once
_log = logging.getLogger("corten.engine")


class HostRules:
    """`put` has a mirror put in the kernel; raises OSError with what was refused as its file name."""

    def __init__(self, kernel: Kernel, table: str, put: Callable[[Mirror], None]) -> None:
        self._kernel, self._table, self._put = kernel, table, put
        self._tables: list[HostTable] = []
        self._told: set[str] = set()
        self._reading: asyncio.Task[None] | None = None
        self._again = False
        self.mirror = NO_MIRROR

    def start(self) -> None:
        """Read and put, before the first port is published. Raises OSError."""
        self._take(self._kernel.host_input(self._table))
        self.look_at_legacy()

    @property
    def read(self) -> set[tuple[str, str]]:
        """The tables (family, name) that have been copied from."""
        return {(table.family, table.name) for table in self._tables}

    def changed(self) -> None:
        """Somebody has changed rules: read them when it has become quiet."""
        if self._reading:
            self._again = True
        else:
            self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        try:
            while True:
                self._again = False
                await asyncio.sleep(_QUIET)
                found = await asyncio.to_thread(self._kernel.host_input, self._table)
                if not self._again:
                    break
            if found != self._tables:
                self._take(found)
        except OSError as error:  # they have changed while they were read; the notification of that comes
            _log.warning("the host's input rules cannot be read (%s): the ones before hold for published ports", error)
        finally:
            self._reading = None
        if self._again:
            self.changed()

    def _take(self, tables: list[HostTable]) -> None:
        """What the kernel refuses is left out, one rule after the other, and named."""
        refused: set[str] = set()
        while True:
            mirror = make_mirror(tables, refused)
            try:
                self._put(mirror)
                break
            except OSError as error:
                name = str(error.filename)
                if name in refused or not name.startswith("rule "):
                    raise
                refused.add(name)
        self._tables, self.mirror = tables, mirror
        self._tell(mirror)

    def _tell(self, mirror: Mirror) -> None:
        for source in mirror.sources:
            self._say(logging.INFO, f"the host's {source} holds for published ports too")
        for line in mirror.left_out:
            self._say(logging.WARNING, f"the host's {line} cannot be obeyed for published ports: it holds for the host's own programs only")

    def _say(self, level: int, text: str) -> None:
        """Once."""
        if text not in self._told:
            self._told.add(text)
            _log.log(level, "%s", text)

    def look_at_legacy(self) -> None:
        """The old xtables tell nobody when they change: asked when a port is published."""
        try:
            found = input_rules()
        except OSError as error:
            self._say(logging.WARNING, f"the rules of iptables-legacy cannot be read: {error}")
            return
        for rules in found:
            self._say(
                logging.WARNING,
                f"published ports do not obey {rules}: those are the old xtables, which cannot be copied; "
                f"load them with iptables-nft (update-alternatives --set {rules.program} /usr/sbin/{rules.program}-nft)",
            )

    def stop(self) -> None:
        if self._reading:
            self._reading.cancel()
