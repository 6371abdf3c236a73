"""The flags of HEALTHCHECK, in a Dockerfile and in commit's changes. Pure; the texts are Docker's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from corten.errors import Invalid
from corten.spec.timestamps import parse_duration

HEALTH_FLAGS = ("interval", "timeout", "start-period", "start-interval", "retries")
_MILLISECOND = 1_000_000


def health_settings(flags: Mapping[str, str]) -> dict[str, int]:
    """Fields of Healthcheck: nanoseconds, and a number of retries. Raises Invalid."""
    return {
        name.replace("-", "_"): _retries(value) if name == "retries" else _interval(name, value) for name, value in flags.items() if value
    }


def _retries(value: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,10}", value):
        raise Invalid(f'strconv.ParseInt: parsing "{value}": invalid syntax')
    if int(value) < 0:
        raise Invalid(f"--retries cannot be negative ({int(value)})")
    return int(value)


def _interval(name: str, value: str) -> int:
    try:
        length = parse_duration(value)
    except Invalid:
        raise Invalid(f'time: invalid duration "{value}"') from None
    if length and length < _MILLISECOND:
        raise Invalid(f'Interval "{name}" cannot be less than 1ms')
    return length
