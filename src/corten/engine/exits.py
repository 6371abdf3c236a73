"""What a container's end brings with it: the stored state, the released network, events, waiters, and what follows: a restart or the removal."""

from __future__ import annotations

import asyncio
import shutil

from msgspec.structs import replace

from corten.engine import restarts, states
from corten.engine.containers import Containers, replace_state
from corten.engine.endpoints import Endpoints
from corten.engine.groups import Groups
from corten.engine.health import unwatched
from corten.engine.mounting import Mounting
from corten.engine.probing import Probing
from corten.engine.removal import Removal
from corten.engine.restarting import Restarting
from corten.engine.volume_history import VolumeHistory
from corten.runtime import messages
from corten.runtime.exit_record import read_exit_record
from corten.spec.timestamps import now_ns, parse_rfc3339, rfc3339_nano
from corten.store.layout import Layout

_LOST_EXIT_CODE = 255
_SECOND = 1_000_000_000


class Exits:
    def __init__(self, containers: Containers, endpoints: Endpoints, mounting: Mounting, layout: Layout, groups: Groups,
                 removal: Removal, restarting: Restarting, probing: Probing, history: VolumeHistory) -> None:  # fmt: skip
        self._containers, self._endpoints, self._mounting, self._layout = containers, endpoints, mounting, layout
        self._groups, self._removal, self._restarting, self._probing, self._history = groups, removal, restarting, probing, history
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
            ran = notice.finished - parse_rfc3339(record.state.started_at)
            again = restarts.after_exit(record.host_config.restart_policy, record.restarts, notice.exit_code, ran / _SECOND)
            self._probing.leave(record.id)
            ended = replace_state(
                record, status="restarting" if again else "exited", pid=0, exit_code=notice.exit_code, oom_killed=notice.oom_killed,
                finished_at=rfc3339_nano(notice.finished), health=record.state.health and unwatched(record.state.health),
            )  # fmt: skip
            leased, record = record, self._containers.save(replace(ended.without_leases(), restarts=again or record.restarts))
            self._endpoints.release(leased)
            shutil.rmtree(self._layout.run(record.id), ignore_errors=True)
            if notice.oom_killed:
                self._containers.emit("oom", record)
            self._containers.emit("die", record, exitCode=str(notice.exit_code), execDuration=str(ran // _SECOND))
            await self._mounting.unmount(record)
            if record.mounts:
                self._history.ended(record)
            if again:
                self._restarting.schedule(record)
            else:
                await self._removal.after_end(record)
            self._containers.announce(record, "exit")

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
