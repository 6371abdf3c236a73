"""Rows in columns, and values as people read them."""

from __future__ import annotations

import time
from collections.abc import Sequence


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(len(titles))]
    lines = ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (titles, *rows)]
    return "\n".join(lines)


def size(count: float) -> str:
    """Decimal units, three digits: 1.98MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}TB"


_STEPS = ((60, "second"), (60, "minute"), (24, "hour"), (7, "day"), (4, "week"), (12, "month"))


def ago(moment: int) -> str:
    """`3 hours ago` for Unix seconds."""
    count = max(0, int(time.time()) - moment)
    name = "second"
    for step, unit in _STEPS:
        name = unit
        if count < step:
            break
        count //= step
    else:
        name = "year"
    return f"{count} {name}{'' if count == 1 else 's'} ago"


def short_id(identifier: str) -> str:
    return identifier.removeprefix("sha256:")[:12]
