"""The contexts of one build: received or fetched before it, and gone after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from corten.api.build_folders import BuildFolders
from corten.api.build_messages import ClassicMessages
from corten.api.build_request import BuildRequest
from corten.builder.attest.provenance import without_credentials
from corten.builder.context import Context
from corten.builder.git_reference import parse_git_reference
from corten.builder.graph import Git, Local, Vertex
from corten.builder.kept_context import KeptContext
from corten.builder.remote import Remote
from corten.errors import Invalid
from corten.spec.build_extras import SENT, SENT_FOLDER
from corten.spec.context_listing import KEPT
from corten.spec.go_values import parse_bool
from corten.store.layout import Layout
from corten.store.workers import RunJob

Telling = Callable[[str], AbstractAsyncContextManager[None]]  # the client is told of what the block does, by this name
_EVERY = 0.5  # seconds between two words of how far a context is
_KEEP_GIT_DIR = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
_IMAGE, _LAYOUT = "docker-image://", "oci-layout://"


@dataclass(frozen=True)
class BuildContexts:
    """`main` has the Dockerfile. `trees` are what the graph calls the named ones (or an image's reference), `named` those of them that are here.

    `told` are those of which the client has been told that they are loaded.
    """

    main: Context
    trees: Mapping[str, Vertex | str]
    named: Mapping[str, Context]
    folders: BuildFolders
    told: set[str] = field(default_factory=set)

    async def bring(self, target: Vertex, messages: ClassicMessages) -> None:
        """Have the client send what the target's steps take of folders of its own. Raises FileChanged, ClientSentNothing."""
        for name, context in (("context", self.main), *self.named.items()):
            if not isinstance(context, KeptContext):
                continue
            if name in self.told:  # for another platform
                await self.folders.bring(context, target, name, messages.send_result)
                continue
            self.told.add(name)
            async with messages.phase("[internal] load build context" if context is self.main else f"[context {name}] load from client"):
                telling = asyncio.create_task(_tell_size(context, messages))
                try:
                    await self.folders.bring(context, target, name, messages.send_result)
                finally:
                    telling.cancel()
                    await asyncio.wait((telling,))
                await messages.transferred(context.transferred, ended=True)


async def _tell_size(context: KeptContext, messages: ClassicMessages) -> None:
    while True:
        await asyncio.sleep(_EVERY)
        await messages.transferred(context.transferred, ended=False)


@asynccontextmanager
async def contexts(
    layout: Layout, run_job: RunJob, folders: BuildFolders, sent: AsyncIterator[bytes], request: BuildRequest, telling: Telling
) -> AsyncIterator[BuildContexts]:  # fmt: skip
    """The main one is `sent`, unless the request has its address, or its id among the folders. Raises what cannot be fetched, ArchiveRefused, Invalid."""
    remote, address, addresses = Remote(layout, run_job, request.private), request.remote, request.extras.contexts
    keep = parse_bool(request.options.arguments.get(_KEEP_GIT_DIR, "false"))
    main: Context
    if request.folder:
        main = folders.take(request.folder)
    elif address:
        kind = "git source" if parse_git_reference(address, bare_github=True) else "remote build context"
        async with telling(f"[internal] load {kind} {without_credentials(address)}"):
            main = await remote.context(address, keep_git_dir=keep)
    else:
        main = await Context.receive(layout, run_job, sent)
    fetched: dict[str, Context] = {}
    trees: dict[str, Vertex | str] = {}
    try:
        sent_too: dict[str, Context] = {}
        for name, where in addresses.items():
            if where.startswith(SENT):
                sent_too[name] = await asyncio.to_thread(main.take_out, f"{SENT_FOLDER}/{where.removeprefix(SENT)}")
            elif where.startswith(KEPT):
                fetched[name] = folders.take(where.removeprefix(KEPT))
            elif not where.startswith(_IMAGE) and not parse_git_reference(where):
                async with telling(f"[context {name}] load from {without_credentials(where)}"):
                    fetched[name] = await _fetched(remote, name, where)
            trees[name] = _tree(name, where)
        if sent_too:
            main.take_out(SENT_FOLDER)  # what is left of it: the folder itself
        yield BuildContexts(main, trees, {**fetched, **sent_too}, folders)
    finally:
        for context in (main, *fetched.values()):
            await (folders.release(context) if isinstance(context, KeptContext) else context.remove())


async def _fetched(remote: Remote, name: str, where: str) -> Context:
    if where.startswith(_LAYOUT):
        raise Invalid(f"the context {name}: {where} is a folder of the client's, which it sends itself (POST /corten/build/layout) and then names {_IMAGE}")
    if not where.startswith(("http://", "https://")):
        raise Invalid(f"invalid context specifier {where} for {name}")
    return await remote.context(where)


def _tree(name: str, where: str) -> Vertex | str:
    if where.startswith(_IMAGE):
        return where.removeprefix(_IMAGE)
    git = parse_git_reference(where)
    if git:
        return Vertex(Git(git.remote, git.ref, git.folder, git.keep_git_dir or False, git.checksum, git.submodules))
    return Vertex(Local(name))
