"""The `filters=` query parameter in both shapes that clients send. Pure.

`{"k":["v"]}` is the documented shape; `{"k":{"v":true}}` is what Docker's Go client sends. One shape for all keys.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, cast

import msgspec

from corten.errors import Invalid, InvalidFilter
from corten.spec.foreign_json import decode
from corten.spec.timestamps import parse_moment

Filters = dict[str, list[str]]


def parse_filters(text: str, allowed: frozenset[str]) -> Filters:
    """Raises Invalid for bad JSON, InvalidFilter for a key that the endpoint does not know."""
    filters = parse_any_filters(text)
    for key in filters:
        if key not in allowed:
            raise InvalidFilter(name=key)
    return filters


def parse_any_filters(text: str) -> Filters:
    """Of an endpoint that passes over keys that it does not know. Raises Invalid for bad JSON."""
    if not text:
        return {}
    for shape in (dict[str, dict[str, bool]], Filters):
        with suppress(msgspec.DecodeError, UnicodeEncodeError):
            found: dict[str, dict[str, bool] | list[str]] = decode(text, cast("type[Any]", shape))
            return {key: values if isinstance(values, list) else [value for value, on in values.items() if on] for key, values in found.items()}
    raise Invalid("invalid filter")


def matches_labels(wanted: list[str], labels: dict[str, str]) -> bool:
    """Every wanted `key` or `key=value` is present."""
    for want in wanted:
        key, equals, value = want.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def matches_pattern(patterns: list[str], text: str) -> bool:
    """One of the values is the text or, as a regular expression, is found in it; a bad expression matches nothing."""
    for pattern in patterns:
        if pattern == text:
            return True
        try:
            if re.search(pattern, text):
                return True
        except re.error:
            continue
    return not patterns


def one_flag(filters: Filters, key: str) -> bool | None:
    """The value of a filter that takes one truth value; None if it is not asked for. Raises Invalid as Docker words it."""
    if key not in filters:
        return None
    values = filters[key]
    known = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
    if len(values) != 1 or values[0].lower() not in known:
        raise Invalid(f"invalid filter '{key}=[{' '.join(sorted(values))}]'")
    return known[values[0].lower()]


def until_limit(values: list[str], now: int) -> int | None:
    """The moment of an `until` filter; None where there is none. Raises Invalid with Docker's texts."""
    if len(values) > 1:
        raise Invalid("more than one until filter specified")
    try:
        return parse_moment(values[0], now=now) if values else None
    except Invalid:
        raise Invalid(f'failed to parse value as time or duration: "{values[0]}"') from None
