"""Ignore files: which paths of a context are left out. Pure; the same patterns serve `--exclude`.

Source: Docker docs, ".dockerignore file"; moby/patternmatcher, whose matching is kept to the letter: Go's filepath.Match plus `**`, the last
pattern that matches wins, a folder that matches takes what is in it along.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from corten.errors import Invalid
from corten.spec.paths import clean
from corten.spec.wildcards import one, starred


def read_patterns(text: str) -> tuple[str, ...]:
    """Of an ignore file: comments (`#` in the first column) left out, blanks and leading slashes taken off, `.` and `..` cleaned away."""
    found: list[str] = []
    for line in text.removeprefix("\ufeff").split("\n"):
        pattern = line.strip()
        if line.startswith("#") or not pattern:
            continue
        exception = pattern.startswith("!")
        pattern = pattern[1:].strip() if exception else pattern
        pattern = clean(pattern) if pattern else ""
        found.append("!" * exception + (pattern[1:] if len(pattern) > 1 and pattern[0] == "/" else pattern))
    return tuple(found)


def ignore_file_names(dockerfile: str) -> tuple[str, str]:
    """Where in a context the ignore file may be; the first that is there counts."""
    return f"{dockerfile}.dockerignore", ".dockerignore"


@dataclass(frozen=True)
class _Rule:
    """`exception` (`!`): what it matches is taken in again. `matches` takes a path or one below it."""

    exception: bool
    matches: re.Pattern[str]


class Ignore:
    """Patterns in their order. Raises Invalid for one that is malformed."""

    def __init__(self, patterns: Iterable[str]) -> None:
        rules = [rule for pattern in patterns if (rule := _rule(pattern))]
        self.has_rules = bool(rules)
        self.has_exceptions = any(rule.exception for rule in rules)
        self._rules = _merged(rules)[::-1]

    def ignores(self, path: str) -> bool:
        """Of a path with slashes, relative to the context, without `.` and `..`. The context itself is never ignored."""
        if path in ("", "."):
            return False
        return next((not rule.exception for rule in self._rules if rule.matches.fullmatch(path)), False)


def _merged(rules: list[_Rule]) -> list[_Rule]:
    """Neighbours of one kind become one expression: thousands of files are asked for."""
    found: list[_Rule] = []
    for rule in rules:
        if found and found[-1].exception == rule.exception:
            rule = _Rule(rule.exception, re.compile(f"{found.pop().matches.pattern}|{rule.matches.pattern}", re.DOTALL))  # noqa: PLW2901
        found.append(rule)
    return found


def _rule(pattern: str) -> _Rule | None:
    text = pattern.strip()
    if not text:
        return None
    text = clean(text)
    exception = text.startswith("!")
    if exception:
        text = text[1:]
        if not text:
            raise Invalid('illegal exclusion pattern: "!"')
    return _Rule(exception, re.compile(f"(?:{_expression(text)})(?:/.*)?", re.DOTALL))


@lru_cache(maxsize=1024)
def _expression(pattern: str) -> str:
    """`**` is any number of folders, and of anything at the end. At the beginning it is any text, if nothing else is special."""
    if pattern.startswith("**") and not re.search(r"[*?\[\]\\]", pattern[2:]):
        return f".*{re.escape(pattern[2:])}" + (f"|{re.escape(pattern[3:])}" if pattern.startswith("**/") else "")
    segments: list[list[str]] = [[""]]  # between the `**`, each a list of what is between its stars
    at, tail, at_folder = 0, "", True
    while at < len(pattern):
        if pattern.startswith("**", at):
            at_folder = at_folder and pattern[at - 1 : at] in ("", "/")
            at += 3 if pattern.startswith("**/", at) else 2
            if at >= len(pattern):
                tail = ".*"
            else:
                segments.append([""])
        elif pattern[at] == "*":
            segments[-1].append("")
            at += 1
        else:
            text, at = one(pattern, at)
            segments[-1][-1] += text
    return _joined(list(map(starred, segments)), give_back=not at_folder) + tail


def _joined(segments: list[str], *, give_back: bool) -> str:
    """The same for `**`, as far as each stands for whole folders (`a**b` does not)."""
    first, *more = segments
    if not more:
        return first
    middle = "".join(f"(?:.*/)?{each}" if give_back else f"(?>(?:.*?/)??{each})" for each in more[:-1])
    return f"{first}{middle}(?:.*/)?{more[-1]}"
