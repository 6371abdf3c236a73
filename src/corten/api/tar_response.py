"""A tar that is made while it is sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from corten.api.call import Call


async def tar_response(call: Call, pieces: AsyncGenerator[bytes, None], headers: dict[str, str]) -> web.StreamResponse:
    """The head goes out with the first piece: what fails before it is an ordinary answer."""
    async with aclosing(pieces):  # a client that leaves ends the worker now, not when somebody collects garbage
        first = await anext(pieces, b"")
        response = web.StreamResponse(headers=headers)
        await response.prepare(call.request)
        await response.write(first)
        async for data in pieces:
            await response.write(data)
        await response.write_eof()
    return response
