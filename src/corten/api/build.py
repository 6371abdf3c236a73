"""`POST /build`, `POST /build/prune`, `POST /build/cancel`: Docker's classic front of the builder."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from aiohttp import web

from corten.api.build_cache_transfer import BuildCacheTransfer
from corten.api.build_contexts import BuildContexts, contexts
from corten.api.build_joints import JoinedImages
from corten.api.build_lines import ClassicLines
from corten.api.build_outputs import BuildResults, keeps_image, names_of, with_annotation
from corten.api.build_request import BuildRequest, read_request
from corten.api.build_source import BuildSource, read_source
from corten.api.call import Call
from corten.api.json_messages import JsonMessages, progress_message
from corten.builder.attest.provenance import Invocation
from corten.builder.build import Builder, Built, inline_of
from corten.builder.cache_transfer.documents import INLINE
from corten.builder.context import Context
from corten.builder.context_shares import large_paths
from corten.builder.convert import Reading, finish, read
from corten.builder.exec_step import StepFailed
from corten.builder.graph import Vertex
from corten.builder.hosting import Private
from corten.builder.outputs.delivery import Solved
from corten.builder.plan import BuildPlan
from corten.builder.progress import Finished
from corten.builder.progress import Progress as StepProgress
from corten.builder.solve import SolveOptions
from corten.engine.build_images import BuildImages
from corten.errors import CortenError, Invalid
from corten.registry.progress import Progress, Pushed
from corten.spec.build_cache import INLINE as INLINE_CACHE
from corten.spec.digest import encoded
from corten.spec.timestamps import now_ns
from corten.store.layers import RunJob
from corten.store.layout import Layout

_PATIENCE = 0.5  # seconds between two looks whether the client is still there
_SECOND = 1_000_000_000


class _ClientGone(Exception):
    """Nobody is there to be told."""


class BuildCancelled(CortenError):
    template = "the build was cancelled"


class BuildHandlers:
    def __init__(self, builder: Builder, images: BuildImages, results: BuildResults, caches: BuildCacheTransfer, layout: Layout, run_job: RunJob) -> None:
        self._builder, self._images, self._results, self._caches = builder, images, results, caches
        self._layout, self._run_job = layout, run_job
        self._to_cancel: dict[str, asyncio.Event] = {}  # by the id that the client gave its build

    async def build(self, call: Call) -> web.StreamResponse:
        request, stop = read_request(call), asyncio.Event()
        build_id = call.text("buildid")
        if build_id:
            self._to_cancel[build_id] = stop
        try:
            async with contexts(self._layout, self._run_job, call.request.content.iter_any(), request) as given:
                messages = _Messages(call, quiet=request.quiet)
                async with messages.reporting():
                    with self._results.lease():
                        await self._while_client_listens(call, stop, self._build(request, given, messages))
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

    async def _build(self, request: BuildRequest, given: BuildContexts, messages: _Messages) -> None:
        source = read_source(request, given.main, given.trees)
        with source.showing():
            readings = [await asyncio.to_thread(read, source.text, replace(source.options, platform=platform)) for platform in request.platforms]
            readings[0].table.target(source.options.target)  # what is wrong so far is an ordinary answer
        if not request.quiet:
            await messages.begin()
        keep = keeps_image(request.outputs)
        done = [await self._one(source, reading, request, given, messages, keep=keep) for reading in readings]
        if keep and request.stored_as_index:
            self._builder.name_together({built.image_id: solved.predicates for _, built, solved in done}, request.stored_names)
        solved = [solved for _, _, solved in done]
        for output in request.outputs:
            inline = inline_of(done[0][0].target, done[0][1].made) if request.inline_cache and len(done) == 1 else ""
            await self._results.deliver(solved, with_annotation(output, INLINE, inline), names_of(output, request.names), request.registries, messages.send_result)
        for place in request.cache_to:
            if place.type != INLINE_CACHE:
                await self._caches.send(place, [(plan.target, built.made) for plan, built, _ in done], request.registries, messages.send_result)
        if request.explain:
            await _tell_sizes(given.main, messages)
        for plan, built, _ in done:
            await _conclude(plan, built, request, messages, keep=keep)
        for _, built, _ in done if keep else ():
            self._images.tagged(built.image_id, [name.familiar for name in request.stored_names])

    async def _one(self, source: BuildSource, reading: Reading, request: BuildRequest, given: BuildContexts, messages: _Messages, *,
                   keep: bool) -> tuple[BuildPlan, Built, Solved]:  # fmt: skip
        """One platform's build; `keep`: its image is stored under its names."""
        started, options = now_ns(), source.options
        with source.showing():
            plan = await self._plan(reading, request, messages)
        lines, resolved = ClassicLines(plan, messages.send, explain=request.explain), dict[Vertex, str]()

        def emit(event: StepProgress) -> None:
            if isinstance(event, Finished) and event.revision:
                resolved[event.vertex] = event.revision
            lines.take(event)

        names = [f"{name.name}:{name.tag}" for name in request.stored_names] if not request.stored_as_index else []
        async with self._caches.imports(request.cache_from, plan.target, request.registries, messages.send) as imports:
            solving = SolveOptions(
                {"context": given.main, **given.named}, Private(request.extras.secrets, request.extras.agents), options.network,
                None if plan.epoch is None else plan.epoch * _SECOND, frozenset({"*"} if request.no_cache else ()), imports=imports,
            )  # fmt: skip
            built = await self._told(lines, self._builder.build(plan, solving, names, emit, store=keep, inline=request.inline_cache))
        invocation = Invocation(
            secrets.token_hex(16), started, now_ns(), options.file, source.text, plan.platform, options.target, options.arguments, options.labels,
            request.remote, given.main.revision,
        )  # fmt: skip
        shown = next((name.familiar for output in request.outputs for name in names_of(output, request.names)), "image")
        return plan, built, await self._results.solved(plan, built.config, request.attest, shown, invocation, resolved)

    async def _plan(self, reading: Reading, request: BuildRequest, messages: _Messages) -> BuildPlan:
        queue: asyncio.Queue[Progress | Pushed] = asyncio.Queue()
        images = JoinedImages(self._images, request.registries, queue.put_nowait, pull=request.pull)
        work = asyncio.ensure_future(finish(reading, images))
        try:
            while not work.done():
                waiting = asyncio.ensure_future(queue.get())
                await asyncio.wait((work, waiting), return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    await messages.send(progress_message(waiting.result()))
                else:
                    waiting.cancel()
            return await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    @staticmethod
    async def _told(lines: ClassicLines, build: Any) -> Built:
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


class _Messages(JsonMessages):
    """With `quiet` everything is held back: the id alone is sent, or, if the build fails, all that was said."""

    def __init__(self, call: Call, *, quiet: bool) -> None:
        super().__init__(call.request)
        self._held: list[dict[str, Any]] | None = [] if quiet else None

    async def send(self, message: dict[str, Any]) -> None:
        if self._held is None:
            await super().send(message)
        else:
            self._held.append(message)

    async def send_result(self, message: dict[str, Any]) -> None:
        """What the client must have, quiet or not."""
        await super().send(message)

    async def send_id(self, image_id: str) -> bool:
        """Whether that is all that the client wants to know."""
        if self._held is None:
            return False
        self._held = None
        await super().send({"stream": f"{image_id}\n"})
        return True

    @asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        async with super().reporting():
            try:
                yield
            except StepFailed as error:
                await self._release()
                await super().send({"errorDetail": {"code": error.operands["code"], "message": error.message}, "error": error.message})
            except CortenError:
                await self._release()
                raise

    async def _release(self) -> None:
        held, self._held = self._held or [], None
        for message in held:
            await super().send(message)


async def _conclude(plan: BuildPlan, built: Built, request: BuildRequest, messages: _Messages, *, keep: bool) -> None:
    if await messages.send_id(built.image_id):
        return
    await messages.send({"aux": {"ID": built.image_id}})
    for warning in plan.warnings:
        text = warning if warning.startswith("[") else f"[Warning] {warning}"
        await messages.send({"stream": f"{text}\n"})
    await messages.send({"stream": f"Successfully built {encoded(built.image_id)[:12]}\n"})
    for name in request.stored_names if keep else ():
        await messages.send({"stream": f"Successfully tagged {name.familiar}\n"})


async def _tell_sizes(context: Context, messages: _Messages) -> None:
    """What makes the context large."""
    total = context.received.size
    for path, size in large_paths(context.listed) if total else ():
        await messages.send({"stream": f"Context: {path} has {size} of {total} bytes ({100 * size // total} %)\n"})
