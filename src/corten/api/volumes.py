"""Volume endpoints: requests in, the volume service asked, answers in Docker's shape. No policy here."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from corten.api import views
from corten.api.call import Call, empty, json_response
from corten.api.versions import Since
from corten.engine.records import VolumeRecord
from corten.engine.volume_pruning import VolumePruning
from corten.engine.volumes import Volumes
from corten.errors import Invalid, InvalidFilter, NotSwarmManager, Unavailable
from corten.spec.engine import VolumeRequest


class VolumeHandlers:
    def __init__(self, volumes: Volumes, pruning: VolumePruning) -> None:
        self._volumes, self._pruning = volumes, pruning

    def _view(self, record: VolumeRecord) -> dict[str, Any]:
        return views.volume_view(record, self._volumes.path(record), self._volumes.scope(record))

    async def list(self, call: Call) -> web.Response:
        try:
            filters = call.filters("dangling", "driver", "label", "name")
        except InvalidFilter:
            raise
        except Invalid as error:
            raise Invalid(f"error reading volume filters: {error.message}") from None
        strangers, warnings = await self._volumes.discover()
        found = self._volumes.matching(filters, strangers)
        return json_response({"Volumes": [self._view(record) for record in found], "Warnings": warnings or None})

    async def create(self, call: Call) -> web.Response:
        request = await call.body(VolumeRequest, empty=VolumeRequest())
        if request.cluster_volume_spec is not None and call.has(Since.CLUSTER_VOLUMES):
            raise NotSwarmManager
        record = await self._volumes.create(request.name, request.driver, request.driver_opts, request.labels)
        return json_response(self._view(record), 201)

    async def inspect(self, call: Call) -> web.Response:
        await self._volumes.look_for(call.parameters["name"])
        record = self._volumes.find(call.parameters["name"])
        status = await self._volumes.status(record)
        return json_response(self._view(record) | ({"Status": status} if status else {}))

    async def update(self, _call: Call) -> web.Response:
        raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")

    async def remove(self, call: Call) -> web.Response:
        await self._volumes.remove(call.parameters["name"], force=call.flag("force"))
        return empty()

    async def prune(self, call: Call) -> web.Response:
        filters = call.filters("all", "label", "label!")
        if not call.has(Since.ANONYMOUS_PRUNE):
            filters = {**filters, "all": ["true"]}
        pruned = await self._pruning.prune(filters)
        return json_response({"VolumesDeleted": pruned.names, "SpaceReclaimed": pruned.reclaimed})
