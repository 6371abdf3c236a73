"""System and network endpoints: ping, version, info, credentials, networks."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from corten.api import views
from corten.api.call import Call, json_response
from corten.engine.containers import Containers
from corten.engine.networks import Network, Networks
from corten.engine.system import System
from corten.errors import NoSuchNetwork
from corten.registry.auth import Credentials
from corten.registry.login import log_in
from corten.spec.engine import parse_body
from corten.spec.filters import Filters

_PING_HEADERS = {
    "Builder-Version": "1", "Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Swarm": "inactive",
}  # fmt: skip


class SystemHandlers:
    def __init__(self, system: System, networks: Networks, containers: Containers) -> None:
        self._system, self._networks, self._containers = system, networks, containers

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
        return json_response({"IdentityToken": await log_in(credentials), "Status": "Login Succeeded"})

    # --- networks
    async def networks(self, call: Call) -> web.Response:
        filters = call.filters("dangling", "driver", "id", "label", "name", "scope", "type")
        return json_response([views.network_view(network, {}) for network in self._networks.all() if self._matches(network, filters)])

    @staticmethod
    def _matches(network: Network, filters: Filters) -> bool:
        tests: dict[str, Callable[[str], bool]] = {
            "driver": lambda value: network.driver == value,
            "id": lambda value: network.id.startswith(value),
            "name": lambda value: value in network.name,
            "scope": lambda value: value == "local",
            "type": lambda value: value == "builtin",
            "dangling": lambda value: value.lower() in ("0", "false"),
            "label": lambda _value: False,
        }
        return all(any(tests[key](value) for value in values) for key, values in filters.items())

    async def network(self, call: Call) -> web.Response:
        network = self._networks.find(call.parameters["name"])
        if call.text("scope") not in ("", "local"):
            raise NoSuchNetwork(name=call.parameters["name"])
        return json_response(views.network_view(network, self._endpoints(network)))

    def _endpoints(self, network: Network) -> dict[str, dict[str, str]]:
        return {
            record.id: {"Name": record.name, "EndpointID": endpoint.id, "MacAddress": endpoint.mac,
                        "IPv4Address": endpoint.address, "IPv6Address": endpoint.address6}
            for record in self._containers.all()
            for endpoint in record.active_endpoints
            if endpoint.network_id == network.id
        }  # fmt: skip
