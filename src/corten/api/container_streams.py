"""A container's streams over HTTP: attach (hijacked), attach/ws (WebSocket), logs. No policy here.

An attached connection goes to the container's monitor. A WebSocket's frames are made here, so it ends with this process; what is
behind it is a connection like any other: a client that does not read is spooled for there, not here.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import aclosing, suppress

from aiohttp import WSMsgType, web

from corten.api import streams
from corten.api.call import Call
from corten.api.log_stream import Window, log_response, parse_window
from corten.engine import states
from corten.engine.attaching import Attaching, PendingAttach
from corten.engine.containers import Containers
from corten.engine.log_setup import LogSetup
from corten.engine.logs import Following, read_log
from corten.engine.records import ContainerRecord
from corten.errors import Invalid
from corten.runtime import messages

_CHUNK = 1 << 16
_BINARY_SINCE = (1, 28)


class StreamHandlers:
    def __init__(self, containers: Containers, attaching: Attaching, logs: LogSetup) -> None:
        self._containers, self._attaching, self._logs = containers, attaching, logs

    def _attachable(self, call: Call) -> ContainerRecord:
        record = self._containers.find(call.parameters["name"])
        states.check("attach", record, call.parameters["name"])
        return record

    @staticmethod
    def _wanted(call: Call, record: ContainerRecord, *, framed: bool) -> messages.Streams:
        streaming = call.flag("stream")
        return messages.Streams(
            streaming and call.flag("stdin") and record.config.open_stdin,
            streaming and call.flag("stdout"), streaming and call.flag("stderr"), framed,
        )  # fmt: skip

    async def attach(self, call: Call) -> web.Response:
        record = self._attachable(call)
        keys = streams.parse_detach_keys(call.text("detachKeys"))
        framed = not record.config.tty
        kept = self._logs.kept(record) if call.flag("logs") else None
        connection = await streams.hijack(call.request, framed=framed, version=call.version)
        if kept:
            window = _all(call, framed=framed)
            async with aclosing(read_log(kept, None, None)) as blocks:
                async for runs in blocks:
                    await connection.say(b"".join(map(window.show, runs)))
        if not call.flag("stream"):
            connection.close()
            return streams.over()
        await self._attaching.attach(record, PendingAttach(connection.fd, self._wanted(call, record, framed=framed), keys, connection.pending))
        return streams.over()

    async def attach_ws(self, call: Call) -> web.StreamResponse:
        record = self._attachable(call)
        try:
            keys = streams.parse_detach_keys(call.text("detachKeys"))
        except Invalid as error:
            raise Invalid(error.message[:1].upper() + error.message[1:]) from None  # Docker's other text of the same
        kept = self._logs.kept(record) if call.flag("logs") else None
        web_socket = web.WebSocketResponse()
        if not web_socket.can_prepare(call.request):
            raise Invalid("bad method or missing WebSocket upgrade headers")
        await web_socket.prepare(call.request)
        binary = call.version >= _BINARY_SINCE
        if kept:
            window = _all(call, framed=False)
            async with aclosing(read_log(kept, None, None)) as blocks:
                async for runs in blocks:
                    if data := b"".join(map(window.show, runs)):
                        await _say(web_socket, data, binary=binary)
        if call.flag("stream"):
            ours, theirs = socket.socketpair()
            with ours:
                ours.setblocking(False)
                wanted = self._wanted(call, record, framed=False)
                await self._attaching.attach(record, PendingAttach(theirs.detach(), wanted, keys, b""))
                await _relay(web_socket, ours, binary=binary)
        await web_socket.close()
        return web_socket

    async def logs(self, call: Call) -> web.StreamResponse:
        record = self._containers.find(call.parameters["name"])
        window, kept = parse_window(call, framed=not record.config.tty), self._logs.kept(record)
        if not call.flag("follow"):
            return await log_response(call, window, kept, None)

        def ended() -> bool:
            current = self._containers.current(record.id)
            return call.gone or current is None or not states.is_up(current)

        following = Following(ended)
        exit_of = self._containers.register(record.id, "exit")
        exit_of.add_done_callback(following.stir)
        try:
            return await log_response(call, window, kept, following)
        finally:
            self._containers.cancel(record.id, "exit", exit_of)


def _all(call: Call, *, framed: bool) -> Window:
    return Window(frozenset(stream for stream in ("stdout", "stderr") if call.flag(stream)), framed)


async def _say(web_socket: web.WebSocketResponse, data: bytes, *, binary: bool) -> None:
    if binary:
        await web_socket.send_bytes(data)
    else:
        await web_socket.send_str(data.decode("utf-8", "replace"))


async def _relay(web_socket: web.WebSocketResponse, plain: socket.socket, *, binary: bool) -> None:
    """Both ways until either side has ended."""
    loop = asyncio.get_running_loop()

    async def outward() -> None:
        while data := await loop.sock_recv(plain, _CHUNK):
            await _say(web_socket, data, binary=binary)

    async def inward() -> None:
        async for message in web_socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                data = message.data.encode() if isinstance(message.data, str) else message.data
                await loop.sock_sendall(plain, data)

    pumps = [asyncio.ensure_future(outward()), asyncio.ensure_future(inward())]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        with suppress(ConnectionError, OSError):
            await asyncio.gather(*pumps, return_exceptions=True)
