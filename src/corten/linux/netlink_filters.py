"""Which notifications a netlink socket receives, decided by the kernel: programs for SO_ATTACH_FILTER. Pure.

What is dropped there wakes nobody; each start of a container makes a dozen notifications that its engine has caused itself. A program sees
one packet: for netfilter a whole transaction, for routes one message. Loads are big-endian whatever the machine is. Source: Documentation/
networking/filter.rst, include/uapi/linux/{netlink,if_addr}.h.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x28, 0x30, 0x15, 0x06
_TYPE_OFFSET, _SENDER_OFFSET = 4, 12  # in struct nlmsghdr
_SCOPE_OFFSET, _SCOPE_GLOBAL = 16 + 3, 0  # in struct ifaddrmsg behind it
_WHOLE = 0xFFFFFFFF


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _as_loaded(form: str, value: int) -> int:
    return int.from_bytes(struct.pack(form, value), "big")


def all_but_from(port: int) -> bytes:
    """What another socket than `port` has caused."""
    return b"".join(
        (
            _instruction(_LOAD_WORD, _SENDER_OFFSET),
            _instruction(_JUMP_IF_EQUAL, _as_loaded("=I", port), if_false=1),
            _instruction(_RETURN, 0),
            _instruction(_RETURN, _WHOLE),
        )
    )


def links_and_addresses(link_types: Collection[int], address_types: Collection[int]) -> bytes:
    """Messages of these types; of addresses only those that count everywhere (scope global): each new link has one of its own that does not."""
    rows = [*((kind, "whole") for kind in link_types), *((kind, "scope") for kind in address_types)]
    places = {"whole": len(rows) + 4, "scope": len(rows) + 2}  # of the instructions, counted from the load of the type
    jumps = [_instruction(_JUMP_IF_EQUAL, _as_loaded("=H", kind), if_true=places[to] - place - 1) for place, (kind, to) in enumerate(rows, 1)]
    return b"".join(
        (
            _instruction(_LOAD_HALF, _TYPE_OFFSET),
            *jumps,
            _instruction(_RETURN, 0),
            _instruction(_LOAD_BYTE, _SCOPE_OFFSET),
            _instruction(_JUMP_IF_EQUAL, _SCOPE_GLOBAL, if_false=1),
            _instruction(_RETURN, _WHOLE),
            _instruction(_RETURN, 0),
        )
    )
