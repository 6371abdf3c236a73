"""The engine's stream of JSON messages as lines on standard error: each step once."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any


def print_messages(messages: Iterable[dict[str, Any]], *, quiet: bool = False) -> dict[str, Any]:
    """Print what happens, and return the result that comes last (`aux`)."""
    last: dict[str, str] = {}
    result: dict[str, Any] = {}
    for message in messages:
        result = message.get("aux") or result
        identifier, status = message.get("id", ""), message.get("status", "")
        if status and not quiet and last.get(identifier) != status:
            last[identifier] = status
            print(f"{identifier}: {status}" if identifier else status, file=sys.stderr)
    return result
