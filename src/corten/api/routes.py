"""Every endpoint, one table: path, handler, query parameters, body and answer. The OpenAPI document is made from it (openapi.py).

A path is matched after `/vX.Y` has been taken off. What older versions have differently is in versions.py. Parameters that are
refused are not listed. Must not hold any endpoint's logic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from corten.api.absent import ROWS as NOT_HERE
from corten.api.build_cache import PRUNE_QUERY, BuildCacheHandlers
from corten.api.build_layouts import BuildLayoutHandlers
from corten.api.build_query import BUILD_QUERY, CALL_QUERY, CONTEXTS_QUERY
from corten.api.building import Building
from corten.api.call import Call, json_response
from corten.api.container_streams import StreamHandlers
from corten.api.containers import ContainerHandlers
from corten.api.contents import ContentHandlers
from corten.api.disk import DiskHandlers
from corten.api.events import EventHandlers
from corten.api.execs import ExecHandlers
from corten.api.image_files import ImageFileHandlers
from corten.api.images import ImageHandlers
from corten.api.insight import InsightHandlers
from corten.api.lifecycle import LifecycleHandlers
from corten.api.network_insight import NetworkInsightHandlers
from corten.api.networks import NetworkHandlers
from corten.api.openapi import document
from corten.api.route import Handler, Route, Stream
from corten.api.streams import RAW_STREAM
from corten.api.system import SystemHandlers
from corten.api.usage import UsageHandlers
from corten.api.volume_extras import VolumeExtraHandlers
from corten.api.volume_files import VolumeFileHandlers
from corten.api.volumes import VolumeHandlers
from corten.registry.auth import Credentials
from corten.registry.search import Found
from corten.spec import answers, disk_answers
from corten.spec.build_cache import ImportedBuildCache
from corten.spec.context_listing import Digests, Listing, Wanted
from corten.spec.engine import (
    Config,
    CreateRequest,
    EditRequest,
    ExecConfig,
    ExecStart,
    ToolsRequest,
    UpdateRequest,
    VolumeRequest,
)
from corten.spec.filters import Filters
from corten.spec.network import NetworkConnect, NetworkCreate, NetworkDisconnect


@dataclass(frozen=True)
class Handlers:
    containers: ContainerHandlers
    streams: StreamHandlers
    contents: ContentHandlers
    lifecycle: LifecycleHandlers
    execs: ExecHandlers
    images: ImageHandlers
    files: ImageFileHandlers
    networks: NetworkHandlers
    wires: NetworkInsightHandlers
    system: SystemHandlers
    events: EventHandlers
    usage: UsageHandlers
    building: Building
    build_cache: BuildCacheHandlers
    build_layouts: BuildLayoutHandlers
    volumes: VolumeHandlers
    volume_extras: VolumeExtraHandlers
    volume_files: VolumeFileHandlers
    insight: InsightHandlers
    disk: DiskHandlers


def _route(methods: str, path: str, handler: Handler, **row: Any) -> Route:
    return Route(tuple(methods.split()), path, handler, **row)


JSON_MESSAGES, TAR, STREAM = Stream("application/json"), Stream("application/x-tar"), Stream(RAW_STREAM)
_TEXT = Stream("text/plain")


def _build_routes(handlers: Handlers) -> list[Route]:
    at = handlers.building.at
    return [
        _route("POST", "/build", at(lambda place: place.builds.build), query=BUILD_QUERY, body=TAR, answer=JSON_MESSAGES),
        _route("POST", "/build/prune", handlers.build_cache.prune, query=PRUNE_QUERY, answer=answers.PrunedBuildCache),
        _route("POST", "/build/cancel", at(lambda place: place.builds.cancel), query={"id": str}),
        _route("POST", "/corten/build/cache", at(lambda place: place.builds.receive_cache), body=TAR, answer=ImportedBuildCache),
        _route("POST", "/corten/build/contexts", at(lambda place: place.folders.open), query=CONTEXTS_QUERY, body=Listing, answer=Wanted),
        _route("DELETE", "/corten/build/contexts/{id}", at(lambda place: place.folders.forget), status=204),
        _route("POST", "/corten/build/contexts/{id}/digests", at(lambda place: place.folders.digests), body=Digests, status=204),
        _route("POST", "/corten/build/contexts/{id}/contents", at(lambda place: place.folders.contents), body=Stream("application/octet-stream"), status=204),
        _route("GET", "/corten/build/outputs/{id}", at(lambda place: place.builds.fetch), answer=TAR),
    ]


def make_routes(handlers: Handlers) -> list[Route]:
    container, stream, life, execs = handlers.containers, handlers.streams, handlers.lifecycle, handlers.execs
    content, image, system, volume = handlers.contents, handlers.images, handlers.system, handlers.volumes
    network = handlers.networks
    attach = {"detachKeys": str, "logs": bool, "stream": bool, "stdin": bool, "stdout": bool, "stderr": bool}
    create_image = {"fromImage": str, "tag": str, "platform": str, "fromSrc": str, "repo": str, "message": str, "changes": list[str]}
    commit = {"container": str, "repo": str, "tag": str, "comment": str, "author": str, "pause": bool, "changes": list[str]}
    rows = [
        _route("GET HEAD", "/_ping", system.ping, answer=_TEXT),
        _route("GET", "/version", system.version, answer=answers.Version),
        _route("GET", "/info", system.info, answer=answers.Info),
        _route("POST", "/auth", system.auth, body=Credentials, answer=answers.LoggedIn),
        _route("GET", "/system/df", handlers.usage.disk_usage, query={"type": list[str]}, answer=answers.DiskUsage),
        _route("GET", "/events", handlers.events.events, query={"since": str, "until": str, "filters": Filters}, answer=JSON_MESSAGES),
        # --- networks
        _route("GET", "/networks", network.list, query={"filters": Filters}, answer=list[answers.Network]),
        _route("GET", "/networks/", network.list, query={"filters": Filters}, answer=list[answers.Network]),
        _route("POST", "/networks/create", network.create, body=NetworkCreate, answer=answers.CreatedNetwork, status=201),
        _route("POST", "/networks/prune", network.prune, query={"filters": Filters}, answer=answers.PrunedNetworks),
        _route("GET", "/networks/{name}", network.inspect, query={"verbose": bool, "scope": str}, answer=answers.Network),
        _route("DELETE", "/networks/{name}", network.remove, status=204),
        _route("POST", "/networks/{name}/connect", network.connect, body=NetworkConnect),
        _route("POST", "/networks/{name}/disconnect", network.disconnect, body=NetworkDisconnect),
        # --- volumes
        _route("GET", "/volumes", volume.list, query={"filters": Filters}, answer=answers.Volumes),
        _route("POST", "/volumes/create", volume.create, body=VolumeRequest, answer=answers.Volume, status=201),
        _route("POST", "/volumes/prune", volume.prune, query={"filters": Filters}, answer=answers.PrunedVolumes),
        _route("GET", "/volumes/{name}", volume.inspect, answer=answers.Volume),
        _route("PUT", "/volumes/{name}", volume.update, query={"version": int}),
        _route("DELETE", "/volumes/{name}", volume.remove, query={"force": bool}, status=204),
        # --- containers
        _route("POST", "/containers/create", container.create, query={"name": str, "platform": str}, body=CreateRequest, answer=answers.Created, status=201),
        _route("GET", "/containers/json", container.list, query={"all": bool, "limit": int, "size": bool, "filters": Filters},
               answer=list[answers.ContainerSummary]),
        _route("GET", "/containers/{name}/json", container.inspect, query={"size": bool}, answer=answers.Container),
        _route("POST", "/containers/{name}/start", life.start, query={"detachKeys": str}, status=204),
        _route("POST", "/containers/{name}/wait", life.wait, query={"condition": str}, answer=answers.Waited),
        _route("POST", "/containers/{name}/attach", stream.attach, query=attach, answer=STREAM),
        _route("GET", "/containers/{name}/attach/ws", stream.attach_ws, query=attach, answer=STREAM, status=101),
        _route("POST", "/containers/{name}/exec", execs.create, body=ExecConfig, answer=answers.Id, status=201),
        _route("POST", "/exec/{id}/start", execs.start, body=ExecStart, answer=STREAM),
        _route("GET", "/exec/{id}/json", execs.inspect, answer=answers.Exec),
        _route("POST", "/exec/{id}/resize", execs.resize, query={"h": int, "w": int}),
        _route("DELETE", "/containers/{name}", life.remove, query={"v": bool, "force": bool, "link": bool}, status=204),
        _route("GET", "/containers/{name}/logs", stream.logs, answer=STREAM,
               query={"follow": bool, "stdout": bool, "stderr": bool, "since": str, "until": str, "timestamps": bool, "tail": str, "details": bool}),
        _route("POST", "/containers/{name}/stop", life.stop, query={"signal": str, "t": int}, status=204),
        _route("POST", "/containers/{name}/restart", life.restart, query={"signal": str, "t": int}, status=204),
        _route("POST", "/containers/{name}/kill", life.kill, query={"signal": str}, status=204),
        _route("POST", "/containers/{name}/pause", life.pause, status=204),
        _route("POST", "/containers/{name}/unpause", life.unpause, status=204),
        _route("POST", "/containers/{name}/rename", life.rename, query={"name": str}, status=204),
        _route("POST", "/containers/{name}/update", life.update, body=UpdateRequest, answer=answers.Updated),
        _route("POST", "/containers/prune", life.prune, query={"filters": Filters}, answer=answers.PrunedContainers),
        _route("POST", "/containers/{name}/resize", container.resize, query={"h": int, "w": int}),
        _route("GET", "/containers/{name}/top", container.top, query={"ps_args": str}, answer=answers.Top),
        _route("GET", "/containers/{name}/stats", container.stats, query={"stream": bool, "one-shot": bool}, answer=JSON_MESSAGES),
        _route("GET", "/containers/{name}/changes", content.changes, answer=list[answers.Change] | None),
        _route("GET", "/containers/{name}/export", content.export, answer=TAR),
        _route("HEAD", "/containers/{name}/archive", content.archive_stat, query={"path": str}),
        _route("GET", "/containers/{name}/archive", content.archive_get, query={"path": str}, answer=TAR),
        _route("PUT", "/containers/{name}/archive", content.archive_put, query={"path": str, "noOverwriteDirNonDir": bool, "copyUIDGID": bool}, body=TAR),
        _route("POST", "/commit", content.commit, query=commit, body=Config, answer=answers.Id, status=201),
        # --- images
        _route("GET", "/images/json", image.list, query={"all": bool, "digests": bool, "filter": str, "filters": Filters, "shared-size": bool, "manifests": bool},
               answer=list[answers.ImageSummary]),
        _route("POST", "/images/create", image.create, query=create_image, body=TAR, answer=JSON_MESSAGES),
        *_build_routes(handlers),
        _route("POST", "/images/load", handlers.files.load, query={"quiet": bool, "platform": list[str]}, body=TAR, answer=JSON_MESSAGES),
        _route("GET", "/images/get", handlers.files.save, query={"names": list[str], "platform": list[str]}, answer=TAR),
        _route("GET", "/images/{name}/get", handlers.files.save, query={"platform": list[str]}, answer=TAR),
        _route("GET", "/images/{name}/json", image.inspect, query={"manifests": bool, "platform": str}, answer=answers.Image),
        _route("GET", "/images/{name}/history", image.history, query={"platform": str}, answer=list[answers.HistoryRow]),
        _route("POST", "/images/{name}/push", image.push, query={"tag": str, "platform": str}, answer=JSON_MESSAGES),
        _route("POST", "/images/{name}/tag", image.tag, query={"repo": str, "tag": str}, status=201),
        _route("POST", "/images/prune", image.prune, query={"filters": Filters}, answer=answers.PrunedImages),
        _route("DELETE", "/images/{name}", image.remove, query={"force": bool, "noprune": bool, "platforms": list[str]}, answer=list[answers.Removed]),
        _route("GET", "/images/search", image.search, query={"term": str, "limit": int, "filters": Filters}, answer=list[Found]),
        _route("GET", "/distribution/{name}/json", image.distribution, answer=answers.Distribution),
    ]  # fmt: skip
    rows += _own(handlers)
    rows += [_route(method, path, absent) for method, path, absent in NOT_HERE]
    described: list[dict[str, Any]] = []

    async def openapi(_call: Call) -> web.Response:
        if not described:
            described.append(document(rows))
        return json_response(described[0])

    rows.append(_route("GET", "/openapi.json", openapi, answer=dict[str, Any]))
    return rows


def _own(handlers: Handlers) -> list[Route]:
    """What Docker has not (docs/own-api.md)."""
    volumes, files = handlers.volume_extras, handlers.volume_files
    return [
        _route("POST", "/corten/build/call", handlers.building.at(lambda place: place.calls.ask), query=CALL_QUERY, body=TAR, answer=dict[str, Any]),
        _route("POST", "/corten/build/layout", handlers.build_layouts.receive, body=TAR, answer=list[str]),
        _route("POST", "/corten/build/layout/missing", handlers.build_layouts.missing, body=list[str], answer=list[str]),
        _route("GET", "/images/diff", handlers.insight.differences, query={"a": str, "b": str}, answer=answers.ImageDifferences),
        _route("GET", "/images/{name}/layers", handlers.insight.layers, query={"paths": bool}, answer=list[answers.LayerInsight]),
        _route("POST", "/corten/containers/{name}/edit", handlers.lifecycle.edit, query={"dryRun": bool}, body=EditRequest, answer=answers.Edited),
        _route("POST", "/corten/containers/{name}/tools", handlers.execs.tools, body=ToolsRequest, answer=answers.Tools, status=201),
        _route("POST", "/corten/volumes/load", volumes.load, query={"name": str}, body=TAR, answer=answers.Volume, status=201),
        _route("GET", "/corten/volumes/{name}/tar", files.save, answer=TAR),
        _route("HEAD", "/corten/volumes/{name}/archive", files.archive_stat, query={"path": str}),
        _route("GET", "/corten/volumes/{name}/archive", files.archive_get, query={"path": str}, answer=TAR),
        _route("PUT", "/corten/volumes/{name}/archive", files.archive_put, query={"path": str, "noOverwriteDirNonDir": bool}, body=TAR),
        _route("GET", "/corten/volumes/{name}/history", volumes.history, answer=answers.VolumeHistory),
        _route("POST", "/corten/volumes/pull", volumes.pull, query={"name": str, "reference": str}, answer=JSON_MESSAGES),
        _route("POST", "/corten/volumes/{name}/push", volumes.push, query={"reference": str}, answer=JSON_MESSAGES),
        _route("POST", "/corten/volumes/{name}/rename", volumes.rename, query={"name": str}, status=204),
        _route("POST", "/corten/volumes/{name}/clone", volumes.clone, query={"name": str, "progress": bool}, answer=answers.Volume, status=201),
        _route("POST", "/corten/volumes/{name}/snapshot", volumes.snapshot, query={"name": str, "keep": int, "progress": bool}, answer=answers.Volume, status=201),
        _route("GET", "/corten/disk", handlers.disk.usage, answer=disk_answers.DiskDetail),
        _route("POST", "/corten/disk/collect", handlers.disk.collect, query={"dryRun": bool, "free": str, "kinds": str}, answer=disk_answers.Collected),
        _route("POST", "/corten/disk/check", handlers.disk.check, query={"repair": bool, "progress": bool}, answer=disk_answers.StoreChecked),
        _route("POST", "/corten/images/{name}/pin", handlers.disk.pin, query={"pinned": bool}, status=204),
        _route("GET", "/corten/networks/plan", handlers.wires.plan, answer=_TEXT),
        _route("GET", "/corten/networks/map", handlers.wires.map, query={"network": list[str]}, answer=answers.NetworkMap),
        _route("POST", "/corten/networks/trace", handlers.wires.trace,
               query={"source": str, "target": str, "port": int, "protocol": str, "wait": int}, answer=answers.PacketTrace),
        _route("POST", "/corten/system/teardown", handlers.wires.teardown, answer=answers.TornDown),
        _route("POST", "/corten/hello", handlers.images.hello, answer=answers.Named, status=201),
    ]  # fmt: skip
