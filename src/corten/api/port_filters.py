"""The filters `publish`, `expose`, `is-task` and `isolation` of the container list, checked before any container is looked at. Pure.

Source: Docker Engine 28.5 (moby daemon/list.go): ports as `80`, `80/udp` or `80-90/tcp`; publish and expose are one filter of two names;
there are no tasks without swarm; on Linux every container has the isolation that is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from corten.errors import Invalid
from corten.spec.filters import Filters

Port = tuple[int, str]
_BOOLEANS = {"1": True, "true": True, "True": True, "0": False, "false": False, "False": False}


def wants_tasks(filters: Filters) -> bool:
    """Whether nothing can match. Raises Invalid."""
    values = filters.get("is-task", [])
    if any(value not in _BOOLEANS for value in values) or len(set(values)) > 1:
        raise Invalid(f"invalid filter 'is-task=[{' '.join(values)}]'")
    return bool(values) and _BOOLEANS[values[0]]


def parse_ports(key: str, values: Sequence[str]) -> set[Port]:
    """Raises Invalid with Docker's texts."""
    found: set[Port] = set()
    for value in values:
        if ":" in value:
            raise Invalid(f"filter for '{key}' should not contain ':': {value}")
        ports, _, protocol = value.partition("/")
        first, dash, last = ports.partition("-")
        numbers = [first, last] if dash else [first, first]
        if not all(number.isascii() and number.isdecimal() and int(number) < 1 << 16 for number in numbers):
            raise Invalid(f"error while looking up for {key} {value}: invalid port number or range")
        low, high = map(int, numbers)
        if high < low:
            raise Invalid(f"error while looking up for {key} {value}: invalid range specified for port: {ports}")
        found |= {(number, (protocol or "tcp").lower()) for number in range(low, high + 1)}
    return found


def ports_match(shown: Sequence[dict[str, Any]], published: set[Port], exposed: set[Port]) -> bool:
    """`shown`: the container's Ports as the list has them. One of either set is enough; without a filter all match."""
    if not published and not exposed:
        return True
    return any((port.get("PublicPort"), port["Type"]) in published or (port["PrivatePort"], port["Type"]) in exposed for port in shown)
