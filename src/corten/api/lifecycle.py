"""Container endpoints that move a container from state to state, and the one that waits for that. No policy here."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from corten.api.call import Call, empty, json_response
from corten.api.versions import Since
from corten.engine import states
from corten.engine.containers import Containers
from corten.engine.editing import Editing
from corten.engine.records import ContainerRecord
from corten.engine.removal import Removal
from corten.engine.restarting import Restarting
from corten.engine.starting import Starting
from corten.engine.stopping import Stopping
from corten.engine.updating import Updating
from corten.errors import CannotStop, Invalid, InvalidSignal
from corten.spec import answers
from corten.spec.engine import EditRequest, UpdateRequest

_CONDITIONS = {"": "not-running", "not-running": "not-running", "next-exit": "next-exit", "removed": "removed"}


class LifecycleHandlers:
    def __init__(self, containers: Containers, starting: Starting, stopping: Stopping, restarting: Restarting, removal: Removal,
                 updating: Updating, editing: Editing) -> None:  # fmt: skip
        self._containers, self._starting, self._stopping = containers, starting, stopping
        self._restarting, self._removal, self._updating, self._editing = restarting, removal, updating, editing

    def _find(self, call: Call) -> ContainerRecord:
        return self._containers.find(call.parameters["name"])

    async def edit(self, call: Call) -> web.Response:
        """Corten's own: change what Docker freezes at creation; with `dryRun`, say what that would take."""
        record, request, dry = self._find(call), await call.body(EditRequest), call.flag("dryRun")
        plan = self._editing.plan(record, request) if dry else await asyncio.shield(self._editing.edit(record, request))
        return json_response(answers.Edited(not dry, list(plan.steps)))

    async def start(self, call: Call) -> web.Response:
        await asyncio.shield(self._starting.start(self._find(call)))
        return empty()

    async def stop(self, call: Call) -> web.Response:
        record, timeout = self._find(call), call.number("t")
        try:
            await self._stopping.stop(record, call.text("signal"), timeout)
        except InvalidSignal as error:
            raise CannotStop(name=call.parameters["name"], reason=error.message) from None
        return empty()

    async def restart(self, call: Call) -> web.Response:
        await self._restarting.restart(self._find(call), call.text("signal"), call.number("t"), called=call.parameters["name"])
        return empty()

    async def kill(self, call: Call) -> web.Response:
        await self._stopping.signal(self._find(call), call.text("signal"), called=call.parameters["name"])
        return empty()

    async def pause(self, call: Call) -> web.Response:
        await self._stopping.pause(self._find(call))
        return empty()

    async def unpause(self, call: Call) -> web.Response:
        await self._stopping.unpause(self._find(call))
        return empty()

    async def rename(self, call: Call) -> web.Response:
        self._containers.rename(self._find(call), call.text("name"))
        return empty()

    async def remove(self, call: Call) -> web.Response:
        if call.flag("link"):
            self._containers.unlink(call.parameters["name"])
            return empty()
        record = self._find(call)
        await self._removal.remove(record, force=call.flag("force"), volumes=call.flag("v"), called=call.parameters["name"])
        return empty()

    async def update(self, call: Call) -> web.Response:
        record = self._find(call)
        request = await call.body(UpdateRequest, empty=UpdateRequest())
        return json_response({"Warnings": await self._updating.update(record, request) or None})

    async def prune(self, call: Call) -> web.Response:
        pruned = await self._removal.prune(call.filters("label", "label!", "until"))
        return json_response({"ContainersDeleted": pruned.ids or None, "SpaceReclaimed": pruned.reclaimed})

    async def wait(self, call: Call) -> web.StreamResponse:
        record = self._find(call)
        if call.text("condition") not in _CONDITIONS:
            raise Invalid(f'invalid condition: "{call.text("condition")}"')
        condition = _CONDITIONS[call.text("condition")]
        if condition == "not-running" and not states.is_up(record):
            return json_response(_outcome(record))
        awaited = "removed" if condition == "removed" else "exit"
        future = self._containers.register(record.id, awaited)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        if call.has(Since.WAIT_CONDITIONS):
            # The head goes out now: clients start the container once they see it.
            await response.prepare(call.request)
        try:
            while not future.done() and not call.gone:
                await asyncio.wait((future,), timeout=1.0)
            if future.done():
                if not response.prepared:
                    await response.prepare(call.request)
                await response.write(msgspec.json.encode(_outcome(future.result())) + b"\n")
        finally:
            self._containers.cancel(record.id, awaited, future)
        if response.prepared:  # or the client of an old version went without an answer
            await response.write_eof()
        return response


def _outcome(record: ContainerRecord) -> dict[str, Any]:
    error = {"Error": {"Message": record.state.error}} if record.state.error else {}
    return {"StatusCode": record.state.exit_code, **error}
