"""What a registry says of how many pulls are left. Pure. Source: IETF draft ratelimit-headers as Docker Hub sends them: `100;w=21600`."""

from __future__ import annotations

import re
from collections.abc import Mapping

_VALUE = re.compile(r"(\d{1,18})(?:;w=(\d{1,9}))?")
_HOUR = 3600


def described(headers: Mapping[str, str]) -> str:
    """`76 of 100 pulls left, counted over 6 h`; empty where the headers do not say."""
    limit, left = (_VALUE.fullmatch(headers.get(name, "").strip()) for name in ("RateLimit-Limit", "RateLimit-Remaining"))
    if not limit or not left:
        return ""
    window = int(limit[2] or 0)
    span = f", counted over {window // _HOUR} h" if window and window % _HOUR == 0 else f", counted over {window} s" if window else ""
    return f"{left[1]} of {limit[1]} pulls left{span}"
