"""Go's path.Match, which Docker's reference filter is: `*` and `?` match no slash. Pure. Source: pkg.go.dev/path#Match."""

from __future__ import annotations

import re
from functools import lru_cache

from corten.errors import Invalid


class BadPattern(Invalid):
    template = "syntax error in pattern"


@lru_cache(maxsize=64)
def path_pattern(pattern: str) -> re.Pattern[str]:
    """As a regular expression for fullmatch. Raises BadPattern."""
    found, position = "", 0
    while position < len(pattern):
        mark = pattern[position]
        if mark == "[":
            part, position = _set(pattern, position + 1)
            found += part
            continue
        if mark == "\\":
            position += 1
            if position == len(pattern):
                raise BadPattern
            mark = pattern[position]
            found += re.escape(mark)
        else:
            found += {"*": "[^/]*", "?": "[^/]"}.get(mark) or re.escape(mark)
        position += 1
    return re.compile(found, re.DOTALL)


def _set(pattern: str, position: int) -> tuple[str, int]:
    """(a set's expression, where it ends); `position` is behind its bracket."""
    negated = pattern.startswith("^", position)
    position += negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and pattern.startswith("]", position)):
        low, position = _member(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _member(pattern, position + 1)
        ranges.append((low, high))
    possible = [f"{re.escape(low)}-{re.escape(high)}" for low, high in ranges if low <= high]
    if not possible:
        return ("." if negated else "(?!)"), position + 1
    return f"[{'^' if negated else ''}{''.join(possible)}]", position + 1


def _member(pattern: str, position: int) -> tuple[str, int]:
    if pattern.startswith("\\", position):
        position += 1
    elif pattern[position : position + 1] in ("-", "]"):
        raise BadPattern
    if position >= len(pattern):
        raise BadPattern
    return pattern[position], position + 1
