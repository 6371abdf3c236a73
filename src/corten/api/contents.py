"""What is in a container's root: what it changed, and files in and out. Requests in, services asked, Docker's shapes out."""

from __future__ import annotations

import asyncio
import base64

import msgspec
from aiohttp import web

from corten.api.call import Call, empty, json_response
from corten.api.tar_response import tar_response
from corten.engine.containers import Containers
from corten.engine.copy_job import PathStat
from corten.engine.copying import Copying
from corten.engine.making import CommitRequest, Making, repository_and_tag
from corten.engine.records import ContainerRecord
from corten.errors import Invalid
from corten.spec.engine import Config
from corten.store.changes import changes
from corten.store.snapshots import Snapshots


class ContentHandlers:
    def __init__(self, containers: Containers, copying: Copying, making: Making, snapshots: Snapshots) -> None:
        self._containers, self._copying, self._making, self._snapshots = containers, copying, making, snapshots

    def _find(self, call: Call) -> ContainerRecord:
        return self._containers.find(call.parameters["name"])

    async def changes(self, call: Call) -> web.Response:
        record = self._find(call)
        found = await asyncio.to_thread(changes, self._snapshots.upper(record.id), self._snapshots.below(record.diff_ids))
        return json_response(found or None)

    async def commit(self, call: Call) -> web.Response:
        reference = repository_and_tag(call.text("repo"), call.text("tag"))
        if not call.text("container"):
            raise Invalid('invalid name or ID supplied: ""')
        nothing = Config()
        config = await call.body(Config, empty=nothing)
        request = CommitRequest(
            reference, call.text("author"), call.text("comment"), call.flag("pause", default=True),
            None if config is nothing else config, call.values("changes"),
        )  # fmt: skip
        return json_response({"Id": await self._making.commit(self._containers.find(call.text("container")), request)}, 201)

    # --- files
    async def archive_stat(self, call: Call) -> web.Response:
        return web.Response(headers=await self._path_stat(call, self._find(call)))

    async def _path_stat(self, call: Call, record: ContainerRecord) -> dict[str, str]:
        path = archive_path(call)
        found = await self._copying.stat(record, path, call.parameters["name"])
        return path_stat_header(found)

    async def archive_get(self, call: Call) -> web.StreamResponse:
        record = self._find(call)
        headers = await self._path_stat(call, record)
        pieces = self._copying.pack(record, archive_path(call), call.parameters["name"])
        return await tar_response(call, pieces, {"Content-Type": "application/x-tar", **headers})

    async def archive_put(self, call: Call) -> web.Response:
        record = self._find(call)
        await self._copying.extract(
            record, archive_path(call), call.parameters["name"], call.request.content.iter_any(),
            no_overwrite=call.flag("noOverwriteDirNonDir"), as_user=call.flag("copyUIDGID"),
        )  # fmt: skip
        return empty(200)

    async def export(self, call: Call) -> web.StreamResponse:
        record = self._find(call)
        return await tar_response(call, self._copying.export(record), {"Content-Type": "application/octet-stream"})


def archive_path(call: Call) -> str:
    """Raises Invalid with Docker's text."""
    path = call.text("path")
    if not path:
        raise Invalid("bad parameter: pathcannot be empty")
    return path


def path_stat_header(found: PathStat) -> dict[str, str]:
    return {"X-Docker-Container-Path-Stat": base64.b64encode(msgspec.json.encode(found)).decode()}
