"""Images as files: imported from a tar or an address, loaded and saved as archives."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from corten.api.call import Call
from corten.api.json_messages import JsonMessages
from corten.api.tar_response import tar_response
from corten.engine.image_transfers import ImageTransfers
from corten.engine.making import Making, repository_and_tag
from corten.engine.saving import Saving
from corten.errors import Invalid
from corten.registry.download import download
from corten.registry.progress import Emit, Progress, stream
from corten.spec.platform import Platform, decode_platform, parse_platform
from corten.store.layout import Layout

_REPORT_EVERY = 1 << 20


class ImageFileHandlers:
    def __init__(self, transfers: ImageTransfers, making: Making, saving: Saving, layout: Layout) -> None:
        self._transfers, self._making, self._saving, self._layout = transfers, making, saving, layout

    async def import_(self, call: Call) -> web.StreamResponse:
        """`POST /images/create?fromSrc=`: `-` is the body, anything else an address."""
        source = call.text("fromSrc")
        reference = repository_and_tag(call.text("repo"), call.text("tag"))
        platform = _platform(call.text("platform"))
        message, changes = call.text("message") or f"Imported from {source}", call.values("changes")
        messages = JsonMessages(call.request)
        async with messages.reporting():
            pieces = call.request.content.iter_any() if source == "-" else _from_address(source, messages)
            async with self._spooled(pieces) as path:
                image_id = await self._making.import_tar(path, reference, platform, message, changes)
            await messages.status(image_id)
        return await messages.end()

    async def load(self, call: Call) -> web.StreamResponse:
        platforms = [decode_platform(text) for text in call.values("platform") if text]
        messages = JsonMessages(call.request)
        await messages.begin()  # Docker's way: status 200, the error in the stream
        names: list[str] = []

        async def work(emit: Emit) -> None:
            names.extend(await self._transfers.load(call.request.content.iter_any(), platforms, emit))

        async with messages.reporting():
            await messages.relay(stream(work), silent=call.flag("quiet", default=True))
            for name in names:
                how = "Loaded image ID" if name.startswith("sha256:") else "Loaded image"
                await messages.send({"stream": f"{how}: {name}\n"})
        return await messages.end()

    async def save(self, call: Call) -> web.StreamResponse:
        names = [call.parameters["name"]] if "name" in call.parameters else call.values("names")
        plan = self._saving.plan(names, [decode_platform(text) for text in call.values("platform") if text])
        return await tar_response(call, self._saving.save(plan), {"Content-Type": "application/x-tar"})

    @asynccontextmanager
    async def _spooled(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[str]:
        """All of it in a file, for as long as the block lasts."""
        path = f"{self._layout.temporary}/archive-{secrets.token_hex(8)}"
        try:
            with open(path, "wb") as file:
                async for piece in pieces:
                    file.write(piece)
            yield path
        finally:
            os.unlink(path)


async def _from_address(source: str, messages: JsonMessages) -> AsyncIterator[bytes]:
    url = source if "://" in source else f"http://{source}"
    async with download(url) as found:
        await messages.status(f"Downloading from {url}")
        received = reported = 0
        async for piece in found.pieces:
            yield piece
            received += len(piece)
            if received - reported >= _REPORT_EVERY or received == found.total:
                reported = received
                await messages.progress(Progress("Importing", "", received, found.total))


def _platform(text: str) -> Platform | None:
    if not text:
        return None
    platform = parse_platform(text)
    if platform.os != "linux":
        raise Invalid("operating system is not supported")
    return platform
