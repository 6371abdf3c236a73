"""Which lifecycle step is legal in which state: one table, asked by everybody, compared nowhere else.

Texts and statuses are Docker Engine 28.5's.
"""

from __future__ import annotations

from corten.engine.records import ContainerRecord
from corten.errors import (
    AlreadyPaused,
    AttachPaused,
    AttachRestarting,
    CannotKill,
    CommitDead,
    CommitRemoved,
    ContainerPaused,
    CortenError,
    ExportDead,
    ExportRemoved,
    IsRestarting,
    MarkedForRemoval,
    NotModified,
    NotPaused,
    NotRunning,
    RemovalInProgress,
    RemovePaused,
    RemoveRunning,
    StartPaused,
    UpdateRemoved,
)

STATUSES = ("created", "running", "paused", "restarting", "exited", "removing", "dead")
RUNNING = frozenset({"running", "paused"})
UP = RUNNING | {"restarting"}  # what Docker calls Running: it runs, or will again without being told to

Refusal = type[CortenError] | None


def _row(*, created: Refusal, running: Refusal, paused: Refusal, restarting: Refusal, exited: Refusal, removing: Refusal, dead: Refusal) -> dict[str, Refusal]:
    return {"created": created, "running": running, "paused": paused, "restarting": restarting, "exited": exited, "removing": removing, "dead": dead}


# action -> status -> the error class, or None where the step is legal
_TABLE: dict[str, dict[str, Refusal]] = {
    "start": _row(created=None, running=NotModified, paused=StartPaused, restarting=NotModified, exited=None, removing=MarkedForRemoval, dead=MarkedForRemoval),
    "stop": _row(created=NotModified, running=None, paused=None, restarting=None, exited=NotModified, removing=NotModified, dead=NotModified),
    "kill": _row(created=CannotKill, running=None, paused=None, restarting=None, exited=CannotKill, removing=CannotKill, dead=CannotKill),
    "pause": _row(created=NotRunning, running=None, paused=AlreadyPaused, restarting=IsRestarting, exited=NotRunning, removing=NotRunning, dead=NotRunning),
    "unpause": _row(created=NotPaused, running=NotPaused, paused=None, restarting=NotPaused, exited=NotPaused, removing=NotPaused, dead=NotPaused),
    "exec": _row(created=NotRunning, running=None, paused=ContainerPaused, restarting=IsRestarting, exited=NotRunning, removing=NotRunning, dead=NotRunning),
    "top": _row(created=NotRunning, running=None, paused=None, restarting=IsRestarting, exited=NotRunning, removing=NotRunning, dead=NotRunning),
    "resize": _row(created=NotRunning, running=None, paused=None, restarting=IsRestarting, exited=NotRunning, removing=NotRunning, dead=NotRunning),
    "attach": _row(created=None, running=None, paused=AttachPaused, restarting=AttachRestarting, exited=None, removing=RemovalInProgress, dead=RemovalInProgress),
    "commit": _row(created=None, running=None, paused=None, restarting=None, exited=None, removing=CommitRemoved, dead=CommitDead),
    "tools": _row(created=None, running=None, paused=ContainerPaused, restarting=IsRestarting, exited=None, removing=RemovalInProgress, dead=RemovalInProgress),
    "export": _row(created=None, running=None, paused=None, restarting=None, exited=None, removing=ExportRemoved, dead=ExportDead),
    "update": _row(created=None, running=None, paused=None, restarting=None, exited=None, removing=UpdateRemoved, dead=UpdateRemoved),
    "rename": _row(created=None, running=None, paused=None, restarting=None, exited=None, removing=RemovalInProgress, dead=RemovalInProgress),
    "remove": _row(created=None, running=RemoveRunning, paused=RemovePaused, restarting=RemoveRunning, exited=None, removing=RemovalInProgress, dead=None),
}  # fmt: skip


def check(action: str, record: ContainerRecord, name: str = "") -> None:
    """Raise what Docker answers if `action` is not legal now. `name` is what the client called the container."""
    error = _TABLE[action][record.state.status]
    if error is not None:
        raise error(id=record.id, name=name or record.name, state=record.state.status)


def is_running(record: ContainerRecord) -> bool:
    """It has a process."""
    return record.state.status in RUNNING


def is_up(record: ContainerRecord) -> bool:
    """It has a process, or its restart policy is about to give it one."""
    return record.state.status in UP


def is_paused(record: ContainerRecord) -> bool:
    return record.state.status == "paused"


def is_restarting(record: ContainerRecord) -> bool:
    return record.state.status == "restarting"
