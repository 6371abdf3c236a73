"""Swarm and managed plugins, which this engine has none of: answered as an engine outside a swarm and without plugins answers.

Clients ask (docker-py leaves a swarm before its network tests, `docker stack` looks for a manager); what would make a swarm or bring
a plugin is refused by name. Source: recorded answers of Docker Engine 28.5.
"""

from __future__ import annotations

from aiohttp import web

from corten.api.call import Call, json_response
from corten.errors import NoSuchPlugin, NotInSwarm, NotSupported, NotSwarmManager

# (method, path) of what only a swarm manager answers.
_MANAGERS = [
    ("GET", "/swarm"), ("POST", "/swarm/update"), ("GET", "/swarm/unlockkey"), ("POST", "/swarm/unlock"),
    ("GET", "/nodes"), ("GET", "/nodes/{name}"), ("DELETE", "/nodes/{name}"), ("POST", "/nodes/{name}/update"),
    ("GET", "/services/{name}/logs"), ("GET", "/tasks"), ("GET", "/tasks/{name}/logs"), ("GET", "/tasks/{name}"),
    *((method, f"/{kind}{path}") for kind in ("services", "secrets", "configs")
      for method, path in (("GET", ""), ("POST", "/create"), ("GET", "/{name}"), ("DELETE", "/{name}"), ("POST", "/{name}/update"))),
]  # fmt: skip
_PLUGIN = [("GET", "/json"), ("POST", "/enable"), ("POST", "/disable"), ("POST", "/upgrade"), ("POST", "/push"), ("POST", "/set"), ("DELETE", "")]


async def _no_manager(call: Call) -> web.Response:
    call.any_filters()
    raise NotSwarmManager


async def _not_in_swarm(_call: Call) -> web.Response:
    raise NotInSwarm


async def _no_swarm(_call: Call) -> web.Response:
    raise NotSupported("swarm mode is not supported by Corten (docs/compat.md)")


async def _no_plugin(call: Call) -> web.Response:
    raise NoSuchPlugin(name=call.parameters["name"])


async def _plugins(call: Call) -> web.Response:
    call.filters("capability", "enabled")
    return json_response([])


async def _unpluggable(_call: Call) -> web.Response:
    raise NotSupported("managed plugins are not supported by Corten (docs/compat.md)")


# (method, path, handler)
ROWS = [
    *((method, path, _no_manager) for method, path in _MANAGERS),
    ("POST", "/swarm/leave", _not_in_swarm), ("POST", "/swarm/init", _no_swarm), ("POST", "/swarm/join", _no_swarm),
    ("GET", "/plugins", _plugins), ("POST", "/plugins/pull", _unpluggable), ("POST", "/plugins/create", _unpluggable),
    ("GET", "/plugins/privileges", _unpluggable),
    *((method, f"/plugins/{{name}}{path}", _no_plugin) for method, path in _PLUGIN),
]  # fmt: skip
