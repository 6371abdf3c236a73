"""Signals, stop, kill, pause: what is done to a container that runs. Each legal step by states.py."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from msgspec.structs import replace

from corten.engine import restarts, states
from corten.engine.containers import Containers, replace_state
from corten.engine.health import unwatched
from corten.engine.probing import Probing
from corten.engine.records import ContainerRecord
from corten.errors import CannotKill, Invalid, InvalidSignal, KernelRefused, SurvivesKill
from corten.runtime import messages
from corten.runtime.launch import Launch
from corten.spec.signals import parse_signal

DEFAULT_STOP_TIMEOUT = 10
_KILL_ATTEMPTS, _KILL_PAUSE = 20, 0.5
_SIGKILL = 9


class Stopping:
    def __init__(self, containers: Containers, launch: Launch, probing: Probing) -> None:
        self._containers, self._launch, self._probing = containers, launch, probing

    async def signal(self, record: ContainerRecord, name: str, *, called: str = "") -> None:
        """SIGKILL waits for the end, any other signal is sent and that is all. Raises Invalid, CannotKill (with Docker's prefix)."""
        called = called or record.name
        try:
            number = parse_signal(name or "SIGKILL")
        except InvalidSignal as error:
            raise Invalid(f"cannot kill container: {called}: {error.message}") from None
        states.check("kill", record, called)
        if await self._cancel_restart(record):
            return
        try:
            await (self.kill(record) if number == _SIGKILL else self._send(record, number))
        except KernelRefused:
            raise CannotKill(name=called, id=record.id) from None

    async def _send(self, record: ContainerRecord, number: int) -> None:
        """Send a client's signal, remember that it was one, and thaw whoever could not act on it."""
        stop_signal = parse_signal(record.config.stop_signal) if record.config.stop_signal else None
        past = self._containers.find(record.id)
        remembered = restarts.on_signal(past.restarts, number, stop_signal)
        if remembered != past.restarts:
            self._containers.save(replace(past, restarts=remembered))
        await self._launch.call(messages.Signal(0, record.id, number))
        self._containers.emit("kill", record, signal=str(number))
        current = self._containers.current(record.id)
        if current and states.is_paused(current) and (number == _SIGKILL or stop_signal in (None, number)):
            await self._launch.call(messages.Freeze(0, record.id, frozen=False))
            current = self._containers.current(record.id)
            if current and states.is_paused(current):
                self._thawed(current)

    async def _cancel_restart(self, record: ContainerRecord) -> bool:
        """One that waits for its restart has nothing to signal: it has ended, and stays so. False if it does not wait."""
        if not states.is_restarting(record):
            return False
        async with self._containers.lock(record.id):
            current = self._containers.find(record.id)
            if not states.is_restarting(current):
                return False  # it has been started meanwhile
            past = replace(current.restarts, by_hand=True, cancelled=True)
            ended = self._containers.save(replace(replace_state(current, status="exited"), restarts=past))
            self._containers.announce(ended, "exit")
        return True

    async def stop(self, record: ContainerRecord, signal_name: str, timeout: int | None) -> None:
        """Ask, wait, kill. Raises NotModified if it is not up, InvalidSignal."""
        states.check("stop", record)
        number = parse_signal(signal_name or record.config.stop_signal or "SIGTERM")
        patience = timeout if timeout is not None else record.config.stop_timeout
        patience = DEFAULT_STOP_TIMEOUT if patience is None else patience
        if not await self._cancel_restart(record):
            await self._stop(record, number, None if patience < 0 else patience)
        current = self._containers.current(record.id)
        if current:
            self._containers.emit("stop", current)

    async def _stop(self, record: ContainerRecord, number: int, patience: int | None) -> None:
        ended = self._containers.register(record.id, "exit")
        try:
            with suppress(KernelRefused):  # it has just ended by itself: then the wait below returns at once
                await self._send(record, number)
            await asyncio.wait((ended,), timeout=patience)
            if not ended.done():
                await self._kill_until(record.id, ended)
        finally:
            self._containers.cancel(record.id, "exit", ended)

    async def kill(self, record: ContainerRecord) -> None:
        """SIGKILL, and wait for the end. Raises SurvivesKill."""
        if await self._cancel_restart(record):
            return
        ended = self._containers.register(record.id, "exit")
        try:
            await self._kill_until(record.id, ended)
        finally:
            self._containers.cancel(record.id, "exit", ended)

    async def _kill_until(self, container_id: str, ended: asyncio.Future[ContainerRecord]) -> None:
        """SIGKILL until it has ended: one that is paused meanwhile would never act on it. Raises SurvivesKill."""
        for _ in range(_KILL_ATTEMPTS):
            record = self._containers.current(container_id)
            if record is None or ended.done() or not states.is_running(record):
                return
            with suppress(KernelRefused):  # it has just ended by itself
                await self._send(record, _SIGKILL)
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
            if not frozen:
                self._thawed(record)
                return
            self._probing.leave(record.id)
            found = record.state.health
            record = self._containers.save_state(record.id, status="paused", health=found and unwatched(found))
            self._containers.emit("pause", record)

    def _thawed(self, record: ContainerRecord) -> None:
        record = self._containers.save_state(record.id, status="running")
        self._containers.emit("unpause", record)
        self._probing.watch(record)
