"""A build as a picture for a terminal: what each line says and how it is coloured. Pure; drawing it is terminal.py's.

Source: moby/buildkit util/progress/progressui/display.go for what is shown and how it is aligned.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from corten.cli.build_view.trace import Trace, TracedVertex, bytes_text, clean

RUNNING, DONE, STOPPED, FAILED, LOG = "", "34", "33", "31", "2"  # SGR: plain, blue, yellow, red, faint
_LOG_LINES = 6  # of a step that runs
_ROOM = 2  # rows that stay free: the header, and the one that the cursor is on


@dataclass(frozen=True)
class Line:
    """`style` is an SGR parameter, empty for none; `left` is cut where `right` has to have its place."""

    left: str
    right: str = ""
    style: str = RUNNING

    def text(self, width: int) -> str:
        """Exactly what fits, the right part at the edge."""
        room = width - len(self.right) - 1 if self.right else width
        left = cut(self.left, max(0, room))
        return f"{left}{' ' * (width - cells(left) - len(self.right))}{self.right}" if self.right and room > 0 else left


@dataclass(frozen=True)
class _Job:
    """A vertex or an entry of one, as a line; `logs` may be left out."""

    line: Line
    running: bool
    logs: tuple[Line, ...] = ()


def frame(trace: Trace, now: int, height: int, *, last: bool = False) -> list[Line]:
    """`now` in nanoseconds. Of a frame that is not the `last` no more than fits; what runs is shown before what has ended, and steps before their logs."""
    jobs = [job for vertex in trace.started for job in _jobs(vertex, now)]
    done, total = trace.completed, len(trace.vertices)
    began = trace.started[0].started if trace.started else now
    finished = " FINISHED" if last and done == total and total else ""
    header = Line(f"[+] Building {max(0, now - began) / 1e9:.1f}s ({done}/{total}){finished}")
    if last:
        return [header, *(job.line for job in jobs)]
    room = max(0, height - _ROOM)
    jobs = _fitting(jobs, room)
    return [header, *_with_logs(jobs, room - len(jobs))]


def _fitting(jobs: list[_Job], room: int) -> list[_Job]:
    """The newest, but nothing that runs is left out for something that has ended."""
    too_many = len(jobs) - room
    for wanted in (False, True):
        kept: list[_Job] = []
        for job in jobs:
            if too_many > 0 and job.running == wanted:
                too_many -= 1
            else:
                kept.append(job)
        jobs = kept
    return jobs


def _with_logs(jobs: list[_Job], room: int) -> Iterator[Line]:
    """The rows that are left over go to those who say something, as equal as it goes."""
    asking = sum(bool(job.logs) for job in jobs)
    for job in jobs:
        yield job.line
        if job.logs:
            share = min(len(job.logs), room // asking)
            asking, room = asking - 1, room - share
            yield from job.logs[len(job.logs) - share :]


def _jobs(vertex: TracedVertex, now: int) -> Iterator[_Job]:
    word, style = _outcome(vertex)
    logs = tuple(Line(f" => => # {text}", style=LOG) for text in vertex.tail(_LOG_LINES)) if vertex.is_running else ()
    yield _Job(Line(f" => {word}{clean(vertex.name)}", _timer(vertex.seconds(now)), style), vertex.is_running, logs)
    for entry in vertex.entries.values():
        running = not entry.completed and vertex.is_running
        seconds = max(0, (entry.completed or vertex.completed or now) - entry.started) / 1e9
        size = bytes_text(entry)
        yield _Job(Line(f" => => {clean(entry.id)}{f' {size}' if size else ''}", _timer(seconds), RUNNING if running else DONE), running)


def _outcome(vertex: TracedVertex) -> tuple[str, str]:
    if vertex.canceled:
        return "CANCELED ", STOPPED
    if vertex.error:
        return "ERROR ", FAILED
    return ("CACHED " if vertex.cached else ""), DONE if vertex.completed else RUNNING


def _timer(seconds: float) -> str:
    return f" {0 if seconds < 0.05 else seconds:.1f}s"


def cells(text: str) -> int:
    """How many columns a text takes."""
    return len(text) if text.isascii() else sum(map(_width, text))


def cut(text: str, width: int) -> str:
    """As much of it as takes no more than `width` columns."""
    if text.isascii():
        return text[:width]
    used = 0
    for at, letter in enumerate(text):
        used += _width(letter)
        if used > width:
            return text[:at]
    return text


def _width(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
