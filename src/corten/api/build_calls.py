"""`POST /corten/build/call`: what `docker build --call` asks of a Dockerfile instead of an image, for clients without BuildKit's protocol."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from corten.api.build_joints import JoinedImages
from corten.api.build_request import read_request
from corten.api.build_source import BuildSource, read_source
from corten.api.call import Call, json_response
from corten.builder import calls
from corten.builder.context import Context
from corten.builder.near_miss import did_you_mean
from corten.builder.plan import ImageSource
from corten.engine.build_images import BuildImages
from corten.errors import Invalid
from corten.store.layout import Layout
from corten.store.workers import RunJob


class BuildCallHandlers:
    def __init__(self, images: BuildImages, layout: Layout, run_job: RunJob) -> None:
        self._images, self._layout, self._run_job = images, layout, run_job

    async def ask(self, call: Call) -> web.Response:
        """The body is a context; the Dockerfile and the ignore file are enough. The answer is BuildKit's JSON, and the text in `sources`."""
        method, request = call.text("method") or "check", read_request(call)
        if method not in calls.METHODS:
            raise Invalid(f'unknown method "{method}"{did_you_mean(method, calls.METHODS)}: there are {", ".join(calls.METHODS)}')
        context = await Context.receive(self._layout, self._run_job, call.request.content.iter_any())
        try:
            source = read_source(request, context)
        finally:
            await context.remove()
        images = JoinedImages(self._images, request.registries, lambda _progress: None, pull=request.pull)
        with source.showing():
            found = await _answer(method, source, images)
        return json_response({**found, "sources": [source.text]})


async def _answer(method: str, source: BuildSource, images: ImageSource) -> dict[str, Any]:
    if method == "targets":
        return {"targets": [target.as_json() for target in calls.targets(source.text)]}
    if method == "outline":
        return (await calls.outline(source.text, source.options, images)).as_json()
    return (await calls.check(source.text, source.options, images)).as_json()
