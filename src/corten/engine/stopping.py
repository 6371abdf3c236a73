"""Signals, stop, kill, pause: what is done to a container that runs. Each legal step by states.py."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from corten.engine import states
from corten.engine.containers import Containers
from corten.engine.records import ContainerRecord
from corten.errors import CannotKill, Invalid, InvalidSignal, KernelRefused, NotPaused, SurvivesKill
from corten.runtime import messages
from corten.runtime.launch import Launch
from corten.spec.signals import parse_signal

DEFAULT_STOP_TIMEOUT = 10
_KILL_ATTEMPTS, _KILL_PAUSE = 20, 0.5


class Stopping:
    def __init__(self, containers: Containers, launch: Launch) -> None:
        self._containers, self._launch = containers, launch

    async def signal(self, record: ContainerRecord, name: str, *, called: str = "") -> None:
        """Raises InvalidSignal, CannotKill (with Docker's prefix)."""
        called = called or record.name
        try:
            number = parse_signal(name or "SIGKILL")
        except InvalidSignal as error:
            raise Invalid(f"cannot kill container: {called}: {error.message}") from None
        states.check("kill", record, called)
        try:
            await self._send_signal(record, number)
        except KernelRefused:
            raise CannotKill(name=called, id=record.id) from None
        self._containers.emit("kill", record, signal=str(number))

    async def _send_signal(self, record: ContainerRecord, number: int) -> None:
        if number == 9 and record.state.status == "paused":
            await self._launch.call(messages.Freeze(0, record.id, frozen=False))
        await self._launch.call(messages.Signal(0, record.id, number))

    async def stop(self, record: ContainerRecord, signal_name: str, timeout: int | None) -> None:
        """Ask, wait, kill. Raises NotModified if it does not run."""
        states.check("stop", record)
        number = parse_signal(signal_name or record.config.stop_signal or "SIGTERM")
        patience = timeout if timeout is not None else record.config.stop_timeout
        patience = DEFAULT_STOP_TIMEOUT if patience is None else patience
        ended = self._containers.register(record.id, "exit")
        try:
            if record.state.status == "paused":
                with suppress(NotPaused):  # somebody else was quicker
                    await self.unpause(record)
            with suppress(KernelRefused):  # it has just ended by itself: then the wait below returns at once
                await self._send_signal(record, number)
            self._containers.emit("kill", record, signal=str(number))
            try:
                await asyncio.wait_for(asyncio.shield(ended), None if patience < 0 else patience)
            except TimeoutError:
                self._containers.emit("kill", record, signal="9")
                await self._kill_until(record.id, ended)
        finally:
            self._containers.cancel(record.id, "exit", ended)
        current = self._containers.current(record.id)
        if current:
            self._containers.emit("stop", current)

    async def kill(self, record: ContainerRecord) -> None:
        """SIGKILL, and wait for the end. Raises SurvivesKill."""
        ended = self._containers.register(record.id, "exit")
        self._containers.emit("kill", record, signal="9")
        try:
            await self._kill_until(record.id, ended)
        finally:
            self._containers.cancel(record.id, "exit", ended)

    async def _kill_until(self, container_id: str, ended: asyncio.Future[ContainerRecord]) -> None:
        """SIGKILL until it has ended: one that is paused meanwhile would never act on it. Raises SurvivesKill."""
        for _ in range(_KILL_ATTEMPTS):
            record = self._containers.current(container_id)
            if record is None or ended.done():
                return
            with suppress(KernelRefused):  # it has just ended by itself
                await self._send_signal(record, 9)
            await asyncio.wait((ended,), timeout=_KILL_PAUSE)
        if not ended.done():
            raise SurvivesKill

    async def pause(self, record: ContainerRecord) -> None:
        await self._freeze(record, "pause", frozen=True)

    async def unpause(self, record: ContainerRecord) -> None:
        await self._freeze(record, "unpause", frozen=False)

    async def _freeze(self, record: ContainerRecord, action: str, *, frozen: bool) -> None:
        async with self._containers.lock(record.id):
            record = self._containers.find(record.id)
            states.check(action, record)
            await self._launch.call(messages.Freeze(0, record.id, frozen=frozen))
            record = self._containers.save_state(record.id, status="paused" if frozen else "running")
            self._containers.emit(action, record)
