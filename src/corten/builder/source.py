"""Where in a Dockerfile something is, and how a place is shown: the lines around it, marked, a caret under the word. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from corten.errors import DockerfileError, DockerfileSyntax, Invalid

_AROUND = 2  # lines shown before and after


@dataclass(frozen=True)
class Span:
    """Lines of the Dockerfile, counted from 1, both included."""

    first: int
    last: int


def syntax_error(reason: str, span: Span, word: str = "") -> DockerfileSyntax:
    return DockerfileSyntax(reason=reason, line=span.first, last_line=span.last, word=word)


def located(error: Invalid, span: Span, word: str = "") -> DockerfileError:
    """The same error with its place; one that has a place keeps it."""
    if isinstance(error, DockerfileError):
        return error
    return DockerfileError(reason=error.message, line=span.first, last_line=span.last, word=word)


def excerpt(source: str, error: DockerfileError, name: str = "Dockerfile") -> str:
    """The place of an error as `docker build` shows it, and a caret line below the wrong word where that is known."""
    lines = source.split("\n")
    first, last = error.line, max(error.line, error.last_line)
    shown = range(max(1, first - _AROUND), min(len(lines), last + _AROUND) + 1)
    out = [f"{name}:{first}", "-" * 20]
    marked = False
    for number in shown:
        text, inside = lines[number - 1].rstrip("\r"), first <= number <= last
        out.append(f"{number:4d} | {'>>>' if inside else '   '} {text}")
        column = text.find(error.word) if error.word and inside and not marked else -1
        if column >= 0:
            marked = True
            out.append(f"     |     {''.join(c if c.isspace() else ' ' for c in text[:column])}{'^' * len(error.word)}")
    return "\n".join([*out, "-" * 20])
