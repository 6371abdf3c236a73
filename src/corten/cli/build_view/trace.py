"""What has been said of a build so far: its vertices, what is under way in them, the last lines of their logs. Values; nothing is shown here."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from corten.spec.build_status import CANCELED, BuildStatus, StatusEntry, StatusLog, StatusVertex
from corten.spec.timestamps import parse_rfc3339

_KEPT = 10  # lines of a log that are kept: those that are shown of a step that runs, and of one that failed
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])?")
_CONTROLS = dict.fromkeys([*range(32), *range(0x7F, 0xA0)])


def clean(text: str) -> str:
    """What a terminal would show of a line: no escape sequences, no control characters, and of a line that was written over only the end."""
    plain = _ESCAPES.sub("", text).rstrip("\r")
    return plain.rpartition("\r")[2].replace("\t", "    ").translate(_CONTROLS)


@dataclass
class Entry:
    """Times in nanoseconds; `completed` 0: under way."""

    id: str
    current: int
    total: int
    started: int
    timestamp: int
    completed: int


@dataclass
class TracedVertex:
    """`started` and `completed` in nanoseconds, 0: not yet. `error` is empty for one that was stopped (`canceled`).

    `lines` are the last lines of its log with the seconds at which they came, `partial` one that has no end yet; `fresh` what of it
    nobody has taken yet (text, whether its line begins there).
    """

    digest: str
    name: str = ""
    started: int = 0
    completed: int = 0
    cached: bool = False
    error: str = ""
    canceled: bool = False
    entries: dict[str, Entry] = field(default_factory=dict)
    changed_entries: set[str] = field(default_factory=set)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))
    partial: str = ""
    fresh: list[tuple[str, bool]] = field(default_factory=list)
    number: int = 0

    @property
    def is_running(self) -> bool:
        return bool(self.started and not self.completed)

    def seconds(self, now: int) -> float:
        return max(0, (self.completed or now) - self.started) / 1e9

    def tail(self, count: int) -> list[str]:
        """The last lines as a terminal would show them."""
        lines = [*self.lines, self.partial] if self.partial else [*self.lines]
        return [text for line in lines[-count:] if (text := clean(line.partition(" ")[2]))]

    def take_log(self, log: StatusLog) -> None:
        for piece in _lines(log.data):
            begins = not self.partial
            if begins:
                self.partial = f"{_seconds(parse_rfc3339(log.timestamp) - self.started)} "
                self.fresh.append((self.partial + piece, True))
            else:
                self.fresh.append((piece, False))
            self.partial += piece.rstrip("\n")
            if piece.endswith("\n"):
                self.lines.append(self.partial)
                self.partial = ""


def _lines(data: bytes) -> Iterator[str]:
    """Ended by line feeds only."""
    yield from (piece for piece in re.split(r"(?<=\n)", data.decode("utf-8", "replace")) if piece)


def _seconds(ns: int) -> str:
    """As BuildKit writes it: the more, the less exact."""
    seconds = max(0, ns) / 1e9
    return f"{seconds:.{3 if seconds < 10 else 2 if seconds < 100 else 1}f}"


class Trace:
    """`started` are the vertices that have begun, in that order."""

    def __init__(self) -> None:
        self.vertices: dict[str, TracedVertex] = {}
        self.started: list[TracedVertex] = []

    @property
    def completed(self) -> int:
        return sum(bool(vertex.completed) for vertex in self.vertices.values())

    def take(self, status: BuildStatus) -> list[str]:
        """The digests of the vertices of which something is new."""
        changed = dict.fromkeys(vertex.digest for vertex in status.vertexes if self._vertex(vertex))
        for entry in status.statuses:
            changed |= dict.fromkeys([entry.vertex] if self._entry(entry) else [])
        for log in status.logs:
            if log.vertex in self.vertices:
                self.vertices[log.vertex].take_log(log)
                changed[log.vertex] = None
        return list(changed)

    def _vertex(self, told: StatusVertex) -> bool:
        vertex = self.vertices.setdefault(told.digest, TracedVertex(told.digest))
        vertex.name = told.name
        if not told.started:
            return False
        if not vertex.started:
            self.started.append(vertex)
        vertex.started = parse_rfc3339(told.started)
        vertex.completed = parse_rfc3339(told.completed) if told.completed else 0
        vertex.cached, vertex.canceled = told.cached, told.error.endswith(CANCELED)
        vertex.error = "" if vertex.canceled else told.error
        return True

    def _entry(self, told: StatusEntry) -> bool:
        vertex = self.vertices.get(told.vertex)
        if vertex is None:
            return False
        time = parse_rfc3339(told.timestamp)
        vertex.entries[told.id] = Entry(
            told.id, told.current, told.total, parse_rfc3339(told.started) if told.started else time, time,
            parse_rfc3339(told.completed) if told.completed else 0,
        )  # fmt: skip
        vertex.changed_entries.add(told.id)
        return True


def bytes_text(entry: Entry) -> str:
    """`1.05MB / 2.10MB`, or what there is of it."""
    if entry.total:
        return f"{_size(entry.current)} / {_size(entry.total)}"
    return _size(entry.current) if entry.current else ""


def _size(count: float) -> str:
    if count < 1000:
        return f"{count:.0f}B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.2f}{unit}"
    return f"{count / 1000:.2f}TB"


def error_logs(trace: Trace) -> Iterator[str]:
    """For the end: of every step that failed the last lines of its log."""
    for vertex in trace.started:
        if vertex.error:
            yield "------"
            yield f" > {vertex.name}:"
            yield from vertex.lines
            if vertex.partial:
                yield vertex.partial
            yield "------"
