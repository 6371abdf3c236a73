"""A graph into layers: what the target needs and nothing else, independent vertices at the same time, each at most once.

One Solve is one build. A vertex is asked for when something needs it; its step is looked for in the cache by content, else carried out by
file_step.py or exec_step.py, and remembered. Must not know how a step is carried out, or how a client is told.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec

from corten.builder import exec_step, file_step, step_mounts
from corten.builder.cache import REGULAR, Cache, CacheRow, explain, pack
from corten.builder.cache_transfer.imports import Import
from corten.builder.context import Context
from corten.builder.context_needs import mounted_copy
from corten.builder.exec_step import ExecSteps, ExecWork
from corten.builder.file_step import FileWork
from corten.builder.graph import LAYERED, Bind, Exec, File, Git, Http, Image, Local, Scratch, Vertex
from corten.builder.graph import Cache as CacheMount
from corten.builder.graph import Copy as CopyAction
from corten.builder.hosting import Private
from corten.builder.in_flight import InFlight, Listener, Message
from corten.builder.ingredients import Ingredients, key_of
from corten.builder.known_keys import KnownKeys, quick_key
from corten.builder.limits import BuilderSettings
from corten.builder.progress import Difference, Emit, Failed, Finished, Said, Started
from corten.builder.remote import Remote
from corten.builder.results import Folder, MadeLayer, Result
from corten.builder.select import Excludes
from corten.builder.trees import ContextTree, follow
from corten.builder.url_files import UrlFiles
from corten.builder.workshop import Workshop
from corten.errors import CortenError, Forbidden, Invalid
from corten.spec.digest import digest_of
from corten.spec.timestamps import now_ns, parse_rfc3339
from corten.store.holds import Holds
from corten.store.images import Images

ExcludesOf = Callable[[tuple[str, ...]], Excludes]
Work = FileWork | ExecWork


class NoSuchContext(Invalid):
    template = "the build was given no context {name!r}"


class NotAllowed(Forbidden):
    template = "{what} is not allowed: the engine has to allow it, with `builder.entitlements.{key}` in daemon.json"


@dataclass(frozen=True)
class SolveOptions:
    """`newest` (nanoseconds) is SOURCE_DATE_EPOCH: nothing made here is younger. `no_cache`: stages that are built anew; "*" is all."""

    contexts: Mapping[str, Context] = field(default_factory=dict)
    private: Private = field(default_factory=Private)
    network: str = "default"
    newest: int | None = None
    no_cache: frozenset[str] = frozenset()
    imports: tuple[Import, ...] = ()


class Solver:
    """What all builds of an engine share. `at_once`: how many steps run at the same time. `settings` say what a step may ask for."""

    def __init__(self, workshop: Workshop, images: Images, cache: Cache, execs: ExecSteps, excludes: ExcludesOf, holds: Holds,
                 settings: BuilderSettings, urls: UrlFiles, at_once: int) -> None:  # fmt: skip
        self.urls = urls
        self.workshop, self.images, self.cache, self.execs, self.excludes = workshop, images, cache, execs, excludes
        self._holds, self.settings = holds, settings
        self.keys, self.in_flight, self.gate = KnownKeys(), InFlight(), asyncio.Semaphore(at_once)
        self._numbers = itertools.count()
        self._running: dict[int, int] = {}  # build -> since when it has been running

    def busy_since(self) -> int | None:
        """When (nanoseconds) the oldest build that still runs began: what was used since then is in use."""
        return min(self._running.values(), default=None)

    @contextmanager
    def running(self) -> Iterator[None]:
        """A build, its export included."""
        key = next(self._numbers)
        self._running[key] = now_ns()
        try:
            with self._holds.lease():  # what it makes and what it stands on is not held by any image yet
                yield
        finally:
            del self._running[key]

    async def solve(self, target: Vertex, options: SolveOptions, emit: Emit) -> tuple[Result, dict[Vertex, MadeLayer]]:
        """The target's result, and the layer of every step on the way. Raises what the first step that failed did; the others have ended then."""
        build = Solve(self, options, emit)
        try:
            async with asyncio.TaskGroup() as group:
                build.group = group
                result = await build.result(target)
        except ExceptionGroup as failed:
            raise first_error(failed) from None
        finally:
            build.let_go()
            for context in build.fetched:
                await context.remove()
        return result, build.layers


class Solve:
    group: asyncio.TaskGroup

    def __init__(self, solver: Solver, options: SolveOptions, emit: Emit) -> None:
        self._solver, self._options, self._emit = solver, options, emit
        self._tasks: dict[Vertex, asyncio.Task[Result]] = {}
        self._trees: dict[tuple[str, tuple[str, ...]], ContextTree] = {}
        self.layers: dict[Vertex, MadeLayer] = {}
        self.fetched: list[Context] = []

    def let_go(self) -> None:
        """Of what was found of contexts: a build, its tasks and their results know each other, and a large context is not to wait for a collection."""
        self._trees.clear()
        self._tasks.clear()

    async def result(self, vertex: Vertex) -> Result:
        task = self._tasks.get(vertex)
        if task is None:
            task = self._tasks[vertex] = self.group.create_task(self._make(vertex))
        return await task

    async def _make(self, vertex: Vertex) -> Result:
        inputs = list(await asyncio.gather(*(self.result(needed) for needed in vertex.inputs)))
        self._emit(Started(vertex, now_ns()))
        try:
            if isinstance(vertex.op, LAYERED):
                return await self._step(vertex, vertex.op, inputs)
            result = await self._source(vertex)
        except CortenError as error:
            self._emit(Failed(vertex, now_ns(), error))
            raise
        revision = result.folder.context.revision if result.folder else ""
        self._emit(Finished(vertex, now_ns(), cached=False, chain=result.chain, revision=revision))
        return result

    # --- sources
    async def _source(self, vertex: Vertex) -> Result:
        op = vertex.op
        if isinstance(op, Scratch):
            return Result()
        if isinstance(op, Image):
            config = self._solver.images.config(op.id)
            created = parse_rfc3339(config.created) if config.created else 0
            return Result(tuple(config.rootfs.diff_ids), self._limited(created))
        if isinstance(op, Local):
            return self._local(op)
        assert isinstance(op, Http | Git)
        return await self._remote(vertex, op)

    async def _remote(self, vertex: Vertex, op: Http | Git) -> Result:
        remote = Remote(self._solver.workshop.layout, self._solver.workshop.run_job, self._options.private)
        fetching = remote.url(op, self._solver.urls, anew=not self._may_use_cache(vertex)) if isinstance(op, Http) else remote.git(op)
        context = await fetching
        self.fetched.append(context)
        return Result(folder=Folder(ContextTree(lambda: context.listed), context))

    def _local(self, op: Local) -> Result:
        context = self._options.contexts.get(op.name)
        if context is None:
            raise NoSuchContext(name=op.name)
        tree = self._trees.get((op.name, op.ignore))
        if tree is None:
            hides = self._solver.excludes(op.ignore) if op.ignore else None
            tree = self._trees[op.name, op.ignore] = ContextTree(lambda: context.listed, hides)
        return Result(folder=Folder(tree, context, context.version and digest_of(msgspec.json.encode([context.version, op.ignore]))))

    def _limited(self, time: int) -> int:
        newest = self._options.newest
        return max(0, time if newest is None else min(time, newest))

    # --- steps
    async def _step(self, vertex: Vertex, op: Exec | File, inputs: list[Result]) -> Result:
        quick = ""
        if isinstance(op, File) and self._may_use_cache(vertex):
            quick = quick_key(op, inputs, time := self._file_time(op, inputs))
            known = self._solver.cache.find(self._solver.keys.get(quick))
            if known:
                return self._finish(vertex, inputs, time, MadeLayer(known.layer, known.length, known.size, known.key), cached=True, missed=None)
        work, ingredients = await (self._look_exec(op, vertex, inputs) if isinstance(op, Exec) else self._look_file(op, inputs))
        key = await asyncio.to_thread(key_of, ingredients)
        row, missed = None, None
        if self._may_use_cache(vertex):
            row = self._solver.cache.find(key) or await self._import(key)
            if row is None:
                others = self._solver.cache.nearest(_place(vertex), vertex.shown.text)
                missed = await asyncio.to_thread(explain, ingredients, others) if others else None
        layer = MadeLayer(row.layer, row.length, row.size) if row else await self._carry_out(vertex, work, key, ingredients)
        if quick:
            self._solver.keys.put(quick, key)
        return self._finish(vertex, inputs, work.time, replace(layer, key=key), cached=row is not None, missed=missed)

    async def _import(self, key: str) -> CacheRow | None:
        for place in self._options.imports:
            row = await place.bring(key)
            if row:
                return row
        return None

    def _finish(self, vertex: Vertex, inputs: list[Result], time: int, layer: MadeLayer, *, cached: bool, missed: Difference | None) -> Result:
        self.layers[vertex] = layer
        base = inputs[0]
        chain = (*base.chain, layer.diff_id) if layer.diff_id else base.chain
        self._emit(Finished(vertex, now_ns(), cached, chain, missed))
        return Result(chain, max(base.time, time))

    def _may_use_cache(self, vertex: Vertex) -> bool:
        return not {"*", vertex.shown.stage} & self._options.no_cache

    async def _look_file(self, op: File, inputs: list[Result]) -> tuple[Work, Ingredients]:
        trees = [self._solver.workshop.tree(result) for result in inputs]
        work = await asyncio.to_thread(file_step.look, op, inputs, self._file_time(op, inputs), trees, self._solver.excludes)
        return work, work.ingredients

    def _file_time(self, op: File, inputs: list[Result]) -> int:
        used = [inputs[action.input] for action in op.actions if isinstance(action, CopyAction)]
        return self._limited(max((result.time for result in (used if op.link else [inputs[0], *used])), default=0))

    async def _look_exec(self, op: Exec, vertex: Vertex, inputs: list[Result]) -> tuple[Work, Ingredients]:
        settings = self._solver.settings
        if op.security == "insecure" and not settings.insecure:
            raise NotAllowed(what="security.insecure", key="security-insecure")
        if op.network == "host" and self._options.network != "host" and not settings.host_network:
            raise NotAllowed(what="network.host", key="network-host")
        network = {"default": self._options.network, "none": "none", "host": "host"}.get(op.network, op.network)
        bound: list[step_mounts.Bound] = []
        for mount in op.mounts:
            if isinstance(mount, Bind | CacheMount) and mount.input is not None:
                bound.append(await self._bind(mount, vertex, inputs[mount.input]))
        time = self._limited(inputs[0].time)
        work = ExecWork(op, inputs[0], bound, time, network)
        return work, exec_step.ingredients_of(work)

    async def _bind(self, mount: Bind | CacheMount, vertex: Vertex, source: Result) -> step_mounts.Bound:
        path = mount.source
        if source.folder:
            # What a context has becomes a layer like any other: made once, and then found by content.
            copied = mounted_copy(mount)
            plain = copied.sources[0]
            if await asyncio.to_thread(follow, source.folder.tree, "" if plain == "." else plain) is None:
                raise step_mounts.NoSuchMountSource(source=mount.source)
            step = Vertex(File((msgspec.structs.replace(copied, input=1),)), (Vertex(Scratch()), vertex.inputs[mount.input or 0]), replace(vertex.shown, text=f"{vertex.shown.text} (context)"))
            entry = await asyncio.to_thread(source.folder.tree.look, "" if plain == "." else plain)
            source = await self.result(step)
            path = f"/{plain.rsplit('/', 1)[-1]}" if entry and entry.kind != "d" else "/"
        folders = self._solver.workshop.folders(source.chain)
        return await asyncio.to_thread(step_mounts.look, mount.target, path, source.chain, folders)

    async def _carry_out(self, vertex: Vertex, work: Work, key: str, ingredients: Ingredients) -> MadeLayer:
        solver = self._solver
        shared = key if self._may_use_cache(vertex) else f"{key} {id(self)}"
        began = now_ns()

        async def run(tell: Listener) -> MadeLayer:
            async with solver.gate:
                if isinstance(work, FileWork):
                    layer = await file_step.make(work, solver.workshop)
                else:
                    started, output = partial(_tell_container, tell), partial(_tell_output, tell)
                    layer = await solver.execs.make(work, self._options.private, started, output)
            link = isinstance(work, FileWork) and work.op.link
            row = CacheRow(
                key, REGULAR, vertex.shown.text, _place(vertex), began, now_ns(), 1, layer.diff_id, () if link else work.base.chain, layer.length, layer.size,
            )  # fmt: skip
            solver.cache.put(row, await asyncio.to_thread(pack, ingredients))
            return layer

        return await solver.in_flight.share(shared, run, partial(self._heard, vertex))

    def _heard(self, vertex: Vertex, message: Message) -> None:
        name, data = message
        self._emit(Started(vertex, now_ns(), data.decode()) if name == "container" else Said(vertex, name, data))


def _tell_container(tell: Listener, container: str) -> None:
    tell(("container", container.encode()))


def _tell_output(tell: Listener, stream: str, data: bytes) -> None:
    tell((stream, data))


def _place(vertex: Vertex) -> str:
    return f"{vertex.shown.file}:{vertex.shown.stage}"


def first_error(group: ExceptionGroup[Exception]) -> Exception:
    """Of work at the same time: the first that failed has ended the rest."""
    inner = group.exceptions[0]
    return first_error(inner) if isinstance(inner, ExceptionGroup) else inner
