"""What a pull or a push says, a line for each step on standard error. Rendering only."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any


def show(messages: Iterable[dict[str, Any]], *, quiet: bool) -> None:
    """Reads to the end, quiet or not: that is when the transfer is done."""
    last: dict[str, str] = {}
    for message in messages:
        identifier, status = message.get("id", ""), message.get("status", "")
        if quiet or not status or last.get(identifier) == status:
            continue
        last[identifier] = status
        print(f"{identifier}: {status}" if identifier else status, file=sys.stderr)
