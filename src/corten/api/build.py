"""`POST /build`, `POST /build/prune`, `POST /build/cancel`: Docker's classic front of the builder."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from aiohttp import web

from corten.api.build_cache_transfer import BuildCacheTransfer
from corten.api.build_contexts import BuildContexts, contexts
from corten.api.build_folders import BuildFolders
from corten.api.build_joints import ImageNews, JoinedImages
from corten.api.build_messages import ClassicMessages, Steps
from corten.api.build_outputs import BuildResults, keeps_image, names_of, with_annotation
from corten.api.build_request import BuildRequest, read_request
from corten.api.build_source import BuildSource, read_source
from corten.api.build_status import StatusMessages
from corten.api.call import Call
from corten.builder.attest.provenance import Invocation
from corten.builder.build import Builder, Built, inline_of
from corten.builder.cache_transfer.documents import INLINE
from corten.builder.cache_transfer.imports import Import
from corten.builder.context import Context
from corten.builder.context_shares import large_paths
from corten.builder.convert import Reading, finish, read
from corten.builder.graph import Vertex
from corten.builder.outputs.delivery import Solved
from corten.builder.plan import BuildPlan
from corten.builder.progress import Failed, Finished
from corten.builder.progress import Progress as StepProgress
from corten.builder.solve import SolveOptions
from corten.engine.build_images import BuildImages
from corten.errors import CortenError, Invalid
from corten.spec.build_cache import INLINE as INLINE_CACHE
from corten.spec.build_outputs import DOCKER, LOCAL, OCI, TAR, TO_CLIENT
from corten.spec.timestamps import now_ns
from corten.store.layout import Layout
from corten.store.workers import RunJob

_PATIENCE = 0.5  # seconds between two looks whether the client is still there
_SECOND = 1_000_000_000
_SHOWN_OUTPUTS = {
    OCI: "exporting to oci image format", DOCKER: "exporting to docker image format", TAR: "exporting to client tarball", LOCAL: "exporting to client directory",
}  # fmt: skip


class _ClientGone(Exception):
    """Nobody is there to be told."""


class BuildCancelled(CortenError):
    template = "the build was cancelled"


class BuildHandlers:
    def __init__(self, builder: Builder, images: BuildImages, results: BuildResults, caches: BuildCacheTransfer, folders: BuildFolders,
                 layout: Layout, run_job: RunJob) -> None:  # fmt: skip
        self._builder, self._images, self._results, self._caches, self._folders = builder, images, results, caches, folders
        self._layout, self._run_job = layout, run_job
        self._to_cancel: dict[str, asyncio.Event] = {}  # by the id that the client gave its build

    async def build(self, call: Call) -> web.StreamResponse:
        request, stop = read_request(call), asyncio.Event()
        build_id = call.text("buildid")
        if build_id:
            self._to_cancel[build_id] = stop
        classic = ClassicMessages(call.request, quiet=request.quiet, explain=request.explain)
        messages = StatusMessages(call.request, explain=request.explain) if call.flag("progress") else classic
        try:
            async with messages.reporting():
                await self._while_client_listens(call, stop, self._whole(call, request, messages))
            return await messages.end()
        except _ClientGone:
            return web.Response()
        finally:
            if self._to_cancel.get(build_id) is stop:
                del self._to_cancel[build_id]

    async def cancel(self, call: Call) -> web.Response:
        """`POST /build/cancel?id=`: end the build that was begun with that `buildid`. As in Docker, one that is not there is none to end."""
        build_id = call.text("id")
        if not build_id:
            raise Invalid("build ID not provided")
        if build_id in self._to_cancel:
            self._to_cancel[build_id].set()
        return web.Response(status=200)

    async def fetch(self, call: Call) -> web.StreamResponse:
        return await self._results.fetch(call)

    async def receive_cache(self, call: Call) -> web.StreamResponse:
        return await self._caches.receive(call)

    async def _whole(self, call: Call, request: BuildRequest, messages: ClassicMessages) -> None:
        sent = call.request.content.iter_any()
        async with contexts(self._layout, self._run_job, self._folders, sent, request, messages.phase) as given:
            with self._results.lease():
                await self._build(request, given, messages)

    async def _build(self, request: BuildRequest, given: BuildContexts, messages: ClassicMessages) -> None:
        source = await asyncio.to_thread(read_source, request, given.main, given.trees)
        with source.showing():
            readings = [await asyncio.to_thread(read, source.text, replace(source.options, platform=platform)) for platform in request.platforms]
            readings[0].table.target(source.options.target)  # what is wrong so far is an ordinary answer
        if not request.quiet:
            await messages.begin()
        keep = keeps_image(request.outputs)
        done = [await self._one(source, reading, request, given, messages, keep=keep) for reading in readings]
        if keep and request.stored_as_index and request.stored_names:
            self._builder.name_together({built.image_id: solved.predicates for _, built, solved in done}, request.stored_names)
        for _, built, _ in done if keep else ():
            await messages.stored(built.image_id, request.stored_names, built.solved)
        solved = [solved for _, _, solved in done]
        for output in request.outputs:
            inline = inline_of(done[0][0].target, done[0][1].made) if request.inline_cache and len(done) == 1 else ""
            if output.type in TO_CLIENT or output.push:
                async with messages.phase(_SHOWN_OUTPUTS.get(output.type, "exporting to image")):
                    annotated, names_there = with_annotation(output, INLINE, inline), names_of(output, request.names)
                    await self._results.deliver(solved, annotated, names_there, request.registries, messages.send_result)
        for place in request.cache_to:
            if place.type != INLINE_CACHE:
                async with messages.phase(f"exporting cache to {place.type}"):
                    await self._caches.send(place, [(plan.target, built.made) for plan, built, _ in done], request.registries, messages.send_result)
        if request.explain:
            await _tell_sizes(given.main, messages)
        for plan, built, _ in done:
            await messages.conclude(plan, built, request.stored_names if keep else ())
        for _, built, _ in done if keep else ():
            self._images.tagged(built.image_id, [name.familiar for name in request.stored_names])

    async def _one(self, source: BuildSource, reading: Reading, request: BuildRequest, given: BuildContexts, messages: ClassicMessages, *,
                   keep: bool) -> tuple[BuildPlan, Built, Solved]:  # fmt: skip
        """One platform's build; `keep`: its image is stored under its names."""
        started, options = now_ns(), source.options
        with source.showing():
            plan = await self._plan(reading, request, messages)
        await given.bring(plan.target, messages)
        lines, resolved = messages.steps(plan, str(plan.platform) if len(request.platforms) > 1 else ""), dict[Vertex, str]()

        def emit(event: StepProgress) -> None:
            if isinstance(event, Finished) and event.revision:
                resolved[event.vertex] = event.revision
            if isinstance(event, Failed):
                messages.failed_at(source.place(event.vertex.shown))
            lines.take(event)

        names = [f"{name.name}:{name.tag}" for name in request.stored_names] if not request.stored_as_index else []
        async with self._imports(request, plan, messages) as imports:
            solving = SolveOptions(
                {"context": given.main, **given.named}, request.private, options.network,
                None if plan.epoch is None else plan.epoch * _SECOND, frozenset({"*"} if request.no_cache else ()), imports=imports,
            )  # fmt: skip
            built = await self._told(lines, self._builder.build(plan, solving, names, emit, store=keep, inline=request.inline_cache))
        invocation = Invocation(
            secrets.token_hex(16), started, now_ns(), options.file, source.text, plan.platform, options.target, options.arguments, options.labels,
            request.remote, given.main.revision,
        )  # fmt: skip
        shown = next((name.familiar for output in request.outputs for name in names_of(output, request.names)), "image")
        return plan, built, await self._results.solved(plan, built.config, request.attest, shown, invocation, resolved)

    @asynccontextmanager
    async def _imports(self, request: BuildRequest, plan: BuildPlan, messages: ClassicMessages) -> AsyncIterator[tuple[Import, ...]]:
        """What the caches have, for as long as the block lasts."""
        if not request.cache_from:
            yield ()
            return
        async with AsyncExitStack() as stack:
            async with messages.phase("importing cache"):
                given = await stack.enter_async_context(self._caches.imports(request.cache_from, plan.target, request.registries, messages.send))
            yield given

    async def _plan(self, reading: Reading, request: BuildRequest, messages: ClassicMessages) -> BuildPlan:
        queue: asyncio.Queue[ImageNews] = asyncio.Queue()
        images = JoinedImages(self._images, request.registries, queue.put_nowait, pull=request.pull)
        work = asyncio.ensure_future(finish(reading, images))
        try:
            while not work.done():
                waiting = asyncio.ensure_future(queue.get())
                await asyncio.wait((work, waiting), return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    await messages.image_news(waiting.result())
                else:
                    waiting.cancel()
            while not queue.empty():
                await messages.image_news(queue.get_nowait())
            return await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    @staticmethod
    async def _told(lines: Steps, build: Any) -> Built:
        """Run the build while its steps are told; its error comes after the last of them."""
        work = asyncio.ensure_future(build)
        work.add_done_callback(lambda _done: lines.end())
        try:
            await lines.write()
            built: Built = await work
            return built
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    @staticmethod
    async def _while_client_listens(call: Call, stop: asyncio.Event, work: Any) -> None:
        """Cancel the work once the client has closed the connection, or somebody has asked for that."""
        task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
        try:
            while not task.done():
                await asyncio.wait((task, stopping), timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
                if call.gone and not task.done():
                    raise _ClientGone
                if stop.is_set() and not task.done():
                    raise BuildCancelled
            await task
        finally:
            task.cancel()
            stopping.cancel()
            await asyncio.gather(task, stopping, return_exceptions=True)


async def _tell_sizes(context: Context, messages: ClassicMessages) -> None:
    """What makes the context large."""
    listed = await asyncio.to_thread(lambda: context.listed)
    total = sum(entry.size for entry in listed)
    for path, size in large_paths(listed) if total else ():
        await messages.send({"stream": f"Context: {path} has {size} of {total} bytes ({100 * size // total} %)\n"})
