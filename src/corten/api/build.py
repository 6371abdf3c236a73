"""`POST /build`, `POST /build/prune`, `POST /build/cancel`: Docker's classic front of the builder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from aiohttp import web

from corten.api.build_joints import JoinedImages
from corten.api.build_lines import ClassicLines
from corten.api.build_request import BuildRequest, read_request
from corten.api.call import Call
from corten.api.json_messages import JsonMessages, progress_message
from corten.builder.build import Builder, Built
from corten.builder.context import Context, NoSuchFile
from corten.builder.context_shares import large_paths
from corten.builder.convert import convert, read
from corten.builder.exec_step import StepFailed
from corten.builder.graph import Local, Vertex
from corten.builder.options import BuildOptions
from corten.builder.plan import BuildPlan
from corten.builder.solve import SolveOptions, first_error
from corten.engine.build_images import BuildImages
from corten.errors import CortenError, Invalid, NotSupported
from corten.registry.progress import Progress, Pushed
from corten.spec.digest import encoded
from corten.spec.ignore_file import ignore_file_names, read_patterns
from corten.store.layers import RunJob
from corten.store.layout import Layout

_LIMIT = 16 << 20  # bytes of a Dockerfile or an ignore file
_PATIENCE = 0.5  # seconds between two looks whether the client is still there
_SECOND = 1_000_000_000


class NoDockerfile(CortenError):
    template = "Cannot locate specified Dockerfile: {path}"


class _ClientGone(Exception):
    """Nobody is there to be told."""


class BuildHandlers:
    def __init__(self, builder: Builder, images: BuildImages, layout: Layout, run_job: RunJob) -> None:
        self._builder, self._images, self._layout, self._run_job = builder, images, layout, run_job

    async def build(self, call: Call) -> web.StreamResponse:
        request = read_request(call)
        if request.remote:
            raise NotSupported("building from a remote address (remote=) is not supported by Corten yet (docs/compat.md); send the context")
        context = await Context.receive(self._layout, self._run_job, call.request.content.iter_any())
        try:
            messages = _Messages(call, quiet=request.quiet)
            async with messages.reporting():
                await self._while_client_listens(call, self._build(request, context, messages))
            return await messages.end()
        except _ClientGone:
            return web.Response()
        finally:
            await context.remove()

    async def _build(self, request: BuildRequest, context: Context, messages: _Messages) -> None:
        text, options = _dockerfile(request, context)
        read(text, options).table.target(options.target)  # what is wrong with it is an ordinary answer
        if not request.quiet:
            await messages.begin()
        plan = await self._plan(text, options, request, messages)
        newest = None if plan.epoch is None else plan.epoch * _SECOND
        solving = SolveOptions({"context": context}, network=options.network, newest=newest, no_cache=frozenset({"*"} if request.no_cache else ()))
        lines = ClassicLines(plan, messages.send, explain=request.explain)
        names = [f"{name.name}:{name.tag}" for name in request.names]
        built = await self._told(lines, self._builder.build(plan, solving, names, lines.take))
        if request.explain:
            await _tell_sizes(context, messages)
        await _conclude(plan, built, request, messages)
        self._images.tagged(built.image_id, [name.familiar for name in request.names])

    async def _plan(self, text: str, options: BuildOptions, request: BuildRequest, messages: _Messages) -> BuildPlan:
        queue: asyncio.Queue[Progress | Pushed] = asyncio.Queue()
        images = JoinedImages(self._images, request.registries, queue.put_nowait, pull=request.pull)
        work = asyncio.ensure_future(convert(text, options, images))
        try:
            while not work.done():
                waiting = asyncio.ensure_future(queue.get())
                await asyncio.wait((work, waiting), return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    await messages.send(progress_message(waiting.result()))
                else:
                    waiting.cancel()
            return await work
        except ExceptionGroup as failed:  # images that are asked for at the same time
            raise first_error(failed) from None
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
    async def _while_client_listens(call: Call, work: Any) -> None:
        """Cancel the work once the client has closed the connection."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=_PATIENCE)
                if call.gone and not task.done():
                    raise _ClientGone
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


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


def _dockerfile(request: BuildRequest, context: Context) -> tuple[str, BuildOptions]:
    """Its text, and the options with the context as its ignore file leaves it. Raises NoDockerfile, Invalid."""
    name = request.dockerfile
    data = _read(context, name)
    if data is None and name == "Dockerfile":
        data = _read(context, "dockerfile")
    if data is None:
        raise NoDockerfile(path=name)
    if not data.strip():
        raise Invalid(f"the Dockerfile ({name}) cannot be empty")
    ignored = next((found for path in ignore_file_names(name) if (found := _read(context, path)) is not None), b"")
    patterns = read_patterns(ignored.decode("utf-8", "replace"))
    return data.decode("utf-8", "replace"), replace(request.options, context=Vertex(Local(ignore=patterns)), file=name)


def _read(context: Context, path: str) -> bytes | None:
    try:
        return context.read(path, _LIMIT)
    except NoSuchFile:
        return None


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
