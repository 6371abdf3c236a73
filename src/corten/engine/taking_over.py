"""A monitor was killed: its containers run on, and another monitor looks after them.

What cannot be had back: clients that were attached (their connections are closed), execs (killed), and that a container that waits for
input has met its end. What cannot be taken over is ended and counted as lost (exits.py).
"""

from __future__ import annotations

import asyncio
import logging
import os

from corten.engine import states
from corten.engine.containers import Containers
from corten.engine.endpoints import Endpoints
from corten.engine.execs import Execs
from corten.engine.exits import Exits
from corten.engine.groups import Groups
from corten.engine.log_setup import LogSetup
from corten.engine.records import ContainerRecord
from corten.engine.runtimes import Runtimes
from corten.errors import CortenError, LogDriverFailed
from corten.linux.descriptors import close_all
from corten.runtime import messages
from corten.runtime.launch import Launch
from corten.store.layout import Layout

_log = logging.getLogger("corten.engine")


class TakingOver:
    def __init__(self, containers: Containers, launch: Launch, layout: Layout, groups: Groups, logs: LogSetup, runtimes: Runtimes,
                 endpoints: Endpoints, execs: Execs, exits: Exits) -> None:  # fmt: skip
        self._containers, self._launch, self._layout, self._groups, self._logs = containers, launch, layout, groups, logs
        self._runtimes, self._endpoints, self._execs, self._exits = runtimes, endpoints, execs, exits
        self._background: set[asyncio.Task[None]] = set()

    def monitor_lost(self, container_ids: list[str]) -> None:
        for container_id in container_ids:
            task = asyncio.ensure_future(self.take_over(container_id))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def take_over(self, container_id: str) -> None:
        """Nobody looks after it: find somebody, or count it as lost."""
        self._execs.monitor_lost(container_id)
        async with self._containers.lock(container_id):
            record = self._containers.current(container_id)
            if record is None or not states.is_running(record):
                return
            fds = self._handles(record)
            try:
                taken = bool(fds) and await self._hand_over(record, fds)
            finally:
                close_all(fds)
        if not taken:
            self._exits.lost(container_id)

    def _handles(self, record: ContainerRecord) -> list[int]:
        """Its init's pidfd, and its terminal if there is one; empty if it has ended."""
        try:
            pidfd = os.pidfd_open(record.state.pid)
        except OSError:
            return []
        if not self._groups.has(record, record.state.pid):  # another process has its number by now
            os.close(pidfd)
            return []
        return [pidfd, *self._launch.terminal(record.id)]

    def _runtime(self, record: ContainerRecord) -> list[str]:
        driven = os.path.exists(f"{self._layout.run(record.id)}/{messages.OTHER_RUNTIMES_BUNDLE}")  # also the built-in one, where hooks are
        return self._runtimes.command(record.host_config.runtime, hooks=True) if driven else []

    async def _hand_over(self, record: ContainerRecord, fds: list[int]) -> bool:
        try:
            settings = await self._logs.settings(record)
        except LogDriverFailed as error:
            _log.warning("container %s runs on without its log: %s", record.name, error.message)
            settings = messages.LogSettings("none")
        try:
            request = messages.TakeOver(
                0, record.id, self._layout.container(record.id), self._layout.run(record.id), record.state.pid, settings,
                record.config.open_stdin, record.config.stdin_once, self._runtime(record),
            )  # fmt: skip
            await self._launch.take_over(request, fds)
            await self._endpoints.reopen_names(record)
        except (CortenError, OSError) as error:
            _log.warning("container %s cannot be taken over: %s", record.name, error)
            return False
        _log.warning("the process that looked after container %s was killed; another one does now", record.name)
        return True
