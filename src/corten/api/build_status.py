"""What `POST /build?progress=1` says instead of Docker's classic lines: the build's progress as values of spec/build_status.py, as it happens.

Steps are told as they run, side by side, and all else that a build does (looking for images, export, pushing, caches) as vertices of its own.
`stream` messages are what is to be read after the build. Described in docs/own-api.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from corten.api.build_joints import ImageNews
from corten.api.build_lines import missed_text
from corten.api.build_messages import ClassicMessages
from corten.api.json_messages import JsonMessages, progress_message
from corten.builder.build import Built
from corten.builder.exec_step import StepFailed
from corten.builder.graph import Git, Http, Image, Local, Scratch, Vertex, in_order
from corten.builder.plan import BuildPlan
from corten.builder.progress import Failed, Finished, Progress, Said, Started, Told
from corten.errors import CortenError
from corten.spec.build_status import CANCELED, PROGRESS, BuildStatus, StatusEntry, StatusLog, StatusVertex
from corten.spec.digest import digest_of
from corten.spec.reference import Reference
from corten.spec.timestamps import now_ns, rfc3339_nano

_STREAMS = {"stdout": 1, "stderr": 2}
# Docker's words for a layer under way -> what its entry is called; and those that end an entry
_UNDER_WAY = {"Downloading": "", "Extracting": "extracting ", "Pushing": "pushing "}
_ENDED = {
    "Download complete": ("",), "Pull complete": ("extracting ",), "Pushed": ("pushing ",), "Already exists": ("",), "Layer already exists": ("pushing ",),
    "Mounted from": ("pushing ",),
}  # fmt: skip
Tell = Callable[[BuildStatus], Awaitable[None]]


class StatusMessages(ClassicMessages):
    def __init__(self, request: Any, *, explain: bool) -> None:
        super().__init__(request, quiet=False, explain=explain)
        self._open: dict[str, StatusVertex] = {}  # begun and not ended
        self._began: dict[tuple[str, str], int] = {}  # (vertex, entry) -> when
        self._phase = ""
        self._place = ""  # of the step that has failed, in the Dockerfile

    async def tell(self, status: BuildStatus) -> None:
        for vertex in status.vertexes:
            if vertex.started and not vertex.completed:
                self._open[vertex.digest] = vertex
            elif vertex.completed:
                self._open.pop(vertex.digest, None)
        await JsonMessages.send(self, {"id": PROGRESS, "aux": status})

    async def send(self, message: dict[str, Any]) -> None:
        """Messages of a transfer become entries of the phase that they come in."""
        if self._phase and "status" in message:
            await self._entry(self._phase, message)
        elif "status" not in message:
            await super().send(message)

    def steps(self, plan: BuildPlan, platform: str) -> StatusSteps:
        return StatusSteps(plan, self.tell, platform, super().send if self._explain else None)

    def failed_at(self, place: str) -> None:
        self._place = self._place or place  # the first failure is what ends the build

    def error_text(self, error: CortenError) -> str:
        return f"{error.message}\n{self._place}" if self._place else error.message

    # --- vertices besides the steps
    async def image_news(self, news: ImageNews) -> None:
        name = f"[internal] load metadata for {news.reference}"
        if news.progress:
            await self._entry(digest_of(name.encode()), progress_message(news.progress))
        elif news.error:
            await self._end(name, news.error)
        elif news.ended:
            await self._end(name)
        else:
            await self._begin(name)

    @asynccontextmanager
    async def phase(self, name: str) -> AsyncIterator[None]:
        await self._begin(name)
        before, self._phase = self._phase, digest_of(name.encode())
        try:
            yield
        except CortenError as error:
            await self._end(name, error.message)
            raise
        finally:
            self._phase = before
        await self._end(name)

    async def transferred(self, size: int, *, ended: bool) -> None:
        text, now = "transferring context:", now_ns()
        began = rfc3339_nano(self._began.setdefault((self._phase, text), now))
        await self.tell(BuildStatus((), (StatusEntry(text, self._phase, size, rfc3339_nano(now), 0, began, rfc3339_nano(now) if ended else ""),)))

    async def stored(self, image_id: str, names: Sequence[Reference], begun: int) -> None:
        name, digest = "exporting to image", digest_of(b"exporting to image")
        await self._begin(name, begun)
        await self._instant(digest, "exporting layers", begun)
        for text in (f"writing image {image_id}", *(f"naming to {each.name}:{each.tag}" for each in names)):
            await self._instant(digest, text, now_ns())
        await self._end(name)

    async def conclude(self, plan: BuildPlan, built: Built, names: Sequence[Reference]) -> None:
        await super().send({"aux": {"ID": built.image_id}})
        for warning in plan.warnings:
            await super().send({"stream": f"{warning if warning.startswith('[') else f'[Warning] {warning}'}\n"})

    @asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        """What has not ended when the build ends with an error has been stopped."""
        async with super().reporting():
            try:
                yield
            except CortenError:
                now = rfc3339_nano(now_ns())
                stopped = tuple(msgspec.structs.replace(vertex, completed=now, error=CANCELED) for vertex in self._open.values())
                if stopped:
                    await self.tell(BuildStatus(stopped))
                raise

    async def _begin(self, name: str, since: int = 0) -> None:
        await self.tell(BuildStatus((StatusVertex(digest_of(name.encode()), (), name, rfc3339_nano(since or now_ns())),)))

    async def _end(self, name: str, error: str = "") -> None:
        vertex = self._open.get(digest_of(name.encode()))
        if vertex:
            await self.tell(BuildStatus((msgspec.structs.replace(vertex, completed=rfc3339_nano(now_ns()), error=error),)))

    async def _entry(self, vertex: str, message: dict[str, Any]) -> None:
        status, layer, detail = message["status"], message.get("id", ""), message.get("progressDetail") or {}
        if not layer:
            await self._instant(vertex, status, now_ns())
        elif status in _UNDER_WAY:
            now, text = now_ns(), _UNDER_WAY[status] + layer
            began = self._began.setdefault((vertex, text), now)
            await self.tell(BuildStatus((), (StatusEntry(text, vertex, detail.get("current", 0), rfc3339_nano(now), detail.get("total", 0), rfc3339_nano(began)),)))
        for prefix in _ENDED.get(status, ()):
            await self._instant(vertex, prefix + layer, self._began.get((vertex, prefix + layer), now_ns()))

    async def _instant(self, vertex: str, text: str, began: int) -> None:
        """An entry that has ended."""
        now = rfc3339_nano(now_ns())
        await self.tell(BuildStatus((), (StatusEntry(text, vertex, 0, now, 0, rfc3339_nano(began), now),)))


class StatusSteps:
    """`take` is the build's Emit; `write` tells, until nothing more comes. `platform`: empty, or which of several this is.

    `explain`: where it is said of each step why it was not in the cache.
    """

    def __init__(self, plan: BuildPlan, tell: Tell, platform: str, explain: Callable[[dict[str, Any]], Awaitable[None]] | None) -> None:
        self._plan, self._tell, self._platform, self._explain = plan, tell, platform, explain
        self._events: list[tuple[int, Progress]] = []
        self._news, self._ended = asyncio.Event(), False
        self._told: dict[Vertex, StatusVertex] = {}  # each as it was told last

    def take(self, event: Progress) -> None:
        self._events.append((now_ns(), event))
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    async def write(self) -> None:
        await self._tell(BuildStatus(tuple(self._of(vertex) for vertex in in_order([self._plan.target]) if _is_shown(vertex))))
        while True:
            events, self._events = [(time, event) for time, event in self._events if _is_shown(event.vertex)], []
            if events:
                await self._tell(self._status(events))
            for _, event in events if self._explain else ():
                if isinstance(event, Finished) and event.missed and self._explain:
                    await self._explain({"stream": f"{self._of(event.vertex).name}: not in the cache: {missed_text(event.missed)}\n"})
            if self._ended and not self._events:
                return
            self._news.clear()
            if not self._events:
                await self._news.wait()

    def _status(self, events: Sequence[tuple[int, Progress]]) -> BuildStatus:
        vertexes = tuple(vertex for _, event in events for vertex in self._vertex(event))
        entries = tuple(
            StatusEntry(event.status, self._digest(event.vertex), event.current, rfc3339_nano(time), event.total, rfc3339_nano(time))
            for time, event in events if isinstance(event, Told)
        )  # fmt: skip
        logs = tuple(
            StatusLog(self._digest(event.vertex), _STREAMS.get(event.stream, 2), event.data, rfc3339_nano(time))
            for time, event in events if isinstance(event, Said)
        )  # fmt: skip
        return BuildStatus(vertexes, entries, logs)

    def _vertex(self, event: Progress) -> Iterator[StatusVertex]:
        if isinstance(event, Started) and not event.container:  # a step is begun once, its sandbox later
            yield self._changed(event.vertex, started=rfc3339_nano(event.time))
        elif isinstance(event, Finished):
            there = event.cached or isinstance(event.vertex.op, Image)
            yield self._changed(event.vertex, completed=rfc3339_nano(event.time), cached=there)
        elif isinstance(event, Failed):
            yield self._changed(event.vertex, completed=rfc3339_nano(event.time), error=_failure(event.error))

    def _changed(self, vertex: Vertex, **changes: Any) -> StatusVertex:
        self._told[vertex] = msgspec.structs.replace(self._of(vertex), **changes)
        return self._told[vertex]

    def _of(self, vertex: Vertex) -> StatusVertex:
        if vertex not in self._told:
            inputs = tuple(self._digest(needed) for needed in vertex.inputs if _is_shown(needed))
            self._told[vertex] = StatusVertex(self._digest(vertex), inputs, self._name(vertex))
        return self._told[vertex]

    def _digest(self, vertex: Vertex) -> str:
        return digest_of(f"{self._platform} {vertex.digest}".encode()) if self._platform else vertex.digest

    def _name(self, vertex: Vertex) -> str:
        name = vertex.shown.text or _source_name(vertex)
        return f"[{self._platform} {name[1:]}" if self._platform and name.startswith("[") else name


def _is_shown(vertex: Vertex) -> bool:
    """The main context is the client's to tell of: it sends it."""
    op = vertex.op
    return not isinstance(op, Scratch) and not (isinstance(op, Local) and op.name == Local().name)


def _source_name(vertex: Vertex) -> str:
    op = vertex.op
    if isinstance(op, Local):
        return f"[context {op.name}] load from client"
    if isinstance(op, Git | Http):
        return op.url
    return "[internal]"


def _failure(error: CortenError) -> str:
    """BuildKit's text where it has one."""
    if isinstance(error, StepFailed):
        return f'process "{error.operands["command"]}" did not complete successfully: exit code: {error.operands["code"]}'
    return error.message
