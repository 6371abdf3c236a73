"""OCI layouts of a client's that are contexts of its builds: which of their blobs are not here yet, and taking in the rest. docs/own-api.md."""

from __future__ import annotations

from aiohttp import web

from corten.api.call import Call, json_response
from corten.engine.image_transfers import ImageTransfers
from corten.errors import Invalid
from corten.spec.digest import is_digest
from corten.store.blobs import Blobs
from corten.store.layers import Layers


class BuildLayoutHandlers:
    def __init__(self, transfers: ImageTransfers, blobs: Blobs, layers: Layers) -> None:
        self._transfers, self._blobs, self._layers = transfers, blobs, layers

    async def missing(self, call: Call) -> web.Response:
        """The body is a list of digests; the answer those of them that the store does not have, and cannot make again."""
        asked = await call.body(list[str])
        if bad := next((digest for digest in asked if not is_digest(digest)), None):
            raise Invalid(f"{bad!r} is no digest")
        spare = {blob for blob, _ in self._layers.tars.spare()}
        return json_response([digest for digest in asked if digest not in spare and not self._blobs.has(digest)])

    async def receive(self, call: Call) -> web.Response:
        """A layout in a tar, without what `missing` has not named. The images are stored without a name; the answer are their ids."""
        return json_response(await self._transfers.load(call.request.content.iter_any(), partial=True))
