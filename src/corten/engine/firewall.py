"""The one table of rules: who owns which of its elements, and keeping the kernel's copy as it should be.

Networks and containers put what they need under their ids; what is needed is network.plan's. A foreign rule is never touched;
when somebody else flushes the table, it is put back.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import Counter
from collections.abc import Collection

from corten.engine.host_rules import HostRules
from corten.engine.neighbours import CHAIN, Neighbours
from corten.linux.nft_expressions import Rule
from corten.linux.nft_sets import Element
from corten.linux.nftables import Table
from corten.network.apply import Kernel
from corten.network.mirror import Mirror
from corten.network.plan import make_table
from corten.network.port_guard import make_guard

_NO_FAMILY = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
_log = logging.getLogger("corten.engine")


class Firewall:
    def __init__(self, kernel: Kernel, name: str) -> None:
        self._kernel, self._table = kernel, make_table(name)
        self._guard: Table | None = make_guard(name)
        self._neighbours = Neighbours(kernel, name)
        self._host = HostRules(kernel, name, self._put_mirror)
        self._owned: dict[str, frozenset[Element]] = {}
        self._count: Counter[Element] = Counter()  # of owners: a port that is published at two addresses is one element twice
        self._standing = self._removed = False

    def start(self) -> None:
        """Write the whole table, the host's own rules in it, and watch it from here on."""
        try:
            self._host.start()
        except OSError as error:
            if self._guard is None or error.errno not in _NO_FAMILY:
                raise
            _log.warning("this kernel has no nftables of the bridge family (CONFIG_NF_TABLES_BRIDGE): containers of one network can take each other's addresses")
            self._guard = None
            self._host.start()
        self._standing = True
        self._neighbours.look(self.bridges())
        asyncio.get_running_loop().add_reader(self._kernel.watched, self._look)

    def _put_mirror(self, mirror: Mirror) -> None:
        table = make_table(self._table.name, mirror)
        self._kernel.replace_rules(self._tables(table), self._count)
        self._table = table

    def _tables(self, table: Table | None = None) -> list[Table]:
        return [table or self._table, *([self._guard] if self._guard else [])]

    def _replace(self) -> None:
        self._kernel.replace_rules(self._tables(), self._count)

    def put(self, owner: str, elements: frozenset[Element]) -> None:
        """Have exactly these elements of the owner's in the table. Raises OSError; then nothing has changed."""
        before = self._owned.get(owner, frozenset())
        if before == elements:
            return
        removed, added = self._own(owner, before, elements)
        if not self._standing:
            return
        try:
            self._change(removed, added)
        except OSError:
            self._own(owner, elements, before)
            raise
        kinds = {element.set for element in before ^ elements}
        if "bridges" in kinds:
            self._neighbours.let_through(self.bridges())
        if "published" in kinds:
            self._host.look_at_legacy()

    def _own(self, owner: str, before: frozenset[Element], after: frozenset[Element]) -> tuple[list[Element], list[Element]]:
        """Write down what an owner has; which elements nobody has any more, and which nobody had before."""
        self._owned[owner] = after
        if not after:
            del self._owned[owner]
        removed, added = [], []
        for element in before - after:
            self._count[element] -= 1
            if not self._count[element]:
                del self._count[element]
                removed.append(element)
        for element in after - before:
            self._count[element] += 1
            if self._count[element] == 1:
                added.append(element)
        return removed, added

    def bridges(self) -> set[str]:
        return {str(element.key[0]) for element in self._count if element.set == "bridges"}

    def _change(self, removed: Collection[Element], added: Collection[Element]) -> None:
        try:
            self._kernel.change_rules(self._tables(), removed, added)
        except OSError as error:  # the table is not what we left
            _log.warning("the rules of table inet %s had been changed by somebody else (%s): put back", self._table.name, error)
            self._replace()

    def drop(self, owner: str) -> None:
        self.put(owner, frozenset())

    def _look(self) -> None:
        changes = self._kernel.changes(self._table.name, CHAIN, self._host.read)
        if changes.guest_chain:
            self._neighbours.look(self.bridges())
        if changes.host_input:
            self._host.changed()
        if changes.damaged:
            _log.warning("somebody else has removed rules of table inet %s: put back", self._table.name)
            self._replace()

    def host_chains(self) -> tuple[str, ...]:
        """The host's own chains that published ports obey, in words."""
        return self._host.mirror.sources

    @property
    def name(self) -> str:
        """The table's."""
        return self._table.name

    def explain(self) -> dict[tuple[str, int], str]:
        """(chain, handle in the kernel) -> the rule, and why it is there, in words. Raises OSError."""
        handles = self._kernel.rule_handles(self._table.name)
        return {
            (chain.name, handle): f"{rule} ({rule.why})" if isinstance(rule, Rule) and rule.why else str(rule).removeprefix("# ")
            for chain in self._table.chains
            for handle, rule in zip(handles.get(chain.name, ()), chain.rules, strict=False)
        }

    def rule_counts(self) -> dict[str, int]:
        """Chain -> how many rules it should have."""
        return {chain.name: len(chain.rules) for chain in self._table.chains}

    def left_out(self) -> tuple[str, ...]:
        """The host's rules that published ports do not obey, each with the reason."""
        return self._host.mirror.left_out

    def wake(self) -> None:
        """After the table has been taken away: something needs it again."""
        if self._removed:
            self._removed = False
            self.start()

    def render(self) -> str:
        """The tables as nft(8) would list them."""
        return "\n".join(table.render(self._count) for table in self._tables())

    def close(self, *, remove: bool = False) -> None:
        """Stop watching; with `remove`, take the table away."""
        if self._standing:
            asyncio.get_running_loop().remove_reader(self._kernel.watched)
            self._standing = False
        self._host.stop()
        if remove:
            self._neighbours.let_through(())
            for table in (*self._tables(), Table(f"{self.name}-trace", (), ())):
                self._kernel.remove_table(table)
            self._removed = True
