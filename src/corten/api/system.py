"""System and network endpoints: ping, version, info, events, networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from corten.api import views
from corten.api.call import Call, json_response
from corten.engine.containers import Containers
from corten.engine.events import Event, Events
from corten.engine.networks import Network, Networks
from corten.engine.system import System
from corten.errors import Invalid, NoSuchNetwork, NotSupported
from corten.spec.filters import Filters
from corten.spec.timestamps import now_ns, parse_moment

_EVENT_FILTERS = ("config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service", "type", "volume")
_SECOND = 1_000_000_000
_PING_HEADERS = {
    "Builder-Version": "1", "Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Swarm": "inactive",
}  # fmt: skip


class SystemHandlers:
    def __init__(self, system: System, events: Events, networks: Networks, containers: Containers) -> None:
        self._system, self._events, self._networks, self._containers = system, events, networks, containers

    async def ping(self, call: Call) -> web.Response:
        text = "" if call.request.method == "HEAD" else "OK"
        return web.Response(text=text, headers=_PING_HEADERS)

    async def version(self, _call: Call) -> web.Response:
        return json_response(self._system.version())

    async def info(self, _call: Call) -> web.Response:
        return json_response(self._system.info())

    async def auth(self, _call: Call) -> web.Response:
        raise NotSupported("checking credentials is not supported by Corten yet (docs/compat.md); they are used as sent with a pull")

    async def events(self, call: Call) -> web.StreamResponse:
        filters = call.filters(*_EVENT_FILTERS)
        now = now_ns()
        since = parse_moment(call.text("since"), now=now) if call.text("since") else None
        until = parse_moment(call.text("until"), now=now) if call.text("until") else None
        if since is not None and until is not None and since > until:
            raise Invalid(f"`since` time ({call.text('since')}) cannot be after `until` time ({call.text('until')})")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(call.request)
        async for event in self._events.follow(event_filter(filters), since, until):
            await response.write(msgspec.json.encode(event_view(event, call.version)) + b"\n")
        await response.write_eof()
        return response

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


def event_view(event: Event, version: tuple[int, int]) -> dict[str, Any]:
    """Before 1.52 container and image events carry status, id and from besides."""
    shown: dict[str, Any] = {}
    if version < (1, 52) and event.type in ("container", "image"):
        shown = {"status": event.action, "id": event.id}
        if event.type == "container":
            shown["from"] = event.attributes.get("image", "")
    return shown | {
        "Type": event.type, "Action": event.action, "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local", "time": event.time // _SECOND, "timeNano": event.time,
    }  # fmt: skip


def event_filter(filters: Filters) -> Callable[[Event], bool]:
    """Pure: whether an event is wanted. An object matches by id, id prefix or name."""

    def names(event: Event, values: list[str]) -> bool:
        return any(value == event.attributes.get("name") or (value and event.id.startswith(value)) for value in values)

    def wanted(event: Event) -> bool:
        for key, values in filters.items():
            if key == "type":
                good = event.type in values
            elif key == "event":
                good = any(event.action == value or event.action.startswith(f"{value}:") for value in values)
            elif key == "label":
                good = all((value.partition("=")[0] in event.attributes) and
                           ("=" not in value or event.attributes[value.partition("=")[0]] == value.partition("=")[2]) for value in values)  # fmt: skip
            elif key == "scope":
                good = "local" in values
            elif key == "image" and event.type == "container":
                good = event.attributes.get("image") in values
            else:
                good = event.type == key and names(event, values)
            if not good:
                return False
        return True

    return wanted
