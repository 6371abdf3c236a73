"""Drawing a picture of lines on a terminal, each time over the one before. Must not know what the lines mean.

Only what every terminal of today has is used: cursor up, erase, no wrap at the edge (a letter whose width is misjudged makes no second row).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

from corten.cli.build_view.live import Line

_BEGIN = "\x1b[?25l\x1b[?7l"  # no cursor while it is drawn, no wrapping
_END = "\x1b[J\x1b[?7h\x1b[?25h"
_DEFAULT = (80, 24)  # of a terminal that does not say


def is_live(stream: TextIO) -> bool:
    """Whether pictures can be drawn there."""
    return stream.isatty() and os.environ.get("TERM", "") != "dumb"


class Terminal:
    """Draws in colours unless NO_COLOR is set (no-color.org)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._colours = stream, not os.environ.get("NO_COLOR")
        self._rows = 0

    def size(self) -> tuple[int, int]:
        """(columns, rows), as they are now."""
        columns, rows = os.get_terminal_size(self._stream.fileno())
        return columns or _DEFAULT[0], rows or _DEFAULT[1]

    def draw(self, lines: Sequence[Line], width: int) -> None:
        """In one write, so that nothing flickers."""
        up = f"\x1b[{self._rows}A" if self._rows else ""
        shown = "".join(f"{self._styled(line, width)}\x1b[K\n" for line in lines)
        self._stream.write(f"{_BEGIN}\r{up}{shown}{_END}")
        self._stream.flush()
        self._rows = len(lines)

    def _styled(self, line: Line, width: int) -> str:
        text = line.text(width)
        return f"\x1b[{line.style}m{text}\x1b[0m" if line.style and self._colours else text
