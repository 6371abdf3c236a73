"""Corten's own volume endpoints (docs/volumes.md): rename, clone, snapshot, save, load. Requests in, services asked."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from corten.api import views
from corten.api.call import Call, empty, json_response
from corten.api.tar_response import tar_response
from corten.engine.records import VolumeRecord
from corten.engine.volume_copies import VolumeCopies
from corten.engine.volume_renaming import Renaming
from corten.engine.volumes import Volumes
from corten.errors import Invalid


class VolumeExtraHandlers:
    def __init__(self, volumes: Volumes, copies: VolumeCopies, renaming: Renaming) -> None:
        self._volumes, self._copies, self._renaming = volumes, copies, renaming

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


def _new_name(call: Call) -> str:
    name = call.text("name")
    if not name:
        raise Invalid("bad parameter: name cannot be empty")
    return name
