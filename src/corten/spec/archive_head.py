"""Whether bytes begin an archive that a context or a layer may come in: a tar, plain or packed. Pure.

Source: POSIX ustar (magic at 257); RFC 1952, RFC 8878, and the magic numbers of bzip2 and xz.
"""

from __future__ import annotations

BLOCK = 512  # of a tar: as much of the beginning as is needed
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd
_MAGIC_AT, _MAGIC = 257, b"ustar"


def is_archive(head: bytes) -> bool:
    return head.startswith(_PACKED) or head[_MAGIC_AT:].startswith(_MAGIC)
