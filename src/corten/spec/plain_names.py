"""Names of files as text that can be written as JSON: a name's bytes need not be UTF-8, and Python's own text for such ones cannot. Pure."""

from __future__ import annotations

import re

_UNDECODED, _PLAIN = re.compile("[\udc80-\udcff]"), re.compile("\0([89a-f][0-9a-f])")
_FIRST = 0xDC00  # Python's surrogateescape: the byte is added to it


def plain(name: str) -> str:
    """A name as Python has it from the system, every byte of it that is not UTF-8 as NUL, which no name has, and two digits."""
    return name if name.isascii() else _UNDECODED.sub(lambda found: f"\0{ord(found[0]) - _FIRST:02x}", name)


def raw(name: str) -> str:
    """Back, for a call to the system."""
    return _PLAIN.sub(lambda found: chr(_FIRST + int(found[1], 16)), name) if "\0" in name else name
