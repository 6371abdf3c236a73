"""What is in a volume: all of it as a tar, and single paths in and out as of a container's archive. Requests in, services asked."""

from __future__ import annotations

from aiohttp import web

from corten.api.call import Call, empty
from corten.api.contents import archive_path, path_stat_header
from corten.api.tar_response import tar_response
from corten.engine.volume_files import WHOLE, VolumeFiles
from corten.engine.volumes import Volumes


class VolumeFileHandlers:
    def __init__(self, volumes: Volumes, files: VolumeFiles) -> None:
        self._volumes, self._files = volumes, files

    def _name(self, call: Call) -> str:
        return self._volumes.find(call.parameters["name"]).name

    async def save(self, call: Call) -> web.StreamResponse:
        return await tar_response(call, self._files.pack(self._name(call), WHOLE), {"Content-Type": "application/x-tar"})

    async def archive_stat(self, call: Call) -> web.Response:
        return web.Response(headers=path_stat_header(await self._files.stat(self._name(call), archive_path(call))))

    async def archive_get(self, call: Call) -> web.StreamResponse:
        name, path = self._name(call), archive_path(call)
        headers = {"Content-Type": "application/x-tar", **path_stat_header(await self._files.stat(name, path))}
        return await tar_response(call, self._files.pack(name, path), headers)

    async def archive_put(self, call: Call) -> web.Response:
        pieces = call.request.content.iter_any()
        await self._files.extract(self._name(call), archive_path(call), pieces, no_overwrite=call.flag("noOverwriteDirNonDir"))
        return empty(200)
