"""What a container's end brings with it: the stored state, the released network, events, waiters, auto-removal."""

from __future__ import annotations

import asyncio
import shutil

from corten.engine import states
from corten.engine.containers import Containers, replace_state
from corten.engine.groups import Groups
from corten.engine.networks import Networks
from corten.engine.removal import Removal
from corten.runtime import messages
from corten.runtime.monitor import read_exit_record
from corten.spec.timestamps import now_ns, parse_rfc3339, rfc3339_nano
from corten.store.layout import Layout

_LOST_EXIT_CODE = 255


class Exits:
    def __init__(self, containers: Containers, networks: Networks, layout: Layout, groups: Groups, removal: Removal) -> None:
        self._containers, self._networks, self._layout = containers, networks, layout
        self._groups, self._removal = groups, removal
        self._background: set[asyncio.Task[None]] = set()

    def on_exit(self, notice: messages.Exited) -> None:
        """A monitor's notice; also what an earlier daemon missed."""
        task = asyncio.ensure_future(self._exited(notice))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _exited(self, notice: messages.Exited) -> None:
        async with self._containers.lock(notice.container):
            record = self._containers.current(notice.container)
            if record is None or not states.is_running(record):
                return  # a start that failed halfway has told its client already
            ended = replace_state(record, status="exited", pid=0, exit_code=notice.exit_code, oom_killed=notice.oom_killed,
                                  finished_at=rfc3339_nano(notice.finished))  # fmt: skip
            leased, record = record, self._containers.save(ended.without_leases())
            self._networks.release(leased)
            shutil.rmtree(self._layout.run(record.id), ignore_errors=True)
            if notice.oom_killed:
                self._containers.emit("oom", record)
            seconds = (notice.finished - parse_rfc3339(record.state.started_at)) // 1_000_000_000
            self._containers.emit("die", record, exitCode=str(notice.exit_code), execDuration=str(seconds))
            if record.host_config.auto_remove:
                self._removal.remove_now(record)
            self._containers.announce(record, "exit")

    def on_monitor_lost(self, container_ids: list[str]) -> None:
        """Their monitor was killed: what it served is ended too, and said to be."""
        for container_id in container_ids:
            self.lost(container_id)

    def lost(self, container_id: str) -> None:
        """Nobody has seen its end: what its monitor wrote down counts, else it is killed whole and counted as lost."""
        record = self._containers.current(container_id)
        if record is None:
            return
        found = read_exit_record(self._layout.run(container_id))
        if found is None:
            self._groups.sweep(record)
        code, oom, finished = (found.exit_code, found.oom_killed, found.finished) if found else (_LOST_EXIT_CODE, False, now_ns())
        self.on_exit(messages.Exited(container_id, "", code, oom, finished))

    async def settle(self) -> None:
        """Wait for exits that are being dealt with."""
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)
