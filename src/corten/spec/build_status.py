"""What a build says while it goes on, for machines: BuildKit's SolveStatus, in the JSON that `docker buildx build --progress=rawjson` prints. Values only.

Source: moby/buildkit client/graph.go. Times are RFC 3339 with nanoseconds; a vertex is named by its digest and is told anew, whole, whenever it changes.
"""

from __future__ import annotations

import msgspec

PROGRESS = "corten.progress"  # the `id` of the message of `POST /build` that has one of these as its `aux`
CANCELED = "context canceled"  # Go's text, the end of a vertex's error: it was stopped, and did not fail


class StatusVertex(msgspec.Struct, frozen=True, omit_defaults=True):
    """Begun if it has `started`, ended if it has `completed`; `error` says of what."""

    digest: str
    inputs: tuple[str, ...] = ()
    name: str = ""
    started: str = ""
    completed: str = ""
    cached: bool = False
    error: str = ""


class StatusEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something under way in a vertex: `id` is its text, `current` of `total` its bytes (total 0: unknown, both 0: it has none)."""

    id: str
    vertex: str
    current: int
    timestamp: str
    total: int = 0
    started: str = ""
    completed: str = ""


class StatusLog(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step's program wrote: to `stream` 1 (stdout) or 2 (stderr). JSON has the data as base64."""

    vertex: str
    stream: int
    data: bytes
    timestamp: str


class BuildStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """One piece of the stream: the vertices first, then what belongs to them."""

    vertexes: tuple[StatusVertex, ...] = ()
    statuses: tuple[StatusEntry, ...] = ()
    logs: tuple[StatusLog, ...] = ()
