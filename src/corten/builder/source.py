"""Where in a Dockerfile something is, and errors that know it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from corten.errors import DockerfileError, DockerfileSyntax, Invalid
from corten.spec.source_excerpt import excerpt


@dataclass(frozen=True)
class Span:
    """Lines of the Dockerfile, counted from 1, both included."""

    first: int
    last: int


@dataclass(frozen=True)
class Written:
    """How it stands in the file: its name and its whole text, lines joined. `comments` are those right above."""

    name: str
    text: str
    span: Span
    comments: tuple[str, ...] = ()


def syntax_error(reason: str, span: Span, word: str = "") -> DockerfileSyntax:
    return DockerfileSyntax(reason=reason, line=span.first, last_line=span.last, word=word)


def located(error: Invalid, span: Span, word: str = "") -> DockerfileError:
    """The same error with its place; one that has a place keeps it."""
    if isinstance(error, DockerfileError):
        return error
    return DockerfileError(reason=error.message, line=span.first, last_line=span.last, word=word)


def shown(error: DockerfileError, source: str, name: str) -> DockerfileError:
    """The same error with its place below: what a client prints."""
    place = excerpt(source, error.line, error.last_line, error.word, name)
    found = type(error)(reason=f"{error.reason}\n{place}", line=error.line, last_line=error.last_line, word=error.word)
    found.http_status = error.http_status
    return found
