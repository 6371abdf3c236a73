"""Programs that the kernel runs on what a socket receives, held to it: packets like the kernel's own, through a socket of another family."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from corten.linux import netlink_filters, rtnetlink
from corten.linux.syscalls import attach_socket_filter


def passed(program: bytes, *packets: bytes) -> list[bytes]:
    """Those of the packets that get through."""
    sending, receiving = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sending, receiving:
        attach_socket_filter(receiving.fileno(), program)
        receiving.setblocking(False)
        found = []
        for packet in packets:
            sending.send(packet)
            with suppress(BlockingIOError):
                found.append(receiving.recv(1000))
        return found


def message(kind: int, sender: int, body: bytes = bytes(16)) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, sender) + body


def test_ones_own_changes_are_not_heard_of():
    own, other, kernel = message(5, 0x01020304), message(5, 0x01020305), message(5, 0)
    assert passed(netlink_filters.all_but_from(0x01020304), own, other, kernel, own) == [other, kernel]


def test_links_that_go_and_addresses_that_count():
    def address(kind: int, scope: int) -> bytes:
        return message(kind, 0, struct.pack("=BBBBI", socket.AF_INET6, 64, 0, scope, 7))

    gone, made = message(rtnetlink.RTM_DELLINK, 0), message(rtnetlink.RTM_NEWLINK, 0)
    counts = [address(rtnetlink.RTM_NEWADDR, 0), address(rtnetlink.RTM_DELADDR, 0)]
    locals_ = [address(rtnetlink.RTM_NEWADDR, 253), address(rtnetlink.RTM_DELADDR, 253), address(rtnetlink.RTM_NEWADDR, 254)]
    route = message(rtnetlink.RTM_NEWROUTE, 0)
    program = netlink_filters.links_and_addresses((rtnetlink.RTM_DELLINK,), (rtnetlink.RTM_NEWADDR, rtnetlink.RTM_DELADDR))
    assert passed(program, made, gone, *locals_, *counts, route) == [gone, *counts]
