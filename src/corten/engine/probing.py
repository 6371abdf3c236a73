"""Running health checks: a task for each watched container, a probe at a time. What results mean is health.py's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from corten.engine import health
from corten.engine.containers import Containers
from corten.engine.execs import Execs
from corten.engine.health import Check
from corten.engine.records import ContainerRecord, Probe
from corten.errors import CortenError
from corten.spec.engine import ExecConfig
from corten.spec.timestamps import now_ns, parse_rfc3339, rfc3339_nano

_SECOND = 1_000_000_000
_log = logging.getLogger("corten.engine")


class Probing:
    """`on_unhealthy` is told of a container after each failure that makes or leaves it so."""

    def __init__(self, containers: Containers, execs: Execs, on_unhealthy: Callable[[ContainerRecord], None]) -> None:
        self._containers, self._execs, self._on_unhealthy = containers, execs, on_unhealthy
        self._watches: dict[str, asyncio.Task[None]] = {}

    def watch(self, record: ContainerRecord) -> None:
        """It runs (again): probe it, if it has a check."""
        self.leave(record.id)
        check = health.check_of(record.config)
        if check and record.state.status == "running":
            self._watches[record.id] = asyncio.ensure_future(self._watch(record.id, record.state.started_at, check))

    def leave(self, container_id: str) -> None:
        """It is paused or has ended. A probe under way dies with the container, or is killed at its timeout."""
        task = self._watches.pop(container_id, None)
        if task:
            task.cancel()

    def close(self) -> None:
        for container_id in tuple(self._watches):
            self.leave(container_id)

    async def _watch(self, container_id: str, started_at: str, check: Check) -> None:
        started = parse_rfc3339(started_at)
        while (record := self._current(container_id, started_at)) and record.state.health:
            await asyncio.sleep(health.pause(check, record.state.health, now_ns() - started) / _SECOND)
            record = self._current(container_id, started_at)
            if record is None:
                return
            begun = now_ns()
            code, output = await self._probe(record, check)
            probe = Probe(rfc3339_nano(begun), rfc3339_nano(now_ns()), code, output)
            self._take(container_id, started_at, check, probe, begun - started)

    def _current(self, container_id: str, started_at: str) -> ContainerRecord | None:
        """Its record while it is the same run and can be probed."""
        record = self._containers.current(container_id)
        same = record and record.state.status == "running" and record.state.started_at == started_at
        return record if same else None

    async def _probe(self, record: ContainerRecord, check: Check) -> tuple[int, str]:
        if not check.command:
            return -1, f"healthcheck for container {record.id} has no command"
        config = ExecConfig(cmd=list(check.command), attach_stdout=True, attach_stderr=True)
        try:
            done = await self._execs.capture(record, config, timeout=check.timeout / _SECOND, limit=health.OUTPUT_LIMIT)
        except CortenError as error:
            return -1, error.message
        output = health.output_text(done.output, cut=done.cut)
        if done.exit_code is None:
            return -1, health.timeout_text(check, output)
        return done.exit_code, output

    def _take(self, container_id: str, started_at: str, check: Check, probe: Probe, since_start: int) -> None:
        record = self._current(container_id, started_at)
        if record is None or record.state.health is None:
            return  # it has been paused or has ended meanwhile: the result says nothing
        before = record.state.health
        after = health.after_probe(check, before, probe, since_start)
        record = self._containers.save_state(container_id, health=after)
        if after.status != before.status:
            self._containers.emit(f"health_status: {after.status}", record)
        if after.failing_streak >= check.retries:  # not only when the status turns: an engine may have died since
            self._on_unhealthy(record)
