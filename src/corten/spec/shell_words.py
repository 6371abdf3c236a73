"""Words of a Dockerfile instruction: split, unquoted, variables put in. Pure.

Source: Dockerfile reference, "Environment replacement"; Docker Engine 28.5's answers. A backslash is the escape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from corten.errors import Invalid

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#]")


def split_words(text: str) -> list[str]:
    """At blanks that are neither quoted nor escaped. Quotes and escapes stay, for expand() to take away."""
    words: list[str] = []
    word, quote, started = "", "", False
    letters = iter(text)
    for letter in letters:
        if not quote and letter.isspace():
            if started:
                words.append(word)
            word, started = "", False
            continue
        started = True
        word += letter
        if letter == "\\" and quote != "'":
            word += next(letters, "")
        elif letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote = letter
    return [*words, word] if started else words


def expand(word: str, variables: Mapping[str, str]) -> str:
    """Quotes taken away, `$NAME` and `${NAME}` (with `:-`, `:+`, `-`, `+`) put in. Raises Invalid for what does not end."""
    return "".join(_pieces(word, variables))


def _pieces(word: str, variables: Mapping[str, str]) -> Iterator[str]:
    at, double = 0, False
    while at < len(word):
        letter = word[at]
        if letter == "'" and not double:
            end = word.find("'", at + 1)
            if end < 0:
                raise Invalid("unexpected end of statement while looking for matching single-quote")
            yield word[at + 1 : end]
            at = end + 1
        elif letter == '"':
            double = not double
            at += 1
        elif letter == "\\":
            following = word[at + 1 : at + 2]
            # Between double quotes only what means something there can be escaped.
            yield following if following in ('"', "$", "\\") or not double else f"\\{following}"
            at += 2
        elif letter == "$":
            value, at = _variable(word, at, variables)
            yield value
        else:
            yield letter
            at += 1
    if double:
        raise Invalid("unexpected end of statement while looking for matching double-quote")


def _variable(word: str, at: int, variables: Mapping[str, str]) -> tuple[str, int]:
    """What stands for the `$` at `at`, and where to go on."""
    if word[at + 1 : at + 2] != "{":
        name = _NAME.match(word, at + 1)
        return (variables.get(name[0], ""), name.end()) if name else ("$", at + 1)
    name = _NAME.match(word, at + 2)
    end = _closing(word, at + 2)
    if not name or end < 0:
        raise Invalid("syntax error: missing '}'" if end < 0 else "syntax error: bad substitution")
    value, rest = variables.get(name[0]), word[name.end() : end]
    if not rest:
        return value or "", end + 1
    needs_content = rest.startswith(":")
    operator, other = rest.removeprefix(":")[:1], rest.removeprefix(":")[1:]
    there = bool(value) if needs_content else value is not None
    if operator == "-":
        return (value or "") if there else expand(other, variables), end + 1
    if operator == "+":
        return expand(other, variables) if there else "", end + 1
    if operator == "?":
        if there:
            return value or "", end + 1
        raise Invalid(f"{name[0]}: {other or 'not set'}")
    raise Invalid(f"unsupported modifier ({rest[:1] if not needs_content else rest[:2]}) in substitution")


def _closing(word: str, at: int) -> int:
    depth = 1
    while at < len(word):
        if word.startswith("${", at):
            depth, at = depth + 1, at + 1
        elif word[at] == "\\":
            at += 1
        elif word[at] == "}":
            depth -= 1
            if not depth:
                return at
        at += 1
    return -1
