"""When a refused or broken exchange with a registry is worth another try, and after how long. Pure.

Sources: RFC 9110 10.2.3 (Retry-After); Docker's five attempts per blob.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime

ATTEMPTS = 5
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_LONGEST = 60.0
_FIRST = 0.5


def is_transient(status: int) -> bool:
    return status in _TRANSIENT


def pause(attempt: int, retry_after: str = "", now: float = 0.0) -> float:
    """Seconds before try number `attempt` + 1 (the first try is 1): what the registry asked for, else doubling from half a second.

    `now` is seconds since the epoch, for a Retry-After that is a date. Never longer than a minute.
    """
    asked = _asked(retry_after, now)
    return min(_LONGEST, asked if asked is not None else _FIRST * 2.0 ** (attempt - 1))


def _asked(text: str, now: float) -> float | None:
    if text.strip().isascii() and text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError):
        return None
