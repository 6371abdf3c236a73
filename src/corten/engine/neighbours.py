"""Beside other firewalls of the host: what drops forwarded packets whatever our own table says, and letting our bridges through there.

DOCKER-USER is the chain that a Docker Engine keeps for others: our bridges are accepted there, nothing else of anybody's is touched. What cannot
be opened is said in the log, once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from corten.linux.nft_guests import ForeignChain, Guest
from corten.network.apply import Kernel

CHAIN = "DOCKER-USER"
_log = logging.getLogger("corten.engine")


class Neighbours:
    def __init__(self, kernel: Kernel, name: str) -> None:
        self._kernel, self._table, self._comment = kernel, name, f"corten {name}"
        self._told: set[ForeignChain] = set()
        self._open: list[ForeignChain] = []  # the chains that our bridges are guests of

    def look(self, bridges: Iterable[str]) -> None:
        """See which firewalls there are, and have exactly these bridges let through."""
        chains = [chain for chain in self._kernel.foreign_chains() if chain.table != self._table]
        found = [chain for chain in chains if chain.name == CHAIN]
        for chain in found:
            if chain not in self._open:
                _log.info("another engine keeps table %s %s: bridges are accepted in its chain %s", chain.family, chain.table, chain.name)
        self._open = found
        served = {(chain.family, chain.table) for chain in found}
        for chain in chains:
            if chain.drops and (chain.family, chain.table) not in served and chain not in self._told:
                self._told.add(chain)
                _log.warning(
                    "chain %s of table %s %s drops forwarded packets: containers reach nothing outside and are not reached until it accepts them "
                    "(nft insert rule %s %s %s iifname %s accept, and the same with oifname)",
                    chain.name, chain.family, chain.table, chain.family, chain.table, chain.name, self._table,
                )  # fmt: skip
        self.let_through(bridges)

    def let_through(self, bridges: Iterable[str]) -> None:
        """After a change of our bridges. Costs nothing where there is no such chain."""
        if not self._open:
            return
        wanted = {Guest(side, bridge) for bridge in bridges for side in ("iifname", "oifname")}
        for chain in self._open:
            try:
                there = self._kernel.guests(chain, self._comment)
                added, stale = wanted - set(there), [handle for guest, handle in there.items() if guest not in wanted]
                self._kernel.change_guests(chain, self._comment, added, stale)
            except OSError as error:  # its owner has just taken it away: then there is nothing to open
                _log.debug("chain %s of table %s %s: %s", chain.name, chain.family, chain.table, error)
