"""Start-up and shut-down of the engine as the containers see it: what runs is adopted, what ended is finished."""

from __future__ import annotations

import asyncio
import logging

from corten.engine import states
from corten.engine.containers import Containers
from corten.engine.endpoints import Endpoints
from corten.engine.exits import Exits
from corten.engine.groups import Groups
from corten.engine.mounting import Mounting
from corten.engine.probing import Probing
from corten.engine.records import ContainerRecord
from corten.engine.removal import Removal
from corten.engine.restarting import Restarting
from corten.engine.taking_over import TakingOver
from corten.errors import CortenError
from corten.runtime import messages
from corten.runtime.launch import Late, Launch
from corten.spec.timestamps import now_ns, rfc3339_nano
from corten.store.snapshots import Snapshots

_log = logging.getLogger("corten.engine")


class Restoring:
    def __init__(self, containers: Containers, snapshots: Snapshots, endpoints: Endpoints, launch: Launch, groups: Groups,
                 mounting: Mounting, removal: Removal, exits: Exits, taking_over: TakingOver, restarting: Restarting,
                 probing: Probing) -> None:  # fmt: skip
        self._containers, self._snapshots, self._endpoints = containers, snapshots, endpoints
        self._launch, self._groups, self._removal = launch, groups, removal
        self._mounting, self._exits, self._taking_over, self._restarting, self._probing = mounting, exits, taking_over, restarting, probing

    async def restore(self) -> None:
        """Start-up: adopt what still runs, finish what ended while no engine was there, complete removals."""
        found, late = await self._launch.adopt()
        adopted = {running.container: running for running in found}
        unknown: set[str] = set()
        for record in self._containers.all():
            running = adopted.pop(record.id, None)
            if record.state.status == "removing":
                await self._complete_removal(record)
            elif running and running.started:
                if record.config.tty:
                    await self._launch.hold_terminal(record.id)
                if not states.is_running(record):  # the engine died between the start and its row
                    self._containers.save_state(record.id, status="running", pid=running.pid, started_at=rfc3339_nano(now_ns()))
            elif running:  # set up and never started: its engine died in between
                adopted[record.id] = running
            elif states.is_running(record) and late:  # a monitor that does not answer may have it
                unknown.add(record.id)
            elif states.is_running(record):
                await self._taking_over.take_over(record.id)
        self._late = asyncio.ensure_future(self._adopt_late(late, unknown))
        for left in adopted.values():
            await self._launch.call(messages.Discard(0, left.container))
        for container_id in self._snapshots.sweep({record.id: record.diff_ids for record in self._containers.all()}):
            _log.info("removed what was left of container %s, whose creation a crash cut short", container_id)
        await self._exits.settle()
        await self._endpoints.restore()
        await self._mounting.restore()
        for record in self._containers.all():
            self._probing.watch(record)
        await self._restarting.resume()

    async def _adopt_late(self, late: list[Late], unknown: set[str]) -> None:
        """Once all monitors that were silent have answered or died, what none of them has is lost."""
        for greeting in late:
            unknown -= {running.container for running in await greeting}
        for container_id in unknown:
            await self._taking_over.take_over(container_id)

    async def _complete_removal(self, record: ContainerRecord) -> None:
        try:
            await self._removal.remove_now(record, volumes=record.host_config.auto_remove)
        except CortenError as error:
            _log.warning("%s", error.message)

    def tear_down_if_idle(self) -> None:
        """An engine that ends with nothing running leaves no bridge, rule or cgroup behind; the next one makes them again."""
        if not any(states.is_running(record) for record in self._containers.all()):
            self._endpoints.tear_down()
            self._groups.remove_parent()
