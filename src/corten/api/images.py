"""Image endpoints: list, inspect, history, tag, remove, load, pull."""

from __future__ import annotations

import os
import secrets
from typing import Any

import msgspec
from aiohttp import web

from corten.api import views
from corten.api.call import Call, json_response
from corten.api.versions import Since
from corten.engine.images import ImageService
from corten.errors import CortenError, Invalid, UnsupportedOption
from corten.registry.auth import parse_registry_auth
from corten.registry.client import Repository
from corten.registry.progress import Progress, Pushed
from corten.spec.filters import Filters, matches_labels
from corten.spec.platform import parse_platform
from corten.spec.reference import parse_reference
from corten.store.images import Image
from corten.store.layout import Layout
from corten.store.snapshots import Snapshots

_LIST_FILTERS = ("before", "dangling", "label", "reference", "since", "until")
_BAR = 50


class ImageHandlers:
    def __init__(self, images: ImageService, snapshots: Snapshots, layout: Layout) -> None:
        self._images, self._snapshots, self._layout = images, snapshots, layout

    def _find(self, call: Call) -> Image:
        return self._images.find(call.parameters["name"])

    async def list(self, call: Call) -> web.Response:
        call.refuse("shared-size", "manifests")
        filters = call.filters(*_LIST_FILTERS)
        if call.text("filter") and not call.has(Since.NO_FILTER_PARAMETER):
            filters["reference"] = [call.text("filter")]
        found = [image for image in self._images.all() if self._matches(image, filters)]
        found.sort(key=views.created_seconds, reverse=True)
        return json_response([views.image_item(image, self._images.size(image), len(self._images.users(image))) for image in found])

    def _matches(self, image: Image, filters: Filters) -> bool:
        if "until" in filters:
            raise UnsupportedOption(key="the filter 'until'")
        dangling = filters.get("dangling", [])
        if dangling and (dangling[0].lower() in ("1", "true")) == bool(image.tags):
            return False
        patterns = filters.get("reference", [])
        if patterns and not any(_matches_reference(name, pattern) for name in image.tags for pattern in patterns):
            return False
        created = views.created_seconds(image)
        if any(created >= views.created_seconds(self._images.find(name)) for name in filters.get("before", [])):
            return False
        if any(created <= views.created_seconds(self._images.find(name)) for name in filters.get("since", [])):
            return False
        return matches_labels(filters.get("label", []), image.config.run.labels or {})

    async def inspect(self, call: Call) -> web.Response:
        call.refuse("manifests", "platform")
        image = self._find(call)
        return json_response(views.image_view(image, self._images.size(image), self._snapshots.lower(image.config.rootfs.diff_ids)))

    async def history(self, call: Call) -> web.Response:
        call.refuse("platform")
        image = self._find(call)
        return json_response(views.history_view(image, self._images.layer_sizes(image)))

    async def tag(self, call: Call) -> web.Response:
        self._images.tag(self._find(call), call.text("repo"), call.text("tag"))
        return web.Response(status=201)

    async def remove(self, call: Call) -> web.Response:
        call.refuse("noprune", "platforms")
        return json_response(self._images.remove(call.parameters["name"], force=call.flag("force")))

    async def load(self, call: Call) -> web.StreamResponse:
        call.refuse("platform")
        path = f"{self._layout.temporary}/load-{secrets.token_hex(8)}"
        names: list[str] = []
        problem: CortenError | None = None
        try:
            with open(path, "wb") as file:
                async for piece in call.request.content.iter_any():
                    file.write(piece)
            names = await self._images.load(path)
        except CortenError as error:
            problem = error
        finally:
            os.unlink(path)
        response = _message_stream()
        await response.prepare(call.request)
        for name in names:
            how = "Loaded image ID" if name.startswith("sha256:") else "Loaded image"
            await response.write(_line({"stream": f"{how}: {name}\n"}))
        if problem:  # Docker's way: status 200, the error in the stream
            await response.write(_error_line(problem))
        await response.write_eof()
        return response

    async def create(self, call: Call) -> web.StreamResponse:
        """Pull. (Import, `fromSrc`, comes with the image commands.)"""
        call.refuse("fromSrc")
        name, tag = call.text("fromImage"), call.text("tag")
        if not name:
            raise Invalid("invalid reference format")
        if tag:
            name = f"{name}@{tag}" if ":" in tag else f"{name}:{tag}"
        reference = parse_reference(name)
        credentials = parse_registry_auth(call.request.headers.get("X-Registry-Auth", ""))
        platform = parse_platform(call.text("platform")) if call.text("platform") else None
        response = _message_stream()
        started = False
        try:
            async for progress in self._images.pull(reference, credentials, platform):
                if not started:
                    started = True
                    await response.prepare(call.request)
                await response.write(_line(progress_message(progress)))
        except* CortenError as group:
            error = _first(group)
            if not started:
                raise error from None
            await response.write(_error_line(error))
        await response.write_eof()
        return response

    async def push(self, call: Call) -> web.StreamResponse:
        call.refuse("platform")
        name, tag = call.parameters["name"], call.text("tag")
        reference = parse_reference(f"{name}:{tag}" if tag else name)
        credentials = parse_registry_auth(call.request.headers.get("X-Registry-Auth", ""))
        response = _message_stream()
        await response.prepare(call.request)
        try:
            async for progress in self._images.push(reference, credentials):
                await response.write(_line(progress_message(progress)))
        except* CortenError as group:  # Docker's way: status 200, the error in the stream
            await response.write(_error_line(_first(group)))
        await response.write_eof()
        return response

    async def distribution(self, call: Call) -> web.Response:
        """`GET /distribution/{name}/json`: what the registry says, nothing stored."""
        reference = parse_reference(call.parameters["name"]).with_default_tag()
        credentials = parse_registry_auth(call.request.headers.get("X-Registry-Auth", ""))
        async with Repository(reference, credentials) as remote:
            data, media_type, digest = await remote.manifest(reference.digest or reference.tag)
        document = msgspec.json.decode(data)
        platforms = [entry["platform"] for entry in document.get("manifests", []) if "platform" in entry]
        return json_response({"Descriptor": {"mediaType": media_type, "digest": digest, "size": len(data)}, "Platforms": platforms})

    async def hello(self, _call: Call) -> web.Response:
        """Corten's own: assemble the image `hello` and store it."""
        return json_response({"Name": await self._images.load_hello()}, 201)


def _first(group: BaseExceptionGroup[CortenError]) -> CortenError:
    for inner in group.exceptions:
        return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
    raise TypeError("an exception group is never empty")


def _matches_reference(full: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase  # only for this filter

    reference = parse_reference(full)
    return fnmatchcase(reference.familiar, pattern) or fnmatchcase(reference.familiar_name, pattern)


def _message_stream() -> web.StreamResponse:
    return web.StreamResponse(headers={"Content-Type": "application/json"})


def _line(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(message) + b"\r\n"


def _error_line(error: CortenError) -> bytes:
    return _line({"errorDetail": {"message": error.message}, "error": error.message})


def progress_message(progress: Progress | Pushed) -> dict[str, Any]:
    """Pure: one of Docker's JSON messages, with the bar that old clients print as it is."""
    if isinstance(progress, Pushed):
        return {"progressDetail": {}, "aux": {"Tag": progress.tag, "Digest": progress.digest, "Size": progress.size}}
    message: dict[str, Any] = {"status": progress.status}
    if progress.total:
        message["progressDetail"] = {"current": progress.current, "total": progress.total}
        done = min(_BAR, _BAR * progress.current // progress.total)
        head = "=" * done + (">" if done < _BAR else "")
        message["progress"] = f"[{head.ljust(_BAR)}] {_size(progress.current)}/{_size(progress.total)}"
    elif progress.id and not progress.status.startswith("Pulling from"):
        message["progressDetail"] = {}
    if progress.id:
        message["id"] = progress.id
    return message


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.4g}{unit}"
        count /= 1000
    return ""
