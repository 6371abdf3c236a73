"""One row of the table of endpoints. The rows are in routes.py."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from corten.api.call import Call

Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Stream:
    """An answer or a body that is no single JSON value."""

    content_type: str


@dataclass(frozen=True)
class Route:
    """`query`: name to bool, int, str, list[str] (may be repeated) or Filters. `body` and `answer`: a type, a Stream, or None."""

    methods: tuple[str, ...]
    path: str
    handler: Handler
    query: dict[str, Any] = field(default_factory=dict)
    body: Any = None
    answer: Any = None
    status: int = 200

    @property
    def key(self) -> str:
        """How versions.py names it."""
        return f"{self.methods[0]} {self.path}"

    @property
    def pattern(self) -> str:
        """A name of a container or an image may hold slashes."""
        return re.sub(r"\{(\w+)\}", r"(?P<\1>.+)", self.path)
