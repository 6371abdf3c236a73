"""Go's filepath.Match as regular expressions: what COPY's sources and ignore files are written in. Pure.

Source: Go's path/filepath, "Match": `*` and `?` stop at a slash, `[a-z]` and `[^a-z]` are classes, a backslash takes the next one as it is.
"""

from __future__ import annotations

import re
from functools import lru_cache

from corten.errors import Invalid

_SPECIAL = frozenset("*?[\\")


class BadPattern(Invalid):
    template = "syntax error in pattern: {pattern}"


def is_pattern(text: str) -> bool:
    return not _SPECIAL.isdisjoint(text)


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """Of one name, without slashes. Raises BadPattern."""
    pieces, at = [""], 0
    while at < len(pattern):
        if pattern[at] == "*":
            pieces.append("")
            at += 1
        else:
            text, at = one(pattern, at)
            pieces[-1] += text
    return re.compile(starred(pieces), re.DOTALL)


def starred(pieces: list[str]) -> str:
    """The expression of what stars stand between. Each but the last takes as little as it can and gives nothing back: that keeps it linear."""
    if len(pieces) == 1:
        return pieces[0]
    return pieces[0] + "".join(f"(?>[^/]*?{piece})" for piece in pieces[1:-1]) + f"[^/]*{pieces[-1]}"


def one(pattern: str, at: int) -> tuple[str, int]:
    """The expression of what begins at `at` and is no star, and where that ends. Raises BadPattern."""
    char = pattern[at]
    at += 1
    if char == "?":
        return "[^/]", at
    if char == "[":
        return _class(pattern, at)
    if char == "\\":
        if at == len(pattern):
            raise BadPattern(pattern=pattern)
        char, at = pattern[at], at + 1
    return re.escape(char), at


def _class(pattern: str, at: int) -> tuple[str, int]:
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges = ""
    while True:
        if ranges and pattern[at : at + 1] == "]":
            return f"[{'^' if negated else ''}{ranges}]", at + 1
        low, at = _letter(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _letter(pattern, at + 1)
        if low > high:
            return "(?!)", _skip(pattern, at)
        ranges += f"{re.escape(low)}-{re.escape(high)}"


def _letter(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at : at + 1] in ("", "-", "]"):
        raise BadPattern(pattern=pattern)
    if pattern[at] == "\\":
        at += 1
        if at == len(pattern):
            raise BadPattern(pattern=pattern)
    return pattern[at], at + 1


def _skip(pattern: str, at: int) -> int:
    end = pattern.find("]", at)
    if end < 0:
        raise BadPattern(pattern=pattern)
    return end + 1
