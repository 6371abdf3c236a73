"""Rules and sets of another table as parts of one of ours: packed as the kernel gave them, under other names. Decides nothing."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from corten.linux.netlink import NLA_F_NESTED, attribute, be32, nested, text
from corten.linux.nft_foreign import Expression

_COMMENT_LIMIT = 127


@dataclass(frozen=True)
class CopiedRule:
    """`origin` is what it is a copy of, in words; it becomes the copy's comment."""

    origin: str
    expressions: tuple[Expression, ...]

    def __str__(self) -> str:
        return f"# {self.origin}"

    def encode(self) -> bytes:
        return b"".join(nested(1, text(1, row.name), attribute(2 | NLA_F_NESTED, row.body)) for row in self.expressions)

    @property
    def user_data(self) -> bytes:
        value = self.origin.encode()[:_COMMENT_LIMIT] + b"\0"
        return struct.pack("BB", 0, len(value)) + value


@dataclass(frozen=True)
class CopiedSet:
    """`body` and `elements` are packed attributes (nft_foreign.HostSet)."""

    name: str
    flags: int
    body: bytes
    elements: tuple[bytes, ...]

    def __str__(self) -> str:
        return f"# set {self.name}: a copy with {len(self.elements)} elements"

    def encode(self, number: int) -> bytes:
        """Attributes after the table's name."""
        return text(2, self.name) + be32(3, self.flags) + self.body + be32(10, number)
