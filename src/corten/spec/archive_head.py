"""Whether bytes begin an archive that a context or a layer may come in: a tar, plain or packed. Pure.

Source: POSIX ustar (the header's checksum: octal at 148, counted as eight spaces; some old tars sum signed bytes); RFC 1952, RFC 8878, and
the magic numbers of bzip2 and xz. A tar from before ustar has no magic, so what makes a header is its checksum, as for Docker.
"""

from __future__ import annotations

import re

BLOCK = 512  # of a tar: as much of the beginning as is needed
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd
_SUM_AT, _SUM_END = 148, 156
_SUM = re.compile(rb" *([0-7]+)[ \0]*")


def is_archive(head: bytes) -> bool:
    return head.startswith(_PACKED) or is_tar(head)


def is_tar(head: bytes) -> bool:
    """Whether the first BLOCK bytes are a tar's header. One of zeros, which ends a tar, is none."""
    header = head[:BLOCK]
    said = _SUM.fullmatch(header[_SUM_AT:_SUM_END])
    if len(header) < BLOCK or said is None:
        return False
    others = header[:_SUM_AT] + header[_SUM_END:]
    spaces = ord(" ") * (_SUM_END - _SUM_AT)
    return int(said[1], 8) - spaces in (sum(others), sum(byte - 256 if byte > 127 else byte for byte in others))
