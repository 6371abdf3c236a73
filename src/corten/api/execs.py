"""Exec endpoints: create, start (a hijacked stream), inspect, resize. No policy here."""

from __future__ import annotations

import os

from aiohttp import web

from corten.api import streams, views
from corten.api.call import Call, empty, json_response
from corten.api.containers import window_size
from corten.engine.containers import Containers
from corten.engine.execs import ExecRecord, Execs
from corten.engine.tool_shell import Tools
from corten.errors import CortenError, Invalid
from corten.runtime import messages
from corten.spec import answers
from corten.spec.engine import ExecConfig, ExecStart, ToolsRequest


class ExecHandlers:
    def __init__(self, containers: Containers, execs: Execs, tools: Tools) -> None:
        self._containers, self._execs, self._tools = containers, execs, tools

    async def create(self, call: Call) -> web.Response:
        container = self._containers.find(call.parameters["name"])
        record = self._execs.create(container, await call.body(ExecConfig), called=call.parameters["name"])
        return json_response({"Id": record.id}, 201)

    async def tools(self, call: Call) -> web.Response:
        """Corten's own: a shell of another image in a container, running or not."""
        called = call.parameters["name"]
        request = await call.body(ToolsRequest)
        if not request.image:
            raise Invalid("Image: the name of an image with the tools is missing")
        entered = await self._tools.enter(self._containers.find(called), request, called)
        return json_response(answers.Tools(entered.exec_id, entered.container_id), 201)

    async def start(self, call: Call) -> web.Response:
        record = self._execs.find(call.parameters["id"])
        request = await call.body(ExecStart)
        self._execs.check_start(record.id)
        config = record.config  # its terminal is the process's; what the client reads is framed unless it says otherwise now
        wanted = messages.Streams(config.attach_stdin, config.attach_stdout, config.attach_stderr, not request.tty)
        if request.detach:
            await self._execs.start(record, request, None, messages.Streams(False, False, False, False), b"", b"")
            return empty(200)
        keys = streams.parse_detach_keys(config.detach_keys)
        connection = await streams.hijack(call.request, framed=not request.tty, version=call.version)
        await self._run(record, request, connection, wanted, keys)
        return streams.over()

    async def _run(self, record: ExecRecord, request: ExecStart, connection: streams.Hijacked, wanted: messages.Streams, keys: bytes) -> None:
        """The head has been sent: from here on errors travel in the stream, as Docker's do."""
        try:
            await self._execs.start(record, request, connection.fd, wanted, keys, connection.pending)
        except CortenError as error:
            text = f"{error.message}\r\n".encode()
            await connection.say(text if request.tty else streams.frame("stdout", text))
        finally:
            os.close(connection.fd)

    async def inspect(self, call: Call) -> web.Response:
        return json_response(views.exec_view(self._execs.current(call.parameters["id"])))

    async def resize(self, call: Call) -> web.Response:
        height, width = window_size(call)
        await self._execs.resize(self._execs.find(call.parameters["id"]), height, width)
        return empty(200)
