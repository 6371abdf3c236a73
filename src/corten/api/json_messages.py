"""Docker's stream of JSON messages: one a line, and an error that comes after the head is a message too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from corten.errors import CortenError
from corten.registry.progress import Progress, Pushed

_BAR = 50
_LOOK_EVERY = 1.0


class JsonMessages:
    """The head goes out with the first message: an error before it is an ordinary answer."""

    def __init__(self, request: web.BaseRequest, content_type: str = "application/json") -> None:
        self._request = request
        self._response = web.StreamResponse(headers={"Content-Type": content_type})

    async def begin(self) -> None:
        if not self._response.prepared:
            await self._response.prepare(self._request)

    async def send(self, message: dict[str, Any]) -> None:
        await self.begin()
        await self._response.write(_line(message))

    async def status(self, text: str) -> None:
        await self.send({"status": text})

    async def progress(self, progress: Progress | Pushed) -> None:
        await self.send(progress_message(progress))

    async def relay(self, transfer: AsyncGenerator[Progress | Pushed, None], *, silent: bool = False) -> None:
        """Send what a transfer says (not if `silent`), to its end. A client that leaves ends it, also while it has nothing to say."""
        async with aclosing(transfer):
            while True:
                following = asyncio.ensure_future(anext(transfer, None))
                while not (await asyncio.wait({following}, timeout=_LOOK_EVERY))[0]:
                    if self._request.transport is None or self._request.transport.is_closing():
                        following.cancel()
                        await asyncio.gather(following, return_exceptions=True)
                        raise ConnectionResetError("the client has gone")
                progress = await following
                if progress is None:
                    return
                if not silent:
                    await self.progress(progress)

    @asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        """An error of the block is raised while nothing has been sent, and told in the stream afterwards."""
        try:
            yield
        except CortenError as error:
            if not self._response.prepared:
                raise error from None
            text = self.error_text(error)
            await self.send({"errorDetail": {"message": text}, "error": text})

    def error_text(self, error: CortenError) -> str:
        """What is told of an error in the stream."""
        return error.message

    async def end(self) -> web.StreamResponse:
        await self.begin()
        await self._response.write_eof()
        return self._response


def _line(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(message) + b"\r\n"


def progress_message(progress: Progress | Pushed) -> dict[str, Any]:
    """Pure: one of Docker's JSON messages, with the bar that old clients print as it is."""
    if isinstance(progress, Pushed):
        return {"progressDetail": {}, "aux": {"Tag": progress.tag, "Digest": progress.digest, "Size": progress.size}}
    message: dict[str, Any] = {"status": progress.status}
    if progress.total:
        message["progressDetail"] = {"current": progress.current, "total": progress.total}
        done = min(_BAR, _BAR * progress.current // progress.total)
        head = "=" * done + (">" if done < _BAR else "")
        message["progress"] = f"[{head.ljust(_BAR)}] {_size(progress.current)}/{_size(progress.total)}"
    elif progress.id and not progress.status.startswith("Pulling from"):
        message["progressDetail"] = {}
    if progress.id:
        message["id"] = progress.id
    return message


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.4g}{unit}"
        count /= 1000
    return ""
