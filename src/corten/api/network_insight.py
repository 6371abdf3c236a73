"""Corten's own about networks: what there should be, what there is, where a packet goes, and taking it all away (docs/own-api.md)."""

from __future__ import annotations

from aiohttp import web

from corten.api.call import Call, json_response
from corten.engine.endpoints import Endpoints
from corten.engine.network_map import NetworkMap
from corten.engine.teardown import Teardown
from corten.engine.tracing import Step, Tracing
from corten.errors import Invalid
from corten.spec import answers

_LONGEST = 60  # seconds to wait for a packet from outside
_WAIT = 10


class NetworkInsightHandlers:
    def __init__(self, endpoints: Endpoints, network_map: NetworkMap, tracing: Tracing, teardown: Teardown) -> None:
        self._endpoints, self._map, self._tracing, self._teardown = endpoints, network_map, tracing, teardown

    async def plan(self, _call: Call) -> web.Response:
        return web.Response(text=self._endpoints.plan())

    async def map(self, call: Call) -> web.Response:
        return json_response(self._map.draw(call.values("network")))

    async def trace(self, call: Call) -> web.Response:
        source, target, port = call.text("source"), call.text("target"), call.number("port") or 0
        if not source or not target:
            raise Invalid("want where from and where to: ?source=NAME&target=NAME&port=NUMBER")
        wait = call.number("wait")
        wait = _WAIT if wait is None else min(max(wait, 0), _LONGEST)
        found = await self._tracing.trace(source, target, port, call.text("protocol") or "tcp", wait)
        dropped = _step(found.dropped_by) if found.dropped_by else None
        return json_response(
            answers.PacketTrace(found.source, found.destination, found.outcome, [_step(step) for step in found.steps], dropped, found.conclusion)
        )

    async def teardown(self, _call: Call) -> web.Response:
        done = self._teardown.tear_down()
        return json_response(answers.TornDown(done.links, done.table, done.sysctls))


def _step(step: Step) -> answers.TraceStep:
    return answers.TraceStep(step.owner, step.where, step.text, step.verdict)
