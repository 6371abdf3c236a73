"""Container endpoints but for those of the life cycle (lifecycle.py): requests in, services asked, answers in Docker's shape. No policy here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from corten.api import port_filters, views
from corten.api.call import Call, empty, json_response
from corten.engine import confinement, processes, states, stats
from corten.engine.attaching import Attaching
from corten.engine.containers import Containers
from corten.engine.execs import Execs
from corten.engine.exposure import Exposure
from corten.engine.groups import Groups
from corten.engine.health import health_matches
from corten.engine.images import ImageService
from corten.engine.log_setup import LogSetup
from corten.engine.mounting import Mounting
from corten.engine.networks import Networks
from corten.engine.records import ContainerRecord
from corten.engine.usage import DiskUsage
from corten.engine.volumes import Volumes
from corten.errors import Invalid
from corten.spec.engine import CreateRequest
from corten.spec.filters import Filters, matches_labels
from corten.spec.platform import parse_platform
from corten.spec.timestamps import now_ns, parse_rfc3339
from corten.store.layout import Layout
from corten.store.snapshots import Snapshots

_LIST_FILTERS = ("ancestor", "before", "exited", "id", "label", "name", "network", "publish", "expose", "since", "status", "volume", "health", "is-task", "isolation")
_STATS_PAUSE = 1.0


class ContainerHandlers:
    def __init__(self, containers: Containers, logs: LogSetup, attaching: Attaching, execs: Execs, images: ImageService, networks: Networks,
                 volumes: Volumes, mounting: Mounting, snapshots: Snapshots, layout: Layout, groups: Groups,
                 usage: DiskUsage, exposure: Exposure) -> None:  # fmt: skip
        self._containers, self._logs, self._attaching, self._execs, self._images = containers, logs, attaching, execs, images
        self._networks, self._snapshots, self._layout, self._groups = networks, snapshots, layout, groups
        self._volumes, self._mounting, self._usage, self._exposure = volumes, mounting, usage, exposure

    def _find(self, call: Call) -> ContainerRecord:
        return self._containers.find(call.parameters["name"])

    # --- what there is
    async def list(self, call: Call) -> web.Response:
        filters = call.filters(*_LIST_FILTERS)
        everything = call.flag("all") or "status" in filters or "exited" in filters
        limit = call.number("limit") or 0
        wanted: Sequence[ContainerRecord] = [record for record in self._containers.all() if everything or limit > 0 or states.is_up(record)]
        if filters:
            wanted = self._filtered(wanted, filters)
        wanted = sorted(wanted, key=lambda record: parse_rfc3339(record.created), reverse=True)
        if limit > 0:
            wanted = wanted[:limit]
        now, name_of, sized = now_ns(), self._images.namer(), call.flag("size")
        return json_response(
            [views.list_item(record, name_of(record), now, self._volumes.mountpoint) | (await self._sizes(record) if sized else {}) for record in wanted]
        )

    async def _sizes(self, record: ContainerRecord) -> dict[str, int]:
        disk = self._snapshots.disk_usage(record.id)
        return views.container_sizes(await self._usage.container(record)) | ({"SizeRwLimit": disk.size} if disk else {})

    def _filtered(self, records: Sequence[ContainerRecord], filters: Filters) -> Sequence[ContainerRecord]:
        """Raises Invalid for a value that cannot be."""
        published, exposed = (port_filters.parse_ports(key, filters.get(key, [])) for key in ("publish", "expose"))
        if port_filters.wants_tasks(filters):
            return []
        left = {key: values for key, values in filters.items() if key not in ("publish", "expose", "is-task", "isolation")}
        return [record for record in records
                if self._matches(record, left) and port_filters.ports_match(views.list_ports(record), published, exposed)]  # fmt: skip

    def _matches(self, record: ContainerRecord, filters: Filters) -> bool:
        tests: dict[str, Callable[[str], bool]] = {
            "id": lambda value: record.id.startswith(value),
            "name": lambda value: value.removeprefix("/") in record.name,
            "status": lambda value: record.state.status == value,
            "health": lambda value: health_matches(record, value),
            "exited": lambda value: record.state.status == "exited" and str(record.state.exit_code) == value,
            "ancestor": lambda value: value in (record.config.image, record.image) or record.image in self._images.meant(value),
            "network": lambda value: record.endpoint_on(value, value) is not None,
            "volume": lambda value: any(value in (mount.name, mount.destination) for mount in record.mounts),
            "before": lambda value: record.created < self._containers.find(value).created,
            "since": lambda value: record.created > self._containers.find(value).created,
        }
        if not matches_labels(filters.get("label", []), record.config.labels or {}):
            return False
        return all(any(tests[key](value) for value in values) for key, values in filters.items() if key != "label")

    async def inspect(self, call: Call) -> web.Response:
        record = self._find(call)
        cgroupns = "private" if self._groups.unified else "host"
        shown = views.inspect(record, self._layout, self._snapshots.lower(record.diff_ids), self._execs.of_container(record.id), cgroupns,
                               self._volumes.mountpoint)  # fmt: skip
        shown["AppArmorProfile"] = confinement.shown(record)
        if call.flag("size"):
            shown |= await self._sizes(record)
        return json_response(shown)

    # --- making and using them
    async def create(self, call: Call) -> web.Response:
        request = await call.body(CreateRequest)
        if not request.image and not request.cmd and request.host_config is None:
            raise Invalid("config cannot be empty in order to create a container")
        platform = parse_platform(call.text("platform")) if call.text("platform") else None
        image = self._images.find(request.image, platform)
        record, warnings = await self._containers.create(request, call.text("name"), image, self._networks, self._mounting, self._logs)
        return json_response({"Id": record.id, "Warnings": [*warnings, *self._exposure.warnings(record)]}, 201)

    async def resize(self, call: Call) -> web.Response:
        record = self._find(call)
        await self._attaching.resize(record, *window_size(call))
        return empty(200)

    # --- what goes on inside
    async def top(self, call: Call) -> web.Response:
        record = self._find(call)
        states.check("top", record)
        titles, rows = await processes.top(self._groups.of(record).pids(), call.text("ps_args"))
        self._containers.emit("top", record)
        return json_response({"Processes": rows, "Titles": titles})

    async def stats(self, call: Call) -> web.StreamResponse:
        record = self._find(call)
        streaming, at_once = call.flag("stream", default=True), call.flag("one-shot")
        if streaming and at_once:
            raise Invalid("cannot have stream=true and one-shot=true")
        if not streaming:
            return json_response(await self._one_sample(record, at_once=at_once))
        before = self._sample(record)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(call.request)
        while not call.gone and self._containers.current(record.id) is not None:
            sample = self._sample(record)
            await response.write(msgspec.json.encode(self._joined(before, sample)) + b"\n")
            before = sample
            await asyncio.sleep(_STATS_PAUSE)
        await response.write_eof()
        return response

    async def _one_sample(self, record: ContainerRecord, *, at_once: bool) -> dict[str, Any]:
        if not states.is_running(record):
            return stats.nothing(record.name, record.id)
        first = self._sample(record)
        if at_once:  # Docker leaves its name out then
            return {key: value for key, value in first.items() if key not in ("name", "id")}
        await asyncio.sleep(_STATS_PAUSE)
        return self._joined(first, self._sample(record))

    def _sample(self, record: ContainerRecord) -> dict[str, Any]:
        current = self._containers.current(record.id) or record
        if not states.is_running(current):
            return stats.nothing(current.name, current.id)
        own_network = current.host_config.network_mode not in ("host", "none")
        head = {"name": f"/{current.name}", "id": current.id}
        return head | stats.sample(self._groups.of(current), current.state.pid, unified=self._groups.unified, own_network=own_network)

    @staticmethod
    def _joined(before: dict[str, Any], sample: dict[str, Any]) -> dict[str, Any]:
        return sample | {"precpu_stats": before["cpu_stats"], "preread": before["read"]}


def window_size(call: Call) -> tuple[int, int]:
    """(height, width) of a resize. Raises Invalid with Docker's text."""
    found: list[int] = []
    for key, name in (("h", "height"), ("w", "width")):
        value = call.text(key)
        if not value.isdigit() or int(value) > 65535:
            raise Invalid(f'invalid resize {name} "{value}": invalid syntax')
        found.append(int(value))
    return found[0], found[1]
