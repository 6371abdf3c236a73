"""Every endpoint, one table. A path is matched after `/vX.Y` has been taken off; `{name}` of an image may hold slashes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from corten.api.call import Call
from corten.api.containers import ContainerHandlers
from corten.api.execs import ExecHandlers
from corten.api.images import ImageHandlers
from corten.api.lifecycle import LifecycleHandlers
from corten.api.system import SystemHandlers
from corten.api.volumes import VolumeHandlers

Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Handlers:
    containers: ContainerHandlers
    lifecycle: LifecycleHandlers
    execs: ExecHandlers
    images: ImageHandlers
    system: SystemHandlers
    volumes: VolumeHandlers


@dataclass(frozen=True)
class Route:
    methods: frozenset[str]
    pattern: re.Pattern[str]
    handler: Handler


def _route(methods: str, path: str, handler: Handler) -> Route:
    anything = path.startswith(("/images/", "/distribution/"))
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>.+)" if anything else r"(?P<\1>[^/]+)", path)
    return Route(frozenset(methods.split()), re.compile(pattern), handler)


def make_routes(handlers: Handlers) -> list[Route]:
    container, life, execs = handlers.containers, handlers.lifecycle, handlers.execs
    image, system = handlers.images, handlers.system
    volume = handlers.volumes
    return [
        _route("GET HEAD", "/_ping", system.ping),
        _route("GET", "/version", system.version),
        _route("GET", "/info", system.info),
        _route("POST", "/auth", system.auth),
        _route("GET", "/events", system.events),
        _route("GET", "/networks/?", system.networks),
        _route("GET", "/networks/{name}", system.network),
        _route("POST", "/containers/create", container.create),
        _route("GET", "/containers/json", container.list),
        _route("GET", "/containers/{name}/json", container.inspect),
        _route("POST", "/containers/{name}/start", life.start),
        _route("POST", "/containers/{name}/wait", life.wait),
        _route("POST", "/containers/{name}/attach", container.attach),
        _route("POST", "/containers/{name}/exec", execs.create),
        _route("POST", "/exec/{id}/start", execs.start),
        _route("GET", "/exec/{id}/json", execs.inspect),
        _route("POST", "/exec/{id}/resize", execs.resize),
        _route("DELETE", "/containers/{name}", life.remove),
        _route("GET", "/containers/{name}/logs", container.logs),
        _route("POST", "/containers/{name}/stop", life.stop),
        _route("POST", "/containers/{name}/restart", life.restart),
        _route("POST", "/containers/{name}/kill", life.kill),
        _route("POST", "/containers/{name}/pause", life.pause),
        _route("POST", "/containers/{name}/unpause", life.unpause),
        _route("POST", "/containers/{name}/rename", life.rename),
        _route("POST", "/containers/{name}/resize", container.resize),
        _route("GET", "/containers/{name}/top", container.top),
        _route("GET", "/containers/{name}/stats", container.stats),
        _route("HEAD", "/containers/{name}/archive", container.archive_stat),
        _route("GET", "/containers/{name}/archive", container.archive_get),
        _route("PUT", "/containers/{name}/archive", container.archive_put),
        _route("GET", "/images/json", image.list),
        _route("POST", "/images/create", image.create),
        _route("POST", "/images/load", image.load),
        _route("GET", "/images/{name}/json", image.inspect),
        _route("GET", "/images/{name}/history", image.history),
        _route("POST", "/images/{name}/tag", image.tag),
        _route("DELETE", "/images/{name}", image.remove),
        _route("GET", "/distribution/{name}/json", image.distribution),
        _route("GET", "/volumes", volume.list),
        _route("POST", "/volumes/create", volume.create),
        _route("POST", "/volumes/prune", volume.prune),
        _route("GET", "/volumes/{name}", volume.inspect),
        _route("PUT", "/volumes/{name}", volume.update),
        _route("DELETE", "/volumes/{name}", volume.remove),
        _route("POST", "/corten/hello", image.hello),
    ]
