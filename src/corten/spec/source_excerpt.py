"""How a place in a source file is shown: the lines around it, marked, a caret under the word. Pure."""

from __future__ import annotations

_AROUND = 2  # lines shown before and after


def excerpt(source: str, first: int, last: int, word: str = "", name: str = "Dockerfile") -> str:
    """Lines `first` to `last` (from 1) as `docker build` shows them. The caret line is there where `word` is in one of them."""
    lines = source.split("\n")
    last = max(first, last)
    out = [f"{name}:{first}", "-" * 20]
    marked = False
    for number in range(max(1, first - _AROUND), min(len(lines), last + _AROUND) + 1):
        text, inside = lines[number - 1].rstrip("\r"), first <= number <= last
        out.append(f"{number:4d} | {'>>>' if inside else '   '} {text}".rstrip())
        column = text.find(word) if word and inside and not marked else -1
        if column >= 0:
            marked = True
            out.append(f"     |     {''.join(each if each.isspace() else ' ' for each in text[:column])}{'^' * len(word)}")
    return "\n".join([*out, "-" * 20])
