"""The files that a step can copy from, as values: one entry a path. Kinds are a tar's: file, folder, link, fifo, device. Pure.

What counts for the cache is in `fact`: not the times, which a check-out changes, and not where the bytes lie.

A name's bytes need not be UTF-8, and Python's text for such ones cannot be written as JSON. In entries they are plain (spec/plain_names.py).
"""

from __future__ import annotations

import hashlib

import msgspec

FILE, FOLDER, LINK, FIFO, CHAR, BLOCK = "f", "d", "l", "p", "c", "b"


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
