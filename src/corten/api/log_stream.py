"""`GET /containers/{id}/logs`: the query's window over the engine's log lines, framed for the client."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from corten.api.call import Call
from corten.api.streams import MULTIPLEXED_STREAM, RAW_STREAM, frame
from corten.engine.logs import Line, follow, read_stored
from corten.engine.records import ContainerRecord
from corten.errors import Invalid, NotSupported
from corten.spec.timestamps import now_ns, parse_moment, rfc3339_nano_fixed

_FLUSH = 1 << 16


def _tail(call: Call) -> int | None:
    text = call.text("tail")
    return int(text) if text.isdigit() else None


async def _lines(call: Call, path: str, ended: Callable[[], bool]) -> AsyncIterator[Line]:
    if not os.path.exists(path):
        return
    if call.flag("follow"):
        async for line in follow(path, _tail(call), lambda: ended() or call.gone):
            yield line
    else:
        for line in read_stored(path, _tail(call)):
            yield line


async def log_response(call: Call, record: ContainerRecord, path: str, ended: Callable[[], bool]) -> web.StreamResponse:
    """Raises Invalid unless a stream is chosen, NotSupported for a driver that keeps nothing."""
    if not call.flag("stdout") and not call.flag("stderr"):
        raise Invalid("Bad parameters: you must choose at least one stream")
    call.refuse("details")
    if record.host_config.log_config.type == "none":
        raise NotSupported("configured logging driver does not support reading")
    now = now_ns()
    since = parse_moment(call.text("since"), now=now) if call.text("since") else 0
    until = parse_moment(call.text("until"), now=now) if call.text("until") not in ("", "0") else None
    framed = not record.config.tty
    content_type = MULTIPLEXED_STREAM if framed and call.version >= (1, 42) else RAW_STREAM
    response = web.StreamResponse(headers={"Content-Type": content_type})
    await response.prepare(call.request)
    block = bytearray()
    following = call.flag("follow")
    async for line in _lines(call, path, ended):
        if line.time < since or not call.flag(line.stream):
            continue
        if until is not None and line.time > until:
            break
        data = line.data
        if call.flag("timestamps"):
            data = rfc3339_nano_fixed(line.time).encode() + b" " + data
        block += frame(line.stream, data) if framed else data
        if following or len(block) >= _FLUSH:
            await response.write(bytes(block))
            block.clear()
    if block:
        await response.write(bytes(block))
    await response.write_eof()
    return response
