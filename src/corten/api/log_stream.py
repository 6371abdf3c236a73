"""`GET /containers/{id}/logs` and the replay of attach: the query's window over the engine's runs, framed for the client.

Docker's answers have a frame a line; a run's frames are made at once.
"""

from __future__ import annotations

import struct
from contextlib import aclosing
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, repeat
from urllib.parse import quote_plus

from aiohttp import web

from corten.api.call import Call
from corten.api.streams import MULTIPLEXED_STREAM, RAW_STREAM, frame
from corten.api.versions import Since
from corten.engine.log_setup import KeptLog
from corten.engine.logs import Following, read_log
from corten.errors import Invalid
from corten.spec.log_lines import LINE_LIMIT, Run
from corten.spec.timestamps import now_ns, rfc3339_nano_fixed


@dataclass(frozen=True)
class Window:
    """Which lines are wanted, and how they are shown. Times are nanoseconds since the epoch; `until` 0 is no end."""

    streams: frozenset[str]
    framed: bool
    since: int = 0
    until: int = 0
    timestamps: bool = False
    details: bool = False

    def over(self, run: Run) -> bool:
        return bool(self.until) and run.time > self.until

    def show(self, run: Run) -> bytes:
        """Empty for what is not wanted."""
        if run.time < self.since or run.stream not in self.streams:
            return b""
        before = b""
        if self.details:
            before = ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in run.attributes).encode() + b" "
        if self.timestamps:
            before = rfc3339_nano_fixed(run.time).encode() + b" " + before
        data = run.data
        if before:
            whole = data.endswith(b"\n")
            body = data[:-1] if whole else data
            data = before + body.replace(b"\n", b"\n" + before) + (b"\n" if whole else b"")
        return frames(run.stream, data) if self.framed else data


@lru_cache(maxsize=2)
def _heads(stream: str) -> list[bytes]:
    """The frame's head for every length of a line (without its newline)."""
    number = frame(stream, b"")[:1]
    return [number + struct.pack(">xxxI", length + 1) for length in range(LINE_LIMIT + 1)]


def frames(stream: str, data: bytes) -> bytes:
    """A frame for each line of `data`."""
    heads, first = _heads(stream), data.find(b"\n")
    if 0 <= first == len(data) - 1 <= LINE_LIMIT:
        return heads[first] + data
    lines = data.split(b"\n")
    rest = lines.pop()
    try:
        framed = b"".join(chain.from_iterable(zip(map(heads.__getitem__, map(len, lines)), lines, repeat(b"\n"))))
    except IndexError:  # a line over Docker's limit, with its prefix or from another writer
        framed = b"".join(frame(stream, line + b"\n") for line in lines)
    return framed + frame(stream, rest) if rest else framed


def parse_window(call: Call, *, framed: bool) -> Window:
    """Raises Invalid unless a stream is chosen, or for a time that is none."""
    wanted = frozenset(stream for stream in ("stdout", "stderr") if call.flag(stream))
    if not wanted:
        raise Invalid("Bad parameters: you must choose at least one stream")
    now = now_ns()
    since, until = call.moment("since", now=now) or 0, call.moment("until", now=now) or 0
    return Window(wanted, framed, since, until, call.flag("timestamps"), call.flag("details"))


def _tail(call: Call) -> int | None:
    text = call.text("tail")
    return int(text) if text.isdecimal() else None


async def log_response(call: Call, window: Window, kept: KeptLog, following: Following | None) -> web.StreamResponse:
    content_type = MULTIPLEXED_STREAM if window.framed and call.has(Since.MULTIPLEXED_TYPE) else RAW_STREAM
    response = web.StreamResponse(headers={"Content-Type": content_type})
    await response.prepare(call.request)
    async with aclosing(read_log(kept, _tail(call), following)) as blocks:
        async for runs in blocks:
            block = b"".join(window.show(run) for run in runs if not window.over(run))
            if block:
                await response.write(block)
            if window.over(runs[-1]):
                break
    await response.write_eof()
    return response
