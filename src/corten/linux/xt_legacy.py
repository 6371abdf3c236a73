"""Whether the old xtables (iptables-legacy) have rules for the input hook of this network namespace. Reads only.

A table is asked only if it is there already: asking for one makes it. Source: include/uapi/linux/netfilter_ipv4/ip_tables.h.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from corten.linux import syscalls

_FAMILIES = {"iptables": (socket.AF_INET, socket.IPPROTO_IP, "ip_tables_names"), "ip6tables": (socket.AF_INET6, socket.IPPROTO_IPV6, "ip6_tables_names")}
_GET_INFO, _GET_ENTRIES = 64, 65
_INPUT, _ACCEPT = 1, -2  # NF_ACCEPT as a standard target has it: -verdict - 1
_TARGET_OFFSET = {"iptables": 88, "ip6tables": 140}  # of an entry's target_offset and next_offset
_NAME, _ENTRIES = b"filter", 40  # where the entries begin in the answer


@dataclass(frozen=True)
class LegacyRules:
    """`program` is the one that lists them: `iptables-legacy -S INPUT`."""

    program: str
    rules: int
    drops: bool

    def __str__(self) -> str:
        return f"{self.program}-legacy, chain INPUT ({self.rules} rules, policy {'DROP' if self.drops else 'ACCEPT'})"


def input_rules() -> list[LegacyRules]:
    """Of each family that has rules or a policy that drops. Raises OSError."""
    found = (_family(program) for program, (_, _, names) in _FAMILIES.items() if _NAME.decode() in _names(names))
    return [row for row in found if row.rules or row.drops]


def _names(file_name: str) -> list[str]:
    try:
        with open(f"/proc/thread-self/net/{file_name}", encoding="ascii") as file:
            return file.read().split()
    except FileNotFoundError:  # the kernel has no old xtables at all
        return []


def _family(program: str) -> LegacyRules:
    family, level, _ = _FAMILIES[program]
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as asking:
        info = syscalls.getsockopt(asking.fileno(), level, _GET_INFO, struct.pack("=32s13I", _NAME, *[0] * 13))
        _, *places, _, size = struct.unpack_from("=13I", info, 32)
        hooks, ends = places[:5], places[5:]
        entries = syscalls.getsockopt(asking.fileno(), level, _GET_ENTRIES, struct.pack("=32sI4x", _NAME, size) + bytes(size))[_ENTRIES:]
    return _judge(program, entries, hooks[_INPUT], ends[_INPUT])


def _judge(program: str, entries: bytes, first: int, last: int) -> LegacyRules:
    """Pure: the entries from the hook's first to its policy, which is the last."""
    count, offset, where = 0, first, _TARGET_OFFSET[program]
    while offset < last:
        count += 1
        step = struct.unpack_from("=H", entries, offset + where + 2)[0]
        offset += step or last
    target = struct.unpack_from("=H", entries, last + where)[0]
    policy = struct.unpack_from("=i", entries, last + target + 32)[0]
    return LegacyRules(program, count, policy != _ACCEPT)
