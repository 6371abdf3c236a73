"""The `filters=` query parameter in both shapes that clients send. Pure.

`{"k":["v"]}` is the documented shape; `{"k":{"v":true}}` is what Docker's Go client sends.
"""

from __future__ import annotations

import msgspec

from corten.errors import Invalid, InvalidFilter

Filters = dict[str, list[str]]


def parse_filters(text: str, allowed: frozenset[str]) -> Filters:
    """Raises Invalid for bad JSON, InvalidFilter for a key that the endpoint does not know."""
    if not text:
        return {}
    try:
        shapes = msgspec.json.decode(text, type=dict[str, list[str] | dict[str, bool]])
    except msgspec.DecodeError:
        raise Invalid("invalid filter") from None
    for key in shapes:
        if key not in allowed:
            raise InvalidFilter(name=key)
    return {
        key: values if isinstance(values, list) else [value for value, on in values.items() if on]
        for key, values in shapes.items()
    }


def matches_labels(wanted: list[str], labels: dict[str, str]) -> bool:
    """Every wanted `key` or `key=value` is present."""
    for want in wanted:
        key, equals, value = want.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True
