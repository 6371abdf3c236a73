"""What `POST /build` says to its client, in the words of Docker's classic builder. build_status.py has the other way to say it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from aiohttp import web

from corten.api.build_joints import ImageNews
from corten.api.build_lines import ClassicLines
from corten.api.json_messages import JsonMessages, progress_message
from corten.builder.build import Built
from corten.builder.exec_step import StepFailed
from corten.builder.plan import BuildPlan
from corten.builder.progress import Progress
from corten.errors import CortenError
from corten.spec.digest import encoded
from corten.spec.reference import Reference


class Steps(Protocol):
    """Who tells of a plan's steps: `take` is the build's Emit, `write` tells until `end` has been called (or, of the classic lines, nothing is left to tell)."""

    def take(self, event: Progress) -> None: ...

    def end(self) -> None: ...

    async def write(self) -> None: ...


class ClassicMessages(JsonMessages):
    """With `quiet` everything is held back: the id alone is sent, or, if the build fails, all that was said."""

    def __init__(self, request: web.BaseRequest, *, quiet: bool, explain: bool) -> None:
        super().__init__(request)
        self._held: list[dict[str, Any]] | None = [] if quiet else None
        self._explain = explain

    async def send(self, message: dict[str, Any]) -> None:
        if self._held is None:
            await super().send(message)
        else:
            self._held.append(message)

    async def send_result(self, message: dict[str, Any]) -> None:
        """What the client must have, quiet or not."""
        await super().send(message)

    # --- what a build has to tell, in its order
    def steps(self, plan: BuildPlan, _platform: str) -> Steps:
        """`platform`: empty, or which of several this is."""
        return ClassicLines(plan, self.send, explain=self._explain)

    def failed_at(self, _place: str) -> None:
        """A step has failed, which stands at that place of the Dockerfile (an excerpt). The classic builder does not show it."""

    async def image_news(self, news: ImageNews) -> None:
        """Of a base image that is looked for."""
        if news.progress:
            await self.send(progress_message(news.progress))

    @asynccontextmanager
    async def phase(self, _name: str) -> AsyncIterator[None]:
        """The block is something that the build does besides its steps, of which this front says no more than the messages in it."""
        yield

    async def transferred(self, _size: int, *, ended: bool) -> None:
        """In a phase: so many bytes of a context have come. This front has no word for it."""

    async def stored(self, image_id: str, names: Sequence[Reference], begun: int) -> None:
        """The image is in the store; `begun` (nanoseconds): since when that has been going on. Told by conclude()."""

    async def conclude(self, plan: BuildPlan, built: Built, names: Sequence[Reference]) -> None:
        """`names`: those under which it is stored."""
        if self._held is not None:
            self._held = None
            await super().send({"stream": f"{built.image_id}\n"})
            return
        await self.send({"aux": {"ID": built.image_id}})
        for warning in plan.warnings:
            await self.send({"stream": f"{_as_warning(warning)}\n"})
        await self.send({"stream": f"Successfully built {encoded(built.image_id)[:12]}\n"})
        for name in names:
            await self.send({"stream": f"Successfully tagged {name.familiar}\n"})

    @asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        async with super().reporting():
            try:
                yield
            except StepFailed as error:
                await self._release()
                text = self.error_text(error)
                await super().send({"errorDetail": {"code": error.operands["code"], "message": text}, "error": text})
            except CortenError:
                await self._release()
                raise

    async def _release(self) -> None:
        held, self._held = self._held or [], None
        for message in held:
            await super().send(message)


def _as_warning(text: str) -> str:
    return text if text.startswith("[") else f"[Warning] {text}"
