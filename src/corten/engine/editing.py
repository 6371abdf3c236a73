"""Editing a container in place: what can be changed while it runs is, the rest by one stop and start with everything kept.

Id, name, writable layer, volumes, addresses' settings and networks stay. What fails leaves the container as it was, running if it
ran. What an edit means is edit.py's decision.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from corten.engine import health, mounts, options, states
from corten.engine.containers import Containers
from corten.engine.edit import Plan, make_plan
from corten.engine.endpoints import Endpoints
from corten.engine.log_setup import LogSetup
from corten.engine.mounting import Mounting
from corten.engine.probing import Probing
from corten.engine.records import ContainerRecord, MountRecord
from corten.engine.removal import Removal
from corten.engine.starting import Starting
from corten.engine.stopping import Stopping
from corten.errors import Conflict, CortenError, NotModified
from corten.runtime import messages
from corten.runtime.launch import Launch
from corten.spec.engine import EditRequest


class Undone(CortenError):
    """The reason, and that nothing has changed."""

    template = "{because}; the edit is undone, the container {how}"


class Editing:
    def __init__(self, containers: Containers, starting: Starting, stopping: Stopping, removal: Removal, endpoints: Endpoints,
                 mounting: Mounting, probing: Probing, logs: LogSetup, launch: Launch) -> None:  # fmt: skip
        self._containers, self._starting, self._stopping, self._removal = containers, starting, stopping, removal
        self._endpoints, self._mounting, self._probing, self._logs, self._launch = endpoints, mounting, probing, logs, launch

    def plan(self, record: ContainerRecord, request: EditRequest) -> Plan:
        """What would be done. Raises Invalid, UnsupportedOption naming the key."""
        states.check("update", record)
        plan = make_plan(record.config, record.host_config, request)
        if plan.changes("LogConfig"):
            plan = Plan(plan.config, replace(plan.host, log_config=self._logs.complete(plan.host.log_config)), plan.steps)
        options.check_host_config(plan.host)
        options.check_config(plan.config)
        mounts.check(plan.host)
        return plan

    async def edit(self, record: ContainerRecord, request: EditRequest) -> Plan:
        """Do it. Raises what plan() does, PortInUse, LogDriverFailed, MonitorOlder, and Undone with the reason why it could not start as edited."""
        plan = self.plan(record, request)
        if not plan.steps:
            return plan
        if plan.needs_swap and states.is_up(record):
            await self._swap(record, request)
        else:
            async with self._containers.lock(record.id):
                await self._apply(self._containers.find(record.id), request)
        self._containers.emit("update", self._containers.find(record.id))
        return plan

    async def _swap(self, record: ContainerRecord, request: EditRequest) -> None:
        """Stop, change, start; as it was if that fails."""
        with self._removal.kept(record):
            with suppress(NotModified):
                await self._stopping.stop(record, "", None)
            undo: Callable[[], object] | None = None
            try:
                async with self._containers.lock(record.id):
                    stopped = self._containers.find(record.id)
                    if states.is_up(stopped):
                        raise Conflict(f"container {record.id} has been started by somebody else meanwhile")
                    await self._apply(stopped, request)
                    undo = lambda: self._restore(stopped)  # noqa: E731 - a step back, not a function of its own
                await self._starting.start(self._containers.find(record.id))
            except NotModified:
                return  # its policy, or somebody else, was quicker: it runs as edited
            except CortenError as error:
                if undo:
                    undo()
                raise Undone(because=error.message, how=await self._start_as_before(record.id)) from None

    async def _start_as_before(self, container_id: str) -> str:
        try:
            with suppress(NotModified):
                await self._starting.start(self._containers.find(container_id))
        except CortenError as error:
            return f"is as before, but does not start: {error.message}"
        return "runs as before"

    async def _apply(self, record: ContainerRecord, request: EditRequest) -> None:
        """Under its lock. What can fail comes first, so that there is nothing to undo."""
        plan = make_plan(record.config, record.host_config, request)
        kept = await self._remount(record, plan) if plan.changes("Binds", "Mounts") else record.mounts
        log = self._logs.complete(plan.host.log_config) if plan.changes("LogConfig") else plan.host.log_config
        host = replace(plan.host, log_config=log)
        logs_otherwise = states.is_running(record) and (plan.changes("LogConfig") or (plan.changes("Labels") and self._logs.shows_labels(log)))
        if logs_otherwise:
            await self._log_as(replace(record, config=plan.config, host_config=host))
        if plan.changes("PortBindings"):
            try:
                record = await self._endpoints.republish(record.id, host)
            except CortenError:
                if logs_otherwise:
                    await self._log_as(record)
                raise
        record = self._containers.save(replace(record, config=plan.config, host_config=host, mounts=kept))
        if plan.changes("Healthcheck") and states.is_running(record):
            begun = health.begin(None) if health.check_of(record.config) else None
            self._probing.watch(self._containers.save_state(record.id, health=begun))

    async def _log_as(self, record: ContainerRecord) -> None:
        await self._launch.call(messages.SetLog(0, record.id, await self._logs.settings(record)))

    async def _remount(self, record: ContainerRecord, plan: Plan) -> list[MountRecord]:
        """The mounts of the new configuration; an anonymous volume that stays at its place is the one it was."""
        made = await self._mounting.make(record.id, plan.host, plan.config.volumes or {}, record.diff_ids)
        before = {mount.destination: mount for mount in record.mounts if mount.type == "volume" and not mount.named}
        again = [mount for mount in made if mount.type == "volume" and not mount.named and mount.destination in before]
        await self._mounting.drop(record.id, again)
        self._mounting.keep(record.id, [mount for mount in made if mount not in again])
        return [before[mount.destination] if mount in again else mount for mount in made]

    def _restore(self, before: ContainerRecord) -> None:
        current = self._containers.find(before.id)
        self._containers.save(replace(current, config=before.config, host_config=before.host_config, mounts=before.mounts))
