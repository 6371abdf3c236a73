"""The container whose namespace another one joins: at a start it must be there, running, and willing."""

from __future__ import annotations

from corten.engine import states
from corten.engine.containers import Containers
from corten.engine.records import ContainerRecord
from corten.errors import CannotJoin, CortenError

_JOINING = {"net": "joining network namespace of container", "ipc": "failed to join IPC namespace", "pid": "failed to join PID namespace"}


def donor(containers: Containers, mode: str, kind: str) -> ContainerRecord:
    """For `container:ID` of NetworkMode ("net"), IpcMode ("ipc") or PidMode ("pid"). Raises CannotJoin with Docker's texts."""
    wanted = mode.partition(":")[2]
    try:
        other = containers.find(wanted)
    except CortenError as error:
        raise CannotJoin(how=_JOINING[kind], reason=error.message) from None
    if not states.is_running(other):
        raise CannotJoin(how=_JOINING[kind], reason=f"container {wanted} is not running")
    if kind == "ipc" and other.host_config.ipc_mode in ("none", "private"):
        raise CannotJoin(how=_JOINING[kind], reason=f"container {wanted}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)")
    return other
