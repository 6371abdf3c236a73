"""`POST /corten/build/contexts` and what follows on it: folders of a client's that are build contexts, of which it sends what the engine asks for.

  client                                        engine
    contexts?folder=&listing=&taken=             knows that listing, or says 404 and is sent it
                                                 answers with an id, and what of the Dockerfile it wants
    contexts/{id}/contents                       hashes it
    build?context={id}                           plans; among its messages is what else it wants (Wanted)
    contexts/{id}/digests, .../contents          goes on with the build

An id is good for one build. What a listing means is builder/kept_context.py's.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from corten.api.call import Call, json_response
from corten.builder.graph import Vertex
from corten.builder.kept_context import KeptContext, open_context
from corten.builder.kept_contexts import KeptContexts
from corten.builder.packed import Packed
from corten.errors import Conflict, CortenError, Invalid, NotFound
from corten.spec.context_listing import LONGEST, MESSAGE, Digests, Listed, Listing, Wanted
from corten.spec.ignore_file import Ignore, ignore_file_names
from corten.spec.timestamps import now_ns

_UNUSED = 60.0  # seconds after which a context that no build has asked for is let go
_DIGEST = re.compile(r"[0-9a-f]{64}")
Send = Callable[[dict[str, Any]], Awaitable[None]]


class UnknownListing(NotFound):
    template = "the listing {digest} of the build context is not known: send it"


class NoSuchContext(NotFound):
    template = "there is no build context {id}: it has been used, or was not used for a minute; build again"


class NotWanted(Conflict):
    template = "nothing of the build context {id} is being waited for"


class ClientSentNothing(Invalid):
    template = "the client stopped sending the build context"


class _Folder:
    """One context while it is open; it asks the client, by way of a build's messages."""

    def __init__(self, context_id: str, context: KeptContext) -> None:
        self.id, self.context = context_id, context
        self.wanted = Wanted(context_id)
        self.send: Send | None = None
        self.expiry: asyncio.TimerHandle | None = None
        self.receiving: asyncio.Task[None] | None = None
        self.answer: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()

    async def digests(self, numbers: Sequence[int]) -> Sequence[str]:
        return await self._ask(Wanted(self.id, digests=list(numbers)))

    async def contents(self, numbers: Sequence[int]) -> None:
        await self._ask(Wanted(self.id, contents=list(numbers)))

    async def _ask(self, wanted: Wanted) -> Sequence[str]:
        assert self.send is not None
        self.wanted, self.answer = wanted, asyncio.get_running_loop().create_future()
        try:
            await self.send({"aux": {MESSAGE: wanted}})
            return await self.answer
        finally:
            self.wanted = Wanted(self.id)


class BuildFolders:
    def __init__(self, kept: KeptContexts) -> None:
        self._kept = kept
        self._open: dict[str, _Folder] = {}
        self._expiring: set[asyncio.Task[None]] = set()

    # --- what clients ask
    async def open(self, call: Call) -> web.Response:
        digest, taken = call.text("listing"), call.number("taken") or now_ns()
        data = await call.raw_body(LONGEST)
        if not call.text("folder") or not _DIGEST.fullmatch(digest):
            raise Invalid("a build context needs `folder`, which tells it from others, and `listing`, the SHA-256 of its listing")
        listing = await asyncio.to_thread(_decoded, data, digest) if data else None
        del data
        context = await open_context(self._kept, call.text("folder"), digest, taken, listing)
        if context is None:
            raise UnknownListing(digest=digest)
        folder = _Folder(secrets.token_hex(16), context)
        self._open[folder.id] = folder
        self._let_expire(folder)
        dockerfile = call.text("dockerfile") or "Dockerfile"
        folder.wanted = Wanted(folder.id, contents=await context.missing((dockerfile, "dockerfile", *ignore_file_names(dockerfile))))
        return json_response(folder.wanted)

    async def digests(self, call: Call) -> web.Response:
        folder = self._find(call.parameters["id"])
        told = await call.body(Digests)
        if len(told.digests) != len(folder.wanted.digests) or not all(map(_DIGEST.fullmatch, told.digests)):
            raise Invalid(f"{len(folder.wanted.digests)} SHA-256 of the build context's files are wanted, in hexadecimal")
        if folder.answer.done():
            raise NotWanted(id=folder.id)
        folder.answer.set_result(told.digests)
        return web.Response(status=204)

    async def contents(self, call: Call) -> web.Response:
        folder = self._find(call.parameters["id"])
        numbers, answer, folder.wanted = folder.wanted.contents, folder.answer, Wanted(folder.id)
        if not numbers:
            raise NotWanted(id=folder.id)
        folder.receiving = asyncio.create_task(folder.context.take_in(numbers, call.request.content.iter_any()))
        try:
            await folder.receiving
        except BaseException as error:
            if not answer.done():
                answer.set_exception(error if isinstance(error, CortenError) else ClientSentNothing())
                answer.exception()  # the build may have ended, and nobody asks any more
            if folder.id not in self._open:
                raise NoSuchContext(id=folder.id) from None
            raise
        if not answer.done():
            answer.set_result(())
        return web.Response(status=204)

    async def forget(self, call: Call) -> web.Response:
        """Of one that will not be built from. Raises NoSuchContext for one that a build has."""
        await self.release(self.take(call.parameters["id"]))
        return web.Response(status=204)

    def _find(self, context_id: str) -> _Folder:
        folder = self._open.get(context_id)
        if folder is None:
            raise NoSuchContext(id=context_id)
        return folder

    # --- what builds ask
    def take(self, context_id: str) -> KeptContext:
        """For one build, which gives it back to `release`. Raises NoSuchContext."""
        folder = self._find(context_id)
        if folder.expiry is None:
            raise NoSuchContext(id=context_id)
        folder.expiry.cancel()
        folder.expiry = None
        return folder.context

    async def bring(self, context: KeptContext, target: Vertex, name: str, send: Send) -> None:
        """Have the client send what the target's steps take of the context that they call `name`; `send` reaches it."""
        folder = self._of(context)
        folder.send = send
        await context.bring(target, name, lambda patterns: Ignore(patterns).ignores, folder)

    async def release(self, context: KeptContext) -> None:
        """What is still being sent of it is not wanted any more."""
        folder = self._of(context)
        del self._open[folder.id]
        if folder.receiving:
            folder.receiving.cancel()
            await asyncio.wait((folder.receiving,))
        await context.remove()

    def _of(self, context: KeptContext) -> _Folder:
        return next(folder for folder in self._open.values() if folder.context is context)

    def _let_expire(self, folder: _Folder) -> None:
        loop = asyncio.get_running_loop()

        def expire() -> None:
            if self._open.pop(folder.id, None):
                task = loop.create_task(folder.context.remove())
                self._expiring.add(task)
                task.add_done_callback(self._expiring.discard)

        folder.expiry = loop.call_later(_UNUSED, expire)


class _Sent(msgspec.Struct, rename="pascal"):
    """A Listing whose entries are decoded one by one."""

    entries: list[msgspec.Raw]
    beside: dict[str, bytes] = {}


_decode_sent, _decode_entry = msgspec.json.Decoder(_Sent).decode, msgspec.json.Decoder(Listed).decode


def _decoded(data: bytes, digest: str) -> Listing:
    if hashlib.sha256(data).hexdigest() != digest:
        raise Invalid("the listing that was sent has another SHA-256 than was said")
    try:
        sent = _decode_sent(data)
        return Listing(Packed(Listed, map(_decode_entry, sent.entries)), sent.beside)
    except msgspec.MsgspecError as error:
        raise Invalid(f"the listing of the build context: {error}") from None
