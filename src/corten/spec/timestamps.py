"""Times as Docker writes and reads them: RFC 3339 with nanoseconds, Unix seconds, Go durations. Pure.

Nanoseconds are kept as integers: floats lose them.
"""

from __future__ import annotations

import re
import time
from datetime import date
from functools import lru_cache

from corten.errors import Invalid

ZERO = "0001-01-01T00:00:00Z"  # Go's zero time: "never"
_NS = 1_000_000_000
_EPOCH = date(1970, 1, 1).toordinal()
_LONGEST = 64  # characters of a moment or a duration
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?(Z|z|[+-]\d\d:\d\d)?", re.ASCII
)
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)
_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": _NS, "m": 60 * _NS, "h": 3600 * _NS}


def now_ns() -> int:
    return time.time_ns()


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def rfc3339_nano(ns: int) -> str:
    """Go's time.RFC3339Nano in UTC: trailing zeros of the fraction are cut."""
    seconds, fraction = divmod(ns, _NS)
    return f"{_second(seconds)}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


def rfc3339_nano_fixed(ns: int) -> str:
    """As above with all nine digits kept: what `docker logs --timestamps` prints."""
    seconds, fraction = divmod(ns, _NS)
    return f"{_second(seconds)}.{fraction:09d}Z"


@lru_cache(maxsize=4096)  # lists ask for the same times again and again
def parse_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch. Raises Invalid."""
    match = _RFC3339.fullmatch(text)
    if not match:
        raise Invalid(f"invalid time {text!r}: want RFC 3339, such as 2026-01-31T12:00:00Z")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        days = date(int(year), int(month), int(day)).toordinal() - _EPOCH
    except ValueError:
        raise Invalid(f"invalid time {text!r}: there is no such day") from None
    moment = ((days * 24 + int(hour or 0)) * 60 + int(minute or 0)) * 60 + int(second or 0)
    if zone and zone not in "Zz":
        sign = 1 if zone[0] == "+" else -1
        moment -= sign * (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60)
    return moment * _NS + int((fraction or "0").ljust(9, "0"))


def parse_duration(text: str) -> int:
    """A Go duration (`1h30m`, `1.5s`, `-10ms`) in nanoseconds. Raises Invalid."""
    body = text.lstrip("+-")
    parts = _DURATION_PART.findall(body)
    if not body or (body != "0" and "".join(number + unit for number, unit in parts) != body):
        raise Invalid(f"invalid duration {text!r}")
    if len(body) > _LONGEST:
        raise Invalid(f"invalid duration {text!r}: too long")
    total = sum(round(float(number) * _UNITS[unit]) for number, unit in parts)
    return -total if text.startswith("-") else total


def duration_text(ns: int) -> str:
    """As Go prints a duration: `500ms`, `1.5s`, `1m30s`, `1h0m0s`."""
    if 0 < ns < _NS:
        unit = next((unit for unit in ("ms", "µs") if ns >= _UNITS[unit]), "ns")
        return f"{_decimal(ns, _UNITS[unit])}{unit}"
    minutes, rest = divmod(ns, 60 * _NS)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{head}{_decimal(rest, _NS)}s"


def _decimal(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    digits = str(fraction).rjust(len(str(unit)) - 1, "0").rstrip("0") if fraction else ""
    return f"{whole}.{digits}" if digits else str(whole)


def parse_moment(text: str, *, now: int) -> int:
    """`since`/`until`: Unix seconds with optional fraction, RFC 3339, or a duration before `now`. Nanoseconds."""
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text) and len(text) <= _LONGEST:
        whole, _, fraction = text.partition(".")
        return int(whole) * _NS + int(fraction[:9].ljust(9, "0") or 0)
    if _RFC3339.fullmatch(text):
        return parse_rfc3339(text)
    return now - parse_duration(text)
