"""Image endpoints: list, inspect, history, tag, remove, prune, pull, push."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiohttp import web

from corten.api import views
from corten.api.call import Call, json_response
from corten.api.image_files import ImageFileHandlers
from corten.api.json_messages import JsonMessages
from corten.api.manifests import manifests_view
from corten.api.versions import Since
from corten.engine.image_removal import ImageRemoval
from corten.engine.image_transfers import ImageTransfers
from corten.engine.images import ImageService
from corten.engine.making import repository_and_tag
from corten.errors import Forbidden, Invalid
from corten.registry.auth import parse_registry_auth
from corten.registry.search import select
from corten.spec.digest import is_digest
from corten.spec.filters import Filters, matches_labels, one_flag, until_limit
from corten.spec.path_pattern import path_pattern
from corten.spec.platform import decode_platform, parse_platform
from corten.spec.reference import Reference, is_identifier, parse_reference, parse_tag
from corten.spec.timestamps import now_ns
from corten.store.images import Image
from corten.store.snapshots import Snapshots

_SECOND = 1_000_000_000
_LIST_FILTERS = ("before", "dangling", "label", "reference", "since", "until")


class ImageHandlers:
    def __init__(self, images: ImageService, transfers: ImageTransfers, removal: ImageRemoval, snapshots: Snapshots,
                 files: ImageFileHandlers) -> None:  # fmt: skip
        self._images, self._transfers, self._removal = images, transfers, removal
        self._snapshots, self._files = snapshots, files

    async def list(self, call: Call) -> web.Response:
        """A row stands for all platforms of what its names mean (decisions/0030); `manifests` shows each of them."""
        filters = call.filters(*_LIST_FILTERS)
        if call.text("filter") and not call.has(Since.NO_FILTER_PARAMETER):
            filters["reference"] = [call.text("filter")]
        for pattern in filters.get("reference", []):
            path_pattern(pattern)
        one_flag(filters, "dangling")
        found = [image for image in self._images.all() if image.shown and self._matches(image, filters)]
        if not call.flag("all"):
            made_from = {image.parent for image in self._images.all()}
            found = [image for image in found if image.tags or image.digests or image.id not in made_from]
        found.sort(key=views.created_seconds, reverse=True)
        shared = self._images.shared_sizes() if call.flag("shared-size") else {}
        return json_response([self._row(image, shared.get(image.id, -1), manifests=call.flag("manifests")) for image in found])

    def _row(self, image: Image, shared: int, *, manifests: bool) -> dict[str, Any]:
        users = sum(len(self._images.users(one)) for one in self._images.platforms(image))
        row = views.image_item(image, self._images.whole_size(image), users) | {"SharedSize": shared}
        return row | (manifests_view(self._images.manifests(image)) if manifests else {})

    def _matches(self, image: Image, filters: Filters) -> bool:
        before = until_limit(filters.get("until", []), now_ns())
        if before is not None and views.created_seconds(image) * _SECOND > before:
            return False
        if one_flag(filters, "dangling") is bool(image.tags):
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
        if call.text("platform") and call.flag("manifests"):
            raise Invalid("conflicting options: manifests and platform options cannot both be set")
        image = self._of_platform(call)
        shown = views.image_view(image, self._images.size(image), self._snapshots.lower(image.config.rootfs.diff_ids))
        return json_response(shown | (manifests_view(self._images.manifests(image)) if call.flag("manifests") else {}))

    async def history(self, call: Call) -> web.Response:
        image = self._of_platform(call)
        return json_response(views.history_view(image, self._images.layer_sizes(image), self._images.ancestors(image)))

    def _of_platform(self, call: Call) -> Image:
        platform = decode_platform(call.text("platform")) if call.text("platform") else None
        return self._images.find(call.parameters["name"], platform)

    async def tag(self, call: Call) -> web.Response:
        reference = repository_and_tag(call.text("repo"), call.text("tag"))
        if reference is None:
            raise Invalid("invalid reference format: no repository is named")
        if reference.familiar_name == "sha256":
            raise Invalid("refusing to create an ambiguous tag using digest algorithm as name")
        self._images.tag(call.parameters["name"], reference)
        return web.Response(status=201)

    async def remove(self, call: Call) -> web.Response:
        name, force = call.parameters["name"], call.flag("force")
        if not name.strip():
            raise Invalid("image name cannot be blank")
        platforms = [decode_platform(text) for text in call.values("platforms")]
        if platforms:
            return json_response(self._removal.remove_platforms(name, platforms, force=force))
        return json_response(self._removal.remove(name, force=force, keep_parents=call.flag("noprune")))

    async def prune(self, call: Call) -> web.Response:
        pruned = self._removal.prune(call.filters("dangling", "label", "label!", "until"))
        return json_response({"ImagesDeleted": pruned.report or None, "SpaceReclaimed": pruned.reclaimed})

    async def create(self, call: Call) -> web.StreamResponse:
        """Pull, or without `fromImage` import."""
        if not call.text("fromImage"):
            return await self._files.import_(call)
        reference = _pulled(call.text("fromImage"), call.text("tag"))
        credentials = parse_registry_auth(call.request.headers.get("X-Registry-Auth", ""))
        platform = parse_platform(call.text("platform")) if call.text("platform") else None
        messages = JsonMessages(call.request)
        async with messages.reporting():
            await messages.relay(self._transfers.pull(reference, credentials, platform))
        return await messages.end()

    async def push(self, call: Call) -> web.StreamResponse:
        name, tag = call.parameters["name"], call.text("tag")
        reference = parse_reference(name)
        if tag:
            reference = replace(reference, tag=parse_tag(tag), digest="")
        platform = decode_platform(call.text("platform")) if call.text("platform") else None
        if platform and reference.tag:
            self._transfers.check_platform(reference, platform)
        credentials = parse_registry_auth(call.request.headers.get("X-Registry-Auth", ""))
        messages = JsonMessages(call.request)
        await messages.begin()  # Docker's way: status 200, the error in the stream
        async with messages.reporting():
            await messages.relay(self._transfers.push(reference, credentials, platform))
        return await messages.end()

    async def search(self, call: Call) -> web.Response:
        try:
            limit = call.number("limit") or 0
        except Invalid as error:
            raise Invalid(f"invalid limit specified: {error.message}") from None
        if limit < 0:
            raise Invalid("invalid limit specified")
        filters = call.filters("is-automated", "is-official", "stars")
        select([], filters)  # a bad filter is refused before anybody is asked
        if one_flag(filters, "is-automated"):  # the field means nothing any more, and nothing has it
            return json_response([])
        credentials = parse_registry_auth(call.request.headers.get("X-Registry-Auth", ""))
        return json_response(select(await self._transfers.search(call.text("term"), limit, credentials), filters))

    async def distribution(self, call: Call) -> web.Response:
        """`GET /distribution/{name}/json`: what the registry says, nothing stored."""
        if is_identifier(call.parameters["name"]):
            raise Invalid("no manifest found for full image ID")
        reference = parse_reference(call.parameters["name"]).with_default_tag()
        credentials = parse_registry_auth(call.request.headers.get("X-Registry-Auth", ""))
        found = await self._transfers.look_up(reference, credentials)
        descriptor = {"mediaType": found.media_type, "digest": found.digest, "size": found.size}
        return json_response({"Descriptor": descriptor, "Platforms": found.platforms})

    async def hello(self, _call: Call) -> web.Response:
        """Corten's own: assemble the image `hello` and store it."""
        return json_response({"Name": await self._transfers.load_hello()}, 201)


def _matches_reference(full: str, pattern: str) -> bool:
    reference = parse_reference(full)
    return any(path_pattern(pattern).fullmatch(name) for name in (reference.familiar, reference.familiar_name))


def _pulled(name: str, tag: str) -> Reference:
    """What `fromImage` and `tag` (or a digest in its place) mean. Raises Invalid, Forbidden."""
    reference = parse_reference(name.removesuffix(":"))  # `docker pull -a` sends one
    if reference.familiar_name == "scratch":
        raise Forbidden("'scratch' is a reserved name")
    if is_digest(tag):
        return replace(reference, tag="", digest=tag)
    return (repository_and_tag(name, tag) or reference) if tag else reference
