"""What the kernel tells of a packet, read; where one packet ends and the next begins; the rules that mark it."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from corten.engine.tracing import _first_packet, _owner
from corten.linux.netlink import be32, nested, text
from corten.linux.nft_trace import Met, parse, trace_table


def message(table: str, chain: str, kind: int, *, handle: int = 0, verdict: int = 1) -> tuple[int, int, bytes]:
    body = be32(4, kind) + text(1, table) + text(2, chain) + struct.pack("=HH", 12, 3) + struct.pack(">Q", handle)
    body += nested(5, be32(1, verdict & 0xFFFFFFFF)) if kind == 3 else be32(16, verdict)
    return 10 << 8 | 17, 0, struct.pack(">BBH", 1, 0, 0) + body


def test_messages_of_the_kernel():
    found = parse([
        message("mark", "prerouting", 3, handle=2, verdict=-1),  # of the marking table itself
        message("t", "guard", 3, handle=0, verdict=-1),  # the packet, no rule
        message("t", "guard", 3, handle=7, verdict=-3),
        message("t", "guard", 1, verdict=1),
        (1, 0, b""),
        message("t", "forward", 3, handle=9, verdict=0),
    ], "mark")  # fmt: skip
    assert [(row.chain, row.handle, row.verdict) for row in found] == [("guard", 7, "jump"), ("guard", 0, "accept"), ("forward", 9, "drop")]
    assert [found[0].where, found[1].where] == ["rule 7 of chain guard of table inet t", "policy of chain guard of table inet t"]


def test_the_second_packet_is_another():
    way = [Met("inet", "t", "guard", 1, "jump"), Met("inet", "t", "sub", 2, "return"), Met("inet", "t", "guard", 0, "accept"), Met("inet", "t", "forward", 0, "accept")]
    assert _first_packet(way + way) == way
    assert _first_packet(way) == way
    assert _first_packet([]) == []
    assert _first_packet([way[2], way[2]]) == [way[2]]


def test_whose_a_rule_is():
    for table, chain, owner in (("filter", "ufw-user-input", "ufw"), ("firewalld", "filter_INPUT", "firewalld"), ("filter", "DOCKER-USER", "Docker"), ("filter", "FORWARD", "iptables"),
                                ("mine", "x", "table ip mine")):  # fmt: skip
        assert _owner(Met("ip", table, chain, 1, "drop")) == owner


def test_the_rules_that_mark():
    shown = str(trace_table("m", IPv4Address("10.0.0.2"), IPv4Address("10.0.0.3"), "tcp", 80))
    assert shown.count("ip saddr 10.0.0.2 ip daddr 10.0.0.3 tcp dport 80 meta nftrace set 1") == 2
    assert "ip6 saddr fd00::1 ip6 daddr fd00::2 udp dport 53" in str(trace_table("m", IPv6Address("fd00::1"), IPv6Address("fd00::2"), "udp", 53))
