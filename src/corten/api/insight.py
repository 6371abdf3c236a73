"""Corten's own: what is in an image, layer by layer, and what two images have differently (docs/own-api.md)."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from corten.api.call import Call, json_response
from corten.engine.images import ImageService
from corten.errors import Invalid
from corten.spec import answers
from corten.spec.image import RunConfig
from corten.store.images import Image
from corten.store.layer_contents import LayerContents, differences, layer_contents
from corten.store.snapshots import Snapshots


class InsightHandlers:
    def __init__(self, images: ImageService, snapshots: Snapshots) -> None:
        self._images, self._snapshots = images, snapshots

    def _layers(self, image: Image) -> list[str]:
        """Topmost first."""
        return self._snapshots.lower(image.config.rootfs.diff_ids)

    async def layers(self, call: Call) -> web.Response:
        image = self._images.find(call.parameters["name"])
        contents = await asyncio.to_thread(layer_contents, self._layers(image)[::-1])
        history = [entry for entry in image.config.history or [] if not entry.empty_layer]
        rows = []
        for number, (diff_id, found) in enumerate(zip(image.config.rootfs.diff_ids, contents, strict=True)):
            instruction = history[number].created_by if number < len(history) else ""
            rows.append(_row(diff_id, instruction, found, with_paths=call.flag("paths")))
        return json_response(rows)

    async def differences(self, call: Call) -> web.Response:
        names = [call.text("a"), call.text("b")]
        if not all(names):
            raise Invalid("want two images: ?a=NAME&b=NAME")
        first, second = (self._images.find(name) for name in names)
        both = self._layers(first), self._layers(second)
        found = await asyncio.to_thread(lambda: list(differences(*both)))
        return json_response(answers.ImageDifferences(
            a=first.id, b=second.id, changes=[answers.Change(path, kind) for path, kind in found],
            config=_config_differences(first.config.run, second.config.run),
        ))  # fmt: skip


def _row(diff_id: str, instruction: str, found: LayerContents, *, with_paths: bool) -> answers.LayerInsight:
    paths = answers.LayerPaths(found.added, found.changed, found.removed) if with_paths else msgspec.UNSET
    return answers.LayerInsight(
        diff_id, instruction, found.size, len(found.added), len(found.changed), len(found.removed), found.wasted, paths
    )  # fmt: skip


def _config_differences(first: RunConfig, second: RunConfig) -> dict[str, dict[str, Any]]:
    """Config key -> its value in each, for the keys that differ."""
    return {
        info.encode_name: {"A": getattr(first, info.name), "B": getattr(second, info.name)}
        for info in msgspec.structs.fields(RunConfig)
        if getattr(first, info.name) != getattr(second, info.name)
    }
