"""What becomes of links and addresses of the host, as the kernel tells it: the engine's one listener for routes' notifications.

Only what may be somebody else's doing comes through: links and addresses that are made by the hundred (a container's start) are filtered out
by the kernel. Decides nothing.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from corten.linux import netlink_filters, rtnetlink
from corten.linux.netlink import NETLINK_ROUTE, Netlink
from corten.network.plan import AnyAddress

_GROUPS = rtnetlink.LINK_NOTIFICATIONS | rtnetlink.ADDRESS_NOTIFICATIONS
_FILTER = netlink_filters.links_and_addresses((rtnetlink.RTM_DELLINK,), (rtnetlink.RTM_NEWADDR, rtnetlink.RTM_DELADDR))


@dataclass(frozen=True)
class LinkChanges:
    """`gone`: names of links; `unplugged`: those that are off their bridge, gone or not; `bare`: (link, address) that it has lost; `addresses`: whether any has come or gone."""

    gone: frozenset[str] = frozenset()
    bare: tuple[tuple[str, AnyAddress], ...] = ()
    addresses: bool = False
    unplugged: frozenset[str] = frozenset()


class LinkWatch:
    def __init__(self) -> None:
        self._socket = Netlink(NETLINK_ROUTE, _GROUPS)
        self._socket.let_through(_FILTER)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> LinkChanges:
        """Since the last time. Raises OSError if some was lost."""
        messages = self._socket.notifications()
        bare = [(name, address) for index, address in rtnetlink.removed_addresses(messages) if (name := _name_of(index))]
        addresses = any(kind != rtnetlink.RTM_DELLINK for kind, _, _ in messages)
        return LinkChanges(frozenset(rtnetlink.removed_links(messages)), tuple(bare), addresses, frozenset(rtnetlink.unplugged_links(messages)))

    def close(self) -> None:
        self._socket.close()


def _name_of(index: int) -> str:
    """Empty if the link is gone, too."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
