"""Corten's own volume endpoints (docs/volumes.md): rename, clone, snapshot, load, push, pull, history. Requests in, services asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from corten.api import views
from corten.api.call import Call, empty, json_response
from corten.api.json_messages import JsonMessages
from corten.engine.records import VolumeRecord
from corten.engine.volume_copies import VolumeCopies
from corten.engine.volume_history import VolumeHistory
from corten.engine.volume_renaming import Renaming
from corten.engine.volume_transfers import VolumeTransfers
from corten.engine.volumes import Volumes
from corten.errors import Invalid
from corten.registry.auth import Credentials, parse_registry_auth
from corten.registry.progress import Emit, stream
from corten.spec.reference import Reference, parse_reference


class VolumeExtraHandlers:
    def __init__(self, volumes: Volumes, copies: VolumeCopies, renaming: Renaming, transfers: VolumeTransfers, history: VolumeHistory) -> None:
        self._volumes, self._copies, self._renaming, self._transfers, self._history = volumes, copies, renaming, transfers, history

    def _view(self, record: VolumeRecord) -> dict[str, Any]:
        return views.volume_view(record, self._volumes.path(record), self._volumes.scope(record))

    async def rename(self, call: Call) -> web.Response:
        await self._renaming.rename(call.parameters["name"], _new_name(call))
        return empty()

    async def clone(self, call: Call) -> web.StreamResponse:
        name, new = call.parameters["name"], _new_name(call)
        if call.flag("progress"):
            return await self._told(call, lambda emit: self._copies.clone(name, new, emit=emit))
        return json_response(self._view(await self._copies.clone(name, new)), 201)

    async def snapshot(self, call: Call) -> web.StreamResponse:
        name, new, keep = call.parameters["name"], call.text("name"), call.number("keep") or 0
        if keep < 0:
            raise Invalid(f"keep={keep}: want how many snapshots to keep, or 0 for all")
        if call.flag("progress"):
            return await self._told(call, lambda emit: self._copies.snapshot(name, new, keep, emit))
        return json_response(self._view(await self._copies.snapshot(name, new, keep)), 201)

    async def _told(self, call: Call, work: Callable[[Emit], Awaitable[VolumeRecord | None]]) -> web.StreamResponse:
        """What `work` says, as a stream of messages; the volume that it made is the last one's `aux`."""
        messages = JsonMessages(call.request)
        made: list[VolumeRecord | None] = []

        async def run(emit: Emit) -> None:
            made.append(await work(emit))

        async with messages.reporting():
            async for progress in stream(run):
                await messages.progress(progress)
            if made[0]:
                await messages.send({"aux": self._view(made[0])})
        return await messages.end()

    async def load(self, call: Call) -> web.Response:
        return json_response(self._view(await self._copies.load(_new_name(call), call.request.content.iter_any())), 201)

    async def push(self, call: Call) -> web.StreamResponse:
        remote = _remote(call)
        return await self._told(call, lambda emit: self._transfers.push(call.parameters["name"], *remote, emit))

    async def pull(self, call: Call) -> web.StreamResponse:
        new, remote = _new_name(call), _remote(call)
        return await self._told(call, lambda emit: self._transfers.pull(new, *remote, emit))

    async def history(self, call: Call) -> web.Response:
        record = self._volumes.find(call.parameters["name"])
        size = await self._volumes.size(record)
        if size is not None:
            self._history.measured(record.name, size)
        found = self._history.of(record.name)
        return json_response({
            "Name": record.name,
            "CreatedAt": record.created,
            "Uses": [{"Container": use.container, "Name": use.name, "Image": use.image, "Destination": use.destination, "RW": use.rw,
                      "From": use.begun, "To": use.ended} for use in found.uses],
            "Sizes": [{"At": entry.at, "Size": entry.size} for entry in found.sizes],
        })  # fmt: skip


def _remote(call: Call) -> tuple[Reference, Credentials]:
    return parse_reference(call.text("reference")), parse_registry_auth(call.request.headers.get("X-Registry-Auth", ""))


def _new_name(call: Call) -> str:
    name = call.text("name")
    if not name:
        raise Invalid("bad parameter: name cannot be empty")
    return name
