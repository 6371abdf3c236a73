"""The one table of rules: who owns which of its elements, and keeping the kernel's copy as it should be.

Networks and containers put what they need under their ids; what is needed is network.plan's. A foreign rule is never touched;
when somebody else flushes the table, it is put back.
"""

from __future__ import annotations

import asyncio
import logging

from corten.engine.neighbours import CHAIN, Neighbours
from corten.linux.nft_sets import Element
from corten.network.apply import Kernel
from corten.network.plan import make_table

_log = logging.getLogger("corten.engine")


class Firewall:
    def __init__(self, kernel: Kernel, name: str) -> None:
        self._kernel, self._table = kernel, make_table(name)
        self._neighbours = Neighbours(kernel, name)
        self._owned: dict[str, frozenset[Element]] = {}
        self._standing = False

    def start(self) -> None:
        """Write the whole table, and watch it from here on."""
        self._replace()
        self._standing = True
        self._neighbours.look(self._bridges())
        asyncio.get_running_loop().add_reader(self._kernel.watched, self._look)

    def _replace(self) -> None:
        self._kernel.replace_rules(self._table, frozenset().union(*self._owned.values()))

    def put(self, owner: str, elements: frozenset[Element]) -> None:
        """Have exactly these elements of the owner's in the table. Raises OSError; then nothing has changed."""
        before = self._owned.get(owner, frozenset())
        if before == elements:
            return
        self._owned[owner] = elements
        if not elements:
            del self._owned[owner]
        if not self._standing:
            return
        try:
            self._change(before - elements, elements - before)
        except OSError:
            self._owned[owner] = before
            raise
        if any(element.set == "bridges" for element in before ^ elements):
            self._neighbours.let_through(self._bridges())

    def _bridges(self) -> set[str]:
        return {str(element.key[0]) for elements in self._owned.values() for element in elements if element.set == "bridges"}

    def _change(self, removed: frozenset[Element], added: frozenset[Element]) -> None:
        try:
            self._kernel.change_rules(self._table, removed, added)
        except OSError as error:  # the table is not what we left
            _log.warning("the rules of table inet %s had been changed by somebody else (%s): put back", self._table.name, error)
            self._replace()

    def drop(self, owner: str) -> None:
        self.put(owner, frozenset())

    def _look(self) -> None:
        damaged, neighbour = self._kernel.changes(self._table.name, CHAIN)
        if neighbour:
            self._neighbours.look(self._bridges())
        if damaged:
            _log.warning("somebody else has removed rules of table inet %s: put back", self._table.name)
            self._replace()

    def render(self) -> str:
        """The table as nft(8) would list it."""
        return self._table.render(frozenset().union(*self._owned.values()))

    def close(self, *, remove: bool = False) -> None:
        """Stop watching; with `remove`, take the table away."""
        if self._standing:
            asyncio.get_running_loop().remove_reader(self._kernel.watched)
            self._standing = False
        if remove:
            self._neighbours.let_through(())
            self._kernel.remove_table(self._table.name)
