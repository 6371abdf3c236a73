"""What iptables-nft(8) leaves in a rule as xtables' own binary matches and targets, in nftables' expressions, as far as that is possible.

A table of the matches and targets that firewalls use (ufw, fail2ban, handwritten rules); newer iptables writes most of the others as
expressions itself. Sources: include/uapi/linux/netfilter/xt_*.h, ipt_REJECT.h, ip6t_REJECT.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from corten.linux.netlink import attribute, be32, nested
from corten.linux.nft_foreign import Expression

_REG, _EQ, _NEQ = 1, 0, 1
_TRANSPORT = 2
_SPORT, _DPORT, _FLAGS = 0, 2, 13
# Alternatives: one of the rows of expressions has to match. None at all: no TCP, UDP or SCTP packet ever matches.
Alternatives = list[list[Expression]]


class Untranslatable(Exception):
    """The operand is the match's or target's name, with what of it has no expression."""


def _payload(offset: int, length: int) -> Expression:
    return Expression("payload", be32(1, _REG) + be32(2, _TRANSPORT) + be32(3, offset) + be32(4, length))


def _cmp(operator: int, value: bytes) -> Expression:
    return Expression("cmp", be32(1, _REG) + be32(2, operator) + nested(3, attribute(1, value)))


def _masked(mask: bytes) -> Expression:
    zero = bytes(len(mask))
    return Expression("bitwise", be32(1, _REG) + be32(2, _REG) + be32(3, len(mask)) + nested(4, attribute(1, mask)) + nested(5, attribute(1, zero)))


def _ports(offset: int, low: int, high: int, *, inverted: bool) -> list[Expression]:
    operator = _NEQ if inverted else _EQ
    if (low, high) == (0, 0xFFFF) and not inverted:
        return []
    if low == high:
        return [_payload(offset, 2), _cmp(operator, struct.pack(">H", low))]
    bounds = nested(3, attribute(1, struct.pack(">H", low))) + nested(4, attribute(1, struct.pack(">H", high)))
    return [_payload(offset, 2), Expression("range", be32(1, _REG) + be32(2, operator) + bounds)]


def _state(mask: int, *, inverted: bool) -> Alternatives:
    load = Expression("ct", be32(2, 0) + be32(1, _REG))
    return [[load, _masked(struct.pack("=I", mask)), _cmp(_EQ if inverted else _NEQ, bytes(4))]]


def _conntrack(info: bytes, revision: int) -> Alternatives:
    """State alone. Its bits are nftables' but for `untracked`; SNAT and DNAT are no state there."""
    used, inverted = struct.unpack_from("=HH", info, 146)
    mask = info[150] if revision == 1 else struct.unpack_from("=H", info, 150)[0]
    if used != 1 or mask & 0xC0:
        raise Untranslatable("conntrack with more than a state")
    return _state(mask & 0x0F | (0x40 if mask & 0x100 else 0), inverted=bool(inverted & 1))


def _old_state(info: bytes, _revision: int) -> Alternatives:
    return _state(struct.unpack_from("=I", info)[0], inverted=False)


def _addrtype(info: bytes, revision: int) -> Alternatives:
    source, destination, flags = struct.unpack_from("=HHI", info)
    if revision != 1 or flags & ~3:
        raise Untranslatable("addrtype limited to an interface")
    rows: Alternatives = [[]]
    for mask, flag, inverted in ((source, 1, flags & 1), (destination, 2, flags & 2)):
        if not mask:
            continue
        load = Expression("fib", be32(1, _REG) + be32(2, 3) + be32(3, 1 if flag == 1 else 2))
        kinds = [struct.pack("=I", number) for number in range(16) if mask >> number & 1]
        if inverted:
            rows = [[*row, *(part for kind in kinds for part in (load, _cmp(_NEQ, kind)))] for row in rows]
        else:
            rows = [[*row, load, _cmp(_EQ, kind)] for row in rows for kind in kinds]
    return rows


def _multiport(info: bytes, revision: int) -> Alternatives:
    if revision != 1:
        raise Untranslatable(f"multiport of revision {revision}")
    where, count = info[0], info[1]
    numbers, opens, inverted = struct.unpack_from("=15H", info, 2), info[32:47], bool(info[47])
    spans, index = [], 0
    while index < min(count, 15):
        last = index + 1 if opens[index] and index + 1 < 15 else index
        spans.append((numbers[index], numbers[last]))
        index = last + 1
    offsets = {0: (_SPORT,), 1: (_DPORT,), 2: (_SPORT, _DPORT)}[where]
    rows = [_ports(offset, low, high, inverted=inverted) for low, high in spans for offset in offsets]
    return [[part for row in rows for part in row]] if inverted else rows


def _tcp(info: bytes, _revision: int) -> Alternatives:
    low, high, first, last, option, mask, value, inverted = struct.unpack_from("=4H4B", info)
    if option:
        raise Untranslatable("tcp with an option")
    found = [*_ports(_SPORT, low, high, inverted=bool(inverted & 1)), *_ports(_DPORT, first, last, inverted=bool(inverted & 2))]
    if mask or inverted & 4:
        found += [_payload(_FLAGS, 1), _masked(bytes([mask])), _cmp(_NEQ if inverted & 4 else _EQ, bytes([value]))]
    return [found]


def _udp(info: bytes, _revision: int) -> Alternatives:
    low, high, first, last, inverted = struct.unpack_from("=4HB", info)
    return [[*_ports(_SPORT, low, high, inverted=bool(inverted & 1)), *_ports(_DPORT, first, last, inverted=bool(inverted & 2))]]


_MATCHES: dict[str, Callable[[bytes, int], Alternatives]] = {
    "comment": lambda _info, _revision: [[]],
    "icmp": lambda _info, _revision: [],
    "icmp6": lambda _info, _revision: [],
    "conntrack": _conntrack,
    "state": _old_state,
    "addrtype": _addrtype,
    "multiport": _multiport,
    "tcp": _tcp,
    "udp": _udp,
}

# ipt_REJECT's and ip6t_REJECT's numbers -> ICMP's code; None: a TCP reset
_REJECT4 = {0: 0, 1: 1, 2: 2, 3: 3, 5: 9, 6: 10, 7: None, 8: 13}
_REJECT6 = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 6: None, 7: 5, 8: 6}
_SILENT_TARGETS = ("LOG", "NFLOG", "TRACE")  # the packet goes on as it was


def _reject(info: bytes, family: str) -> Expression:
    asked = struct.unpack_from("=I", info)[0]
    codes = _REJECT4 if family == "ip" else _REJECT6
    if asked not in codes:
        raise Untranslatable(f"REJECT with {asked}")
    code = codes[asked]
    return Expression("reject", be32(1, 1 if code is None else 0) + attribute(2, bytes([code or 0])))


def translate_match(name: str, revision: int, info: bytes) -> Alternatives:
    """Raises Untranslatable."""
    if name not in _MATCHES:
        raise Untranslatable(f"match {name}")
    try:
        return _MATCHES[name](info, revision)
    except (struct.error, IndexError, KeyError):
        raise Untranslatable(f"match {name} of a shape that is not known") from None


def translate_target(name: str, info: bytes, family: str) -> list[Expression]:
    """Raises Untranslatable."""
    if name in _SILENT_TARGETS:
        return []
    if name != "REJECT":
        raise Untranslatable(f"target {name}")
    try:
        return [_reject(info, family)]
    except struct.error:
        raise Untranslatable("REJECT of a shape that is not known") from None
