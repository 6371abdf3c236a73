"""Which lifecycle step is legal in which state: one table, asked by everybody, compared nowhere else.

Texts and statuses are Docker Engine 28.5's.
"""

from __future__ import annotations

from corten.engine.records import ContainerRecord
from corten.errors import (
    AlreadyPaused,
    CannotKill,
    ContainerPaused,
    CortenError,
    NotModified,
    NotPaused,
    NotRunning,
    RemovalInProgress,
    RemoveRunning,
    StartPaused,
)

STATUSES = ("created", "running", "paused", "exited", "removing", "dead")
RUNNING = frozenset({"running", "paused"})

# action -> status -> the error class, or None where the step is legal
_TABLE: dict[str, dict[str, type[CortenError] | None]] = {
    "start": {"created": None, "exited": None, "running": NotModified, "paused": StartPaused, "removing": RemovalInProgress, "dead": RemovalInProgress},
    "stop": {"created": NotModified, "exited": NotModified, "running": None, "paused": None, "removing": NotModified, "dead": NotModified},
    "kill": {"created": CannotKill, "exited": CannotKill, "running": None, "paused": None, "removing": CannotKill, "dead": CannotKill},
    "pause": {"created": NotRunning, "exited": NotRunning, "running": None, "paused": AlreadyPaused, "removing": NotRunning, "dead": NotRunning},
    "unpause": {"created": NotPaused, "exited": NotPaused, "running": NotPaused, "paused": None, "removing": NotPaused, "dead": NotPaused},
    "exec": {"created": NotRunning, "exited": NotRunning, "running": None, "paused": ContainerPaused, "removing": NotRunning, "dead": NotRunning},
    "top": {"created": NotRunning, "exited": NotRunning, "running": None, "paused": None, "removing": NotRunning, "dead": NotRunning},
    "resize": {"created": NotRunning, "exited": NotRunning, "running": None, "paused": None, "removing": NotRunning, "dead": NotRunning},
    "remove": {"created": None, "exited": None, "running": RemoveRunning, "paused": RemoveRunning, "removing": RemovalInProgress, "dead": None},
    "attach": {"created": None, "exited": None, "running": None, "paused": None, "removing": RemovalInProgress, "dead": RemovalInProgress},
    "rename": {"created": None, "exited": None, "running": None, "paused": None, "removing": RemovalInProgress, "dead": RemovalInProgress},
}  # fmt: skip


def check(action: str, record: ContainerRecord, name: str = "") -> None:
    """Raise what Docker answers if `action` is not legal now. `name` is what the client called the container."""
    error = _TABLE[action][record.state.status]
    if error is not None:
        raise error(id=record.id, name=name or record.name, state=record.state.status)


def is_running(record: ContainerRecord) -> bool:
    return record.state.status in RUNNING
