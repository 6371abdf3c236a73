"""Following packets: a table that marks them for as long as somebody looks, and what the kernel tells of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from corten.linux import nft_trace, nftables
from corten.linux.netlink import NETLINK_NETFILTER, Netlink
from corten.linux.nft_trace import Met
from corten.linux.nftables import Table

_LIMIT = 1000  # rows: a packet meets some tens of rules


class Tracer:
    def __init__(self, listening: Netlink, table: str) -> None:
        self._listening, self._table = listening, table
        self.met: list[Met] = []

    def read(self) -> list[Met]:
        """Everything that has been told so far. Raises OSError if some was lost."""
        if len(self.met) < _LIMIT:
            self.met += nft_trace.parse(self._listening.notifications(), self._table)
        return self.met


@contextmanager
def following(netfilter: Netlink, table: Table) -> Iterator[Tracer]:
    """Packets that the table marks are followed inside the block. Raises OSError."""
    with Netlink(NETLINK_NETFILTER, nft_trace.TRACES) as listening:
        nftables.replace_tables(netfilter, [table])
        try:
            yield Tracer(listening, table.name)
        finally:
            nftables.delete_table(netfilter, table)
