"""Parser directives: the comments at the very top of a Dockerfile that change how it is read. Pure.

Source: Dockerfile reference, "Parser directives". Must not know what a directive is for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from corten.builder.source import Span, syntax_error

KNOWN = ("syntax", "escape", "check")
BOM = "\ufeff"
_DIRECTIVE = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")


@dataclass(frozen=True)
class Directive:
    value: str
    line: int


@dataclass
class DirectiveReader:
    """Takes the lines of a file from the first on; whatever is not a known directive ends the block."""

    found: dict[str, Directive] = field(default_factory=dict)
    _ended: bool = False

    def take(self, line: str, number: int) -> bool:
        """Whether the line is a directive. Raises DockerfileSyntax for one that comes twice."""
        match = None if self._ended or not line.startswith("#") else _DIRECTIVE.fullmatch(line[1:].lstrip())
        name = match[1].lower() if match else ""
        if not match or name not in KNOWN:
            self._ended = True
            return False
        if name in self.found:
            raise syntax_error(f"only one {name} parser directive can be used", Span(number, number), match[1])
        self.found[name] = Directive(match[2], number)
        return True


def read_directives(text: str) -> dict[str, Directive]:
    """All of them, also below a `#!` line (which ends the block for the parser itself: escape is then not looked for)."""
    reader = DirectiveReader()
    for number, line in enumerate(text.removeprefix(BOM).split("\n"), 1):
        if number == 1 and line.startswith("#!"):
            continue
        if not reader.take(line.rstrip("\r"), number):
            break
    return reader.found
