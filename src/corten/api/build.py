"""`POST /build`, `POST /build/prune`, `POST /build/cancel`: Docker's classic front of the builder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from corten.api.build_contexts import BuildContexts, contexts
from corten.api.build_joints import JoinedImages
from corten.api.build_lines import ClassicLines
from corten.api.build_request import BuildRequest, read_request
from corten.api.build_source import read_source
from corten.api.call import Call
from corten.api.json_messages import JsonMessages, progress_message
from corten.builder.build import Builder, Built
from corten.builder.context import Context
from corten.builder.context_shares import large_paths
from corten.builder.convert import Reading, finish, read
from corten.builder.exec_step import StepFailed
from corten.builder.hosting import Private
from corten.builder.plan import BuildPlan
from corten.builder.solve import SolveOptions
from corten.engine.build_images import BuildImages
from corten.errors import CortenError, Invalid
from corten.registry.progress import Progress, Pushed
from corten.spec.digest import encoded
from corten.store.layers import RunJob
from corten.store.layout import Layout

_PATIENCE = 0.5  # seconds between two looks whether the client is still there
_SECOND = 1_000_000_000


class _ClientGone(Exception):
    """Nobody is there to be told."""


class BuildCancelled(CortenError):
    template = "the build was cancelled"


class BuildHandlers:
    def __init__(self, builder: Builder, images: BuildImages, layout: Layout, run_job: RunJob) -> None:
        self._builder, self._images, self._layout, self._run_job = builder, images, layout, run_job
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

    async def _build(self, request: BuildRequest, given: BuildContexts, messages: _Messages) -> None:
        source = read_source(request, given.main, given.trees)
        options = source.options
        with source.showing():
            reading = await asyncio.to_thread(read, source.text, options)
            reading.table.target(options.target)  # what is wrong so far is an ordinary answer
            if not request.quiet:
                await messages.begin()
            plan = await self._plan(reading, request, messages)
        newest = None if plan.epoch is None else plan.epoch * _SECOND
        solving = SolveOptions(
            {"context": given.main, **given.named}, Private(request.extras.secrets, request.extras.agents), options.network, newest,
            frozenset({"*"} if request.no_cache else ()),
        )  # fmt: skip
        lines = ClassicLines(plan, messages.send, explain=request.explain)
        names = [f"{name.name}:{name.tag}" for name in request.names]
        built = await self._told(lines, self._builder.build(plan, solving, names, lines.take))
        if request.explain:
            await _tell_sizes(given.main, messages)
        await _conclude(plan, built, request, messages)
        self._images.tagged(built.image_id, [name.familiar for name in request.names])

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


async def _conclude(plan: BuildPlan, built: Built, request: BuildRequest, messages: _Messages) -> None:
    if await messages.send_id(built.image_id):
        return
    await messages.send({"aux": {"ID": built.image_id}})
    for warning in plan.warnings:
        text = warning if warning.startswith("[") else f"[Warning] {warning}"
        await messages.send({"stream": f"{text}\n"})
    await messages.send({"stream": f"Successfully built {encoded(built.image_id)[:12]}\n"})
    for name in request.names:
        await messages.send({"stream": f"Successfully tagged {name.familiar}\n"})


async def _tell_sizes(context: Context, messages: _Messages) -> None:
    """What makes the context large."""
    total = context.received.size
    for path, size in large_paths(context.listed) if total else ():
        await messages.send({"stream": f"Context: {path} has {size} of {total} bytes ({100 * size // total} %)\n"})
