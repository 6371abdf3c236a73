"""A build as lines, in BuildKit's form: `#4 [2/3] RUN make`, `#4 0.211 cc -o x x.c`, `#4 DONE 1.3s`. One vertex is told at a time.

Source: moby/buildkit util/progress/progressui/printer.go for the form, and for when another vertex gets its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from corten.cli.build_view.trace import Entry, Trace, TracedVertex, bytes_text, error_logs
from corten.spec.build_status import BuildStatus

_PATIENCE = 5_000_000_000  # nanoseconds that a vertex with news waits for one that goes on and on
_STEP = 0.05  # part of a transfer that is worth a line of its own
_AT_ONCE = 100_000_000  # nanoseconds: what is over by then gets one line
_SILENCE = 5_000_000_000  # nanoseconds after which it gets one anyway


class Plain:
    def __init__(self, write: Callable[[str], object]) -> None:
        self.trace, self._write = Trace(), write
        self._waiting: dict[str, int] = {}  # vertices with news -> since when (nanoseconds)
        self._current = ""
        self._line_open = False
        self._printed: dict[tuple[str, str], Entry] = {}
        self._numbers = 0

    def take(self, status: BuildStatus, now: int) -> None:
        for digest in self.trace.take(status):
            self._waiting.setdefault(digest, now)
        self.refresh(now)

    def refresh(self, now: int) -> None:
        """Tell what is due."""
        ended = [digest for digest in self._waiting if self.trace.vertices[digest].completed]
        for digest in sorted(ended, key=lambda each: (each != self._current, self.trace.vertices[each].completed)):
            self._tell(digest, now)
        if self._current:
            if self._current in self._waiting:
                self._tell(self._current, now)
            late = [digest for digest, since in self._waiting.items() if now - since > _PATIENCE]
            if late:
                self._tell(late[0], now)
        else:
            running = (vertex.digest for vertex in self.trace.started if vertex.is_running)
            following = next(iter(self._waiting), "") or (next(running, "") if ended else "")
            if following:
                self._tell(following, now)

    def end(self, now: int) -> None:
        self.refresh(now)
        for digest in list(self._waiting):
            self._tell(digest, now)
        self._close_line()
        for line in error_logs(self.trace):
            self._write(f"{line}\n")

    def _tell(self, digest: str, now: int) -> None:
        vertex = self.trace.vertices[digest]
        if not vertex.started:
            return  # an entry of something that never began
        self._turn_to(vertex)
        self._waiting.pop(digest, None)
        self._entries(vertex, now)
        if vertex.changed_entries:
            self._waiting[digest] = now
        self._log(vertex)
        if vertex.completed:
            self._close_line()
            self._write(f"#{vertex.number} {_outcome(vertex)}\n")
            self._current = ""

    def _turn_to(self, vertex: TracedVertex) -> None:
        if vertex.digest == self._current:
            return
        if self._current:
            self._close_line()
            self._write(f"#{self.trace.vertices[self._current].number} ...\n")
        if self._numbers:
            self._write("\n")
        if not vertex.number:
            self._numbers += 1
            vertex.number = self._numbers
        self._write(f"#{vertex.number} {vertex.name}\n")
        self._current = vertex.digest

    def _entries(self, vertex: TracedVertex, now: int) -> None:
        """Those that have only begun wait."""
        changed, vertex.changed_entries = vertex.changed_entries, set()
        for entry in [vertex.entries[name] for name in vertex.entries if name in changed]:
            key = (vertex.digest, entry.id)
            if not entry.completed and key not in self._printed and now - entry.started < _AT_ONCE and not vertex.completed:
                vertex.changed_entries.add(entry.id)
            elif entry.completed or _is_worth_a_line(self._printed.get(key), entry):
                self._printed[key] = entry
                self._close_line()
                self._write(f"#{vertex.number} {_entry_text(entry)}\n")

    def _log(self, vertex: TracedVertex) -> None:
        """A line without an end is gone on with while nothing else comes between."""
        fresh, vertex.fresh = vertex.fresh, []
        for text, begins in fresh:
            if begins or not self._line_open:
                self._close_line()
                self._write(f"#{vertex.number} ")
            self._write(text)
            self._line_open = not text.endswith("\n")

    def _close_line(self) -> None:
        if self._line_open:
            self._write("\n")
            self._line_open = False


def _is_worth_a_line(before: Entry | None, now: Entry) -> bool:
    if before is None:
        return True
    moved = (now.current - before.current) / now.total if now.total else 0
    return moved >= _STEP or now.timestamp - before.timestamp >= _SILENCE


def _entry_text(entry: Entry) -> str:
    size = bytes_text(entry)
    seconds = ((entry.completed or entry.timestamp) - entry.started) / 1e9
    words: Iterable[str] = (entry.id, size, f"{seconds:.1f}s" if seconds > 0.01 else "", "done" if entry.completed else "")
    return " ".join(filter(None, words))


def _outcome(vertex: TracedVertex) -> str:
    if vertex.canceled:
        return "CANCELED"
    if vertex.error:
        return f"ERROR: {vertex.error}"
    return "CACHED" if vertex.cached else f"DONE {vertex.seconds(0):.1f}s"
