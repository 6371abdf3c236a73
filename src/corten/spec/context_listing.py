"""What a client and the engine tell each other of a folder that is a build context: its listing, and what of it the engine wants. Pure.

A listing says what a file's status says, never what is in it. The engine asks for the rest, of the entries that a build needs. Source: our own;
docs/own-api.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

MESSAGE = "corten.context"  # the key of a Wanted among the `aux` of a build's messages
KEPT = "folder:"  # a named context that is a folder, by the id that its listing was given
LONGEST = 1 << 27  # bytes of a listing
_TICK, _COARSE = 100_000_000, 2_000_000_000  # nanoseconds


class Listed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`path` (plain, as is `link`: plain_names.py) is relative to the folder, without dots. `mode` with the kind's bits; times in nanoseconds; `capability` is security.capability's value."""

    path: str
    mode: int
    size: int = 0
    mtime: int = 0
    ctime: int = 0
    inode: int = 0
    link: str = ""
    device: int = 0
    capability: bytes = b""


class Listing(msgspec.Struct, frozen=True, rename="pascal"):
    """`entries` sorted by path, without what the ignore file leaves out. `beside`: files that the build reads and that are not in the context."""

    entries: Sequence[Listed]
    beside: dict[str, bytes] = {}


class Wanted(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """Numbers of a listing's entries: whose SHA-256 the engine wants, or whose content. `id` is the listing's."""

    id: str
    digests: list[int] = []
    contents: list[int] = []


class Digests(msgspec.Struct, frozen=True, rename="pascal"):
    """The answer to `Wanted.digests`, in its order: SHA-256 in hexadecimal."""

    digests: list[str]


def is_settled(entry: Listed, taken: int) -> bool:
    """Whether an equal status later on means equal content, if the listing was `taken` (nanoseconds) then.

    A change after the listing has a later ctime, unless it is in the same tick of the file system's clock. Kernel ticks are 10 ms and less; file systems
    that know whole seconds only show it (git calls such entries racily clean).
    """
    newest = max(entry.mtime, entry.ctime)
    return newest < taken - (_TICK if newest % 1_000_000_000 else _COARSE)
