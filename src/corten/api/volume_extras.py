"""Corten's own volume endpoints (docs/volumes.md): rename, clone, snapshot, save, load, push, pull. Requests in, services asked."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from corten.api import views
from corten.api.call import Call, empty, json_response
from corten.api.json_messages import JsonMessages
from corten.api.tar_response import tar_response
from corten.engine.records import VolumeRecord
from corten.engine.volume_copies import VolumeCopies
from corten.engine.volume_renaming import Renaming
from corten.engine.volume_transfers import VolumeTransfers
from corten.engine.volumes import Volumes
from corten.errors import Invalid
from corten.registry.auth import Credentials, parse_registry_auth
from corten.spec.reference import Reference, parse_reference


class VolumeExtraHandlers:
    def __init__(self, volumes: Volumes, copies: VolumeCopies, renaming: Renaming, transfers: VolumeTransfers) -> None:
        self._volumes, self._copies, self._renaming, self._transfers = volumes, copies, renaming, transfers

    def _view(self, record: VolumeRecord) -> dict[str, Any]:
        return views.volume_view(record, self._volumes.path(record), self._volumes.scope(record))

    async def rename(self, call: Call) -> web.Response:
        await self._renaming.rename(call.parameters["name"], _new_name(call))
        return empty()

    async def clone(self, call: Call) -> web.Response:
        return json_response(self._view(await self._copies.clone(call.parameters["name"], _new_name(call))), 201)

    async def snapshot(self, call: Call) -> web.Response:
        keep = call.number("keep") or 0
        if keep < 0:
            raise Invalid(f"keep={keep}: want how many snapshots to keep, or 0 for all")
        return json_response(self._view(await self._copies.snapshot(call.parameters["name"], call.text("name"), keep)), 201)

    async def save(self, call: Call) -> web.StreamResponse:
        self._volumes.find(call.parameters["name"])
        return await tar_response(call, self._copies.save(call.parameters["name"]), {"Content-Type": "application/x-tar"})

    async def load(self, call: Call) -> web.Response:
        return json_response(self._view(await self._copies.load(_new_name(call), call.request.content.iter_any())), 201)

    async def push(self, call: Call) -> web.StreamResponse:
        self._volumes.find(call.parameters["name"])
        messages = JsonMessages(call.request)
        async with messages.reporting():
            async for progress in self._transfers.push(call.parameters["name"], *_remote(call)):
                await messages.progress(progress)
        return await messages.end()

    async def pull(self, call: Call) -> web.StreamResponse:
        """The last message's `aux` is the new volume."""
        messages = JsonMessages(call.request)
        async with messages.reporting():
            async for progress in self._transfers.pull(_new_name(call), *_remote(call)):
                if isinstance(progress, VolumeRecord):
                    await messages.send({"aux": self._view(progress)})
                else:
                    await messages.progress(progress)
        return await messages.end()


def _remote(call: Call) -> tuple[Reference, Credentials]:
    return parse_reference(call.text("reference")), parse_registry_auth(call.request.headers.get("X-Registry-Auth", ""))


def _new_name(call: Call) -> str:
    name = call.text("name")
    if not name:
        raise Invalid("bad parameter: name cannot be empty")
    return name
