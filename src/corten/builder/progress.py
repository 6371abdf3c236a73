"""What a build says while it goes on: one stream of typed values, from which every front makes its own form. Values only.

Vertices are named by their digest. Of one vertex the order is Started, then any of Said and Told, then one of Finished and Failed; of
different vertices they mix. Times are nanoseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corten.errors import CortenError

if TYPE_CHECKING:  # the cache has a Difference without knowing the graph
    from corten.builder.graph import Vertex


@dataclass(frozen=True)
class Started:
    vertex: Vertex
    time: int
    container: str = ""  # the id of the sandbox that a RUN step runs in


@dataclass(frozen=True)
class Said:
    """What a step's program wrote; `stream` is stdout or stderr."""

    vertex: Vertex
    stream: str
    data: bytes


@dataclass(frozen=True)
class Told:
    """How far something is: a status, of how much."""

    vertex: Vertex
    status: str
    current: int = 0
    total: int = 0


@dataclass(frozen=True)
class Difference:
    """Why a step was not found in the cache: the first ingredient that differs from the nearest run. Empty values: it has none."""

    ingredient: str
    now: str
    cached: str


@dataclass(frozen=True)
class Finished:
    """`chain` is the result's layers (a folder has none). `missed` is set where the cache had something like it and not this.

    `revision`: the commit or digest of a source that is at an address.
    """

    vertex: Vertex
    time: int
    cached: bool
    chain: tuple[str, ...] = ()
    missed: Difference | None = None
    revision: str = ""


@dataclass(frozen=True)
class Failed:
    vertex: Vertex
    time: int
    error: CortenError


Progress = Started | Said | Told | Finished | Failed
Emit = Callable[[Progress], None]
