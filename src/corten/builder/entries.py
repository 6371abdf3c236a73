"""The files that a step can copy from, as values: one entry a path. Kinds are a tar's: file, folder, link, fifo, device. Pure.

What counts for the cache is in `fact`: not the times, which a check-out changes, and not where the bytes lie.

A name's bytes need not be UTF-8, and Python's text for such ones cannot be written as JSON. In entries they are `plain`.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

FILE, FOLDER, LINK, FIFO, CHAR, BLOCK = "f", "d", "l", "p", "c", "b"
_UNDECODED, _PLAIN = re.compile("[\udc80-\udcff]"), re.compile("\0([89a-f][0-9a-f])")
_FIRST = 0xDC00  # Python's surrogateescape: the byte is added to it


def plain(name: str) -> str:
    """A name as Python has it from the system, every byte of it that is not UTF-8 as NUL, which no name has, and two digits."""
    return name if name.isascii() else _UNDECODED.sub(lambda found: f"\0{ord(found[0]) - _FIRST:02x}", name)


def raw(name: str) -> str:
    """Back, for a call to the system."""
    return _PLAIN.sub(lambda found: chr(_FIRST + int(found[1], 16)), name) if "\0" in name else name


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`path` (plain, as is `link`) is relative to the tree's root, without dots; the root is the empty path. `time` is seconds since the epoch.

    `digest` is sha256 of a file's bytes in hexadecimal; empty where it has not been read yet. `place` says where the bytes are: of a context an
    offset into its spool, or (negative) -1 minus the number of a file of its own; of a chain the number of the layer's folder.
    """

    path: str
    kind: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size: int = 0
    time: int = 0
    link: str = ""
    digest: str = ""
    place: int = 0
    device: int = 0
    attributes: tuple[tuple[str, bytes], ...] = ()

    def fact(self) -> bytes:
        """All that makes one entry's copy differ from another's, but for times."""
        return msgspec.json.encode((self.kind, self.mode if self.kind != LINK else 0, self.uid, self.gid, self.link, self.digest, self.device, self.attributes))


def digest_of_entry(entry: Entry) -> str:
    return hashlib.sha256(entry.fact()).hexdigest()
