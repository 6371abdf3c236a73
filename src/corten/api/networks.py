"""Network endpoints: requests in, networks and endpoints asked, answers in Docker's shape (Engine 28.5, API 1.51). No policy here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from corten.api.call import Call, empty, json_response
from corten.engine.connecting import Connecting
from corten.engine.containers import Containers
from corten.engine.network_records import NetworkRecord
from corten.engine.networks import Networks
from corten.errors import CortenError, Invalid, NoSuchNetwork
from corten.spec.engine import EndpointSettings
from corten.spec.filters import Filters, matches_labels
from corten.spec.network import NetworkConnect, NetworkCreate, NetworkDisconnect
from corten.spec.timestamps import now_ns, parse_moment, parse_rfc3339

_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_GO_BOOLEANS = ("", "1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False")


class NetworkHandlers:
    def __init__(self, networks: Networks, connecting: Connecting, containers: Containers) -> None:
        self._networks, self._connecting, self._containers = networks, connecting, containers

    async def list(self, call: Call) -> web.Response:
        wanted = _selection(call.filters(*_FILTERS), self._in_use())
        return json_response([_view(network) for network in self._networks.all() if wanted(network)])

    def _in_use(self) -> set[str]:
        """Ids and names of the networks that containers have endpoints on."""
        places = [place for record in self._containers.all() for place in record.endpoints]
        return {place.network for place in places} | {place.network_id for place in places}

    async def inspect(self, call: Call) -> web.Response:
        verbose = call.text("verbose")  # shows the tasks of services, which there are none of without a swarm
        if verbose not in _GO_BOOLEANS:
            raise Invalid(f'invalid value for verbose: {verbose}: strconv.ParseBool: parsing "{verbose}": invalid syntax')
        network = self._networks.find(call.parameters["name"])
        if call.text("scope") not in ("", "local"):
            raise NoSuchNetwork(name=call.parameters["name"])
        return json_response(_view(network) | {"Containers": self._connected(network)})

    def _connected(self, network: NetworkRecord) -> dict[str, dict[str, str]]:
        return {
            record.id: {"Name": record.name, "EndpointID": place.id, "MacAddress": place.mac, "IPv4Address": place.address,
                        "IPv6Address": place.address6}
            for record in self._containers.all()
            for place in record.active_endpoints
            if place.network_id == network.id
        }  # fmt: skip

    async def create(self, call: Call) -> web.Response:
        network, warning = self._networks.create(await call.body(NetworkCreate, empty=NetworkCreate()))
        return json_response({"Id": network.id, "Warning": warning}, 201)

    async def remove(self, call: Call) -> web.Response:
        self._networks.remove(call.parameters["name"])
        return empty()

    async def connect(self, call: Call) -> web.Response:
        request = await call.body(NetworkConnect)
        if not request.container:
            raise Invalid('invalid name or ID supplied: ""')
        await self._connecting.connect(request.container, call.parameters["name"], request.endpoint_config or EndpointSettings())
        return empty(200)

    async def disconnect(self, call: Call) -> web.Response:
        request = await call.body(NetworkDisconnect)
        if not request.container:
            raise Invalid("invalid name: name is empty" if request.force else 'invalid name or ID supplied: ""')
        await self._connecting.disconnect(request.container, call.parameters["name"], force=request.force)
        return empty(200)

    async def prune(self, call: Call) -> web.Response:
        filters = call.filters("label", "label!", "until")
        untils = filters.get("until", [])
        if len(untils) > 1:
            raise Invalid("more than one until filter specified")
        until = _until(untils[0]) if untils else None

        def wanted(network: NetworkRecord) -> bool:
            young = until is not None and parse_rfc3339(network.created) > until
            unwanted = any(matches_labels([label], network.labels) for label in filters.get("label!", []))
            return not young and not unwanted and matches_labels(filters.get("label", []), network.labels)

        removed = self._networks.prune(wanted)
        return json_response({"NetworksDeleted": removed or None})


def _until(text: str) -> int:
    try:
        return parse_moment(text, now=now_ns())
    except Invalid:
        raise Invalid(f'failed to parse value as time or duration: "{text}"') from None


def _selection(filters: Filters, in_use: set[str]) -> Callable[[NetworkRecord], bool]:
    """Pure. Raises Invalid for values that Docker refuses."""
    dangling = filters.get("dangling", [])
    if len(dangling) > 1:
        raise Invalid('got more than one value for filter key "dangling"')
    if dangling and dangling[0] not in _BOOLEANS:
        raise Invalid('invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")')
    for value in filters.get("type", []):
        if value not in ("builtin", "custom"):
            raise BadType(value=value)
    tests: dict[str, Callable[[NetworkRecord, str], bool]] = {
        "driver": lambda network, value: network.driver == value,
        "id": lambda network, value: network.id.startswith(value),
        "name": lambda network, value: value in network.name,
        "scope": lambda _network, value: value == "local",
        "type": lambda network, value: network.builtin == (value == "builtin"),
        "dangling": lambda network, value: _BOOLEANS[value] == (not network.builtin and not {network.id, network.name} & in_use),
    }

    def wanted(network: NetworkRecord) -> bool:
        rows = [(key, values) for key, values in filters.items() if key != "label"]
        return matches_labels(filters.get("label", []), network.labels) and all(
            any(tests[key](network, value) for value in values) for key, values in rows
        )

    return wanted


class BadType(CortenError):
    """Docker answers 500 here; the text is what matters."""

    template = "invalid filter: 'type'='{value}'"


def _pools(network: NetworkRecord) -> list[dict[str, Any]] | None:
    """What was asked for as it was asked for, and of each family that was not, what was settled."""
    shown: list[dict[str, Any]] = [msgspec.to_builtins(pool) for pool in network.asked]
    for version in (4, 6):
        if not network.asked_for_subnet(version):
            shown += [{"Subnet": str(row.subnet), **({"Gateway": str(row.gateway)} if row.gateway else {})} for row in network.ranges(version)]
    return shown or None


def _view(network: NetworkRecord) -> dict[str, Any]:
    ipam = {"Driver": network.ipam_driver, "Options": network.ipam_options, "Config": _pools(network)}
    return {
        "Name": network.name, "Id": network.id, "Created": network.created, "Scope": "local", "Driver": network.driver,
        "EnableIPv4": network.ipv4, "EnableIPv6": network.ipv6, "IPAM": ipam,
        "Internal": network.internal, "Attachable": network.attachable, "Ingress": False, "ConfigFrom": {"Network": network.config_from},
        "ConfigOnly": network.config_only, "Containers": {}, "Options": network.options, "Labels": network.labels,
    }  # fmt: skip
