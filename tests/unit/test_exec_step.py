"""A build's RUN step that is cancelled: nothing of its folders goes before it has ended. The monitor and the host are stand-ins."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from corten.builder.exec_step import ExecSteps
from corten.runtime import messages

STEP = "a" * 64


class Workshop:
    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.layout = SimpleNamespace(run=lambda step: f"{folder}/run-{step}")
        self.removed_when: list[bool] = []
        self.ended = False

    @asynccontextmanager
    async def snapshot(self):
        try:
            yield STEP
        finally:
            self.removed_when.append(self.ended)

    def folders(self, _chain) -> list[str]:
        return []

    def scratch(self, _step: str, name: str) -> str:
        os.makedirs(f"{self.folder}/{name}")
        return f"{self.folder}/{name}"

    def mounts(self, _step: str, _below) -> list:
        return []

    def root(self, _step: str) -> str:
        return f"{self.folder}/root"


class Launch:
    """A monitor that takes its time to end a program."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop, self.started, self.steps = workshop, asyncio.Event(), None
        self.discarded = 0

    async def create(self, _message) -> SimpleNamespace:
        return SimpleNamespace(pid=1)

    async def call(self, message, fds=()) -> None:
        if isinstance(message, messages.Start):
            self.started.set()
        elif isinstance(message, messages.Discard):
            self.discarded += 1
            asyncio.get_running_loop().call_later(0.1, self._end)

    def _end(self) -> None:
        self.workshop.ended = True
        assert self.steps.on_exit(messages.Exited(STEP, "", 137, False, 1))

    def forget(self, _step: str) -> None: ...


class Host:
    def prepare(self, _settings) -> dict:
        return {}

    async def attach(self, _step: str, _namespace: str) -> None: ...

    def release(self, _step: str) -> None: ...


@pytest.mark.parametrize("times", [1, 3])
def test_a_cancelled_step_has_ended_before_its_folders_go(tmp_path, times):
    """A build cancels what runs, and what waits for that cancels it again."""

    async def run() -> None:
        workshop = Workshop(str(tmp_path))
        launch = Launch(workshop)
        steps = launch.steps = ExecSteps(workshop, launch, Host(), None)
        work = SimpleNamespace(base=SimpleNamespace(chain=()), op=SimpleNamespace(args=["x"], env=[], proxies=[], mounts=()), network="none", time=0, bound=())
        task = asyncio.ensure_future(steps.make(work, None, lambda _step: None, lambda *_said: None))
        await launch.started.wait()
        await asyncio.sleep(0)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.01)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (launch.discarded, workshop.removed_when) == (1, [True])

    asyncio.run(run())
