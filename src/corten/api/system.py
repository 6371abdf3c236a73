"""System endpoints: ping, version, info, credentials."""

from __future__ import annotations

from aiohttp import web

from corten.api.call import Call, json_response
from corten.engine.system import System
from corten.registry.auth import Credentials
from corten.registry.hosts import RegistryHosts
from corten.registry.login import log_in
from corten.spec.bodies import parse_body

_PING_HEADERS = {
    "Builder-Version": "1", "Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Swarm": "inactive",
}  # fmt: skip


class SystemHandlers:
    def __init__(self, system: System, hosts: RegistryHosts) -> None:
        self._system, self._hosts = system, hosts

    async def ping(self, call: Call) -> web.Response:
        text = "" if call.request.method == "HEAD" else "OK"
        return web.Response(text=text, headers=_PING_HEADERS)

    async def version(self, _call: Call) -> web.Response:
        return json_response(self._system.version())

    async def info(self, _call: Call) -> web.Response:
        return json_response(self._system.info())

    async def auth(self, call: Call) -> web.Response:
        """Any content type, as Docker takes it."""
        credentials = parse_body(await call.raw_body(), Credentials)
        return json_response({"IdentityToken": await log_in(credentials, self._hosts), "Status": "Login Succeeded"})
