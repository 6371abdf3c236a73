"""Starting what has ended: after its policy's delay, at an engine's start, or because a client says restart."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from corten.engine import restarts, states
from corten.engine.containers import Containers
from corten.engine.records import ContainerRecord
from corten.engine.removal import Removal
from corten.engine.starting import Starting
from corten.engine.stopping import Stopping
from corten.errors import CannotRestart, CortenError, NotModified
from corten.spec.timestamps import ZERO

_log = logging.getLogger("corten.engine")


class Restarting:
    def __init__(self, containers: Containers, starting: Starting, stopping: Stopping, removal: Removal) -> None:
        self._containers, self._starting, self._stopping, self._removal = containers, starting, stopping, removal
        self._waiting: set[asyncio.Task[None]] = set()

    async def restart(self, record: ContainerRecord, signal_name: str, timeout: int | None, *, called: str) -> None:
        """Stop and start as one step. Raises CannotRestart with the reason of whichever failed."""
        try:
            with self._removal.kept(record):
                with suppress(NotModified):
                    await self._stopping.stop(record, signal_name, timeout)
                with suppress(NotModified):  # somebody else has started it in between
                    await self._starting.start(record)
        except CortenError as error:
            raise CannotRestart(name=called, because=error) from None
        self._containers.emit("restart", self._containers.find(record.id))

    # --- by policy
    def schedule(self, record: ContainerRecord) -> None:
        """Start a restarting container after its delay, unless it has been stopped, removed or started by then."""
        task = asyncio.ensure_future(self._after_delay(record))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _after_delay(self, record: ContainerRecord) -> None:
        await asyncio.sleep(record.restarts.delay / 1000)
        await self._again(record)

    async def _again(self, record: ContainerRecord) -> None:
        try:
            await self._starting.again(record)
        except CortenError as error:
            _log.warning("container %s is not restarted: %s", record.name, error.message)

    # --- the engine's own start and end
    async def resume(self) -> None:
        """What an earlier engine was about to restart, and what its policy has run whenever an engine runs.

        Those that join another container's namespaces come last: it has to be there.
        """
        due = [record for record in self._containers.all() if self._due(record)]
        for record in sorted(due, key=_joins_another):
            await self._again(record)

    def _due(self, record: ContainerRecord) -> bool:
        if states.is_restarting(record):
            return True
        if record.state.status != "exited":
            return False
        before = record.state.started_at != ZERO
        return restarts.after_engine_start(record.host_config.restart_policy, record.restarts, record.state.exit_code, started_before=before)

    def stop(self) -> None:
        """The engine ends: what waits for its delay is for the next one."""
        for task in self._waiting:
            task.cancel()


def _joins_another(record: ContainerRecord) -> bool:
    host = record.host_config
    return any(mode.startswith("container:") for mode in (host.network_mode, host.ipc_mode, host.pid_mode))
