"""How layers are packed, as `--output compression=` names it. Values only."""

from __future__ import annotations

GZIP, ZSTD, PLAIN = "gzip", "zstd", "uncompressed"
