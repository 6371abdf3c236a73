"""What `POST /build` gives besides an image of the store: results that the client fetches (`GET /corten/build/outputs/{id}`), and pushes.

Described in docs/own-api.md. What an output holds is builder/outputs' business.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from aiohttp import web

from corten.api.call import Call
from corten.api.json_messages import progress_message
from corten.api.tar_response import tar_response
from corten.builder.attest.attestor import Attestor
from corten.builder.attest.provenance import Invocation
from corten.builder.graph import Vertex
from corten.builder.outputs.delivery import Delivery, Solved
from corten.builder.outputs.parcels import Parcels
from corten.builder.plan import BuildPlan
from corten.engine.build_images import credentials_for
from corten.errors import Forbidden
from corten.registry.auth import Credentials
from corten.registry.client import Repository
from corten.registry.hosts import RegistryHosts
from corten.registry.progress import Emit, stream
from corten.spec.build_outputs import IMAGE, TO_CLIENT, Annotation, Attest, Output
from corten.spec.reference import Reference, parse_reference
from corten.store.holds import Holds

Send = Callable[[dict[str, Any]], Awaitable[None]]


def keeps_image(outputs: Sequence[Output]) -> bool:
    """Whether the store shall have the image."""
    return any(output.type == IMAGE and output.store for output in outputs)


def names_of(output: Output, tags: Sequence[Reference]) -> list[Reference]:
    """The output's own names, else the build's. Raises Invalid for what is no reference."""
    own = [parse_reference(name) for name in output.names]
    if any(name.digest for name in own):
        raise Forbidden("build tag cannot contain a digest")
    return [name.with_default_tag() for name in own] or list(tags)


def with_annotation(output: Output, name: str, text: str) -> Output:
    """One more of the manifests' annotations, if there is a text."""
    return replace(output, annotations=(*output.annotations, Annotation("manifest", name, text))) if text else output


class BuildResults:
    def __init__(self, delivery: Delivery, attestor: Attestor, parcels: Parcels, hosts: RegistryHosts, holds: Holds) -> None:
        self._delivery, self._attestor, self._parcels, self._hosts = delivery, attestor, parcels, hosts
        self.lease = holds.lease  # from a build's first layer to its last output

    async def solved(self, plan: BuildPlan, config: bytes, attest: Attest, name: str, invocation: Invocation,
                     resolved: Mapping[Vertex, str]) -> Solved:  # fmt: skip
        """One platform's result with what is attested of it. `resolved`: commits and digests of sources at addresses."""
        return Solved(plan.platform, config, await self._attestor.attest(attest, plan.target, config, name, invocation, resolved))

    async def deliver(self, solved: Sequence[Solved], output: Output, names: Sequence[Reference], registries: Mapping[str, Credentials],
                      send: Send) -> None:  # fmt: skip
        """Make one output and tell of it."""
        if output.type in TO_CLIENT:
            parcel = await self._delivery.parcel(solved, output, names)
            shown = [name.familiar for name in names]
            await send({"aux": {"corten.output": {"ID": self._parcels.add(parcel), "Type": output.type, "Names": shown}}})
        elif output.push:
            await self._push(solved, output, names, registries, send)

    async def _push(self, solved: Sequence[Solved], output: Output, names: Sequence[Reference], registries: Mapping[str, Credentials],
                    send: Send) -> None:  # fmt: skip
        def remote(name: Reference) -> AbstractAsyncContextManager[Repository]:
            return Repository(name, credentials_for(name, registries), self._hosts.origin(name.domain), push=True)

        async def work(emit: Emit) -> None:
            await self._delivery.push(solved, output, names, remote, emit)

        for repository in dict.fromkeys(name.familiar_name for name in names):
            await send({"status": f"The push refers to repository [{repository}]"})
        async for progress in stream(work):
            await send(progress_message(progress))

    async def fetch(self, call: Call) -> web.StreamResponse:
        """`GET /corten/build/outputs/{id}`: once."""
        return await tar_response(call, self._parcels.fetch(call.parameters["id"]), {"Content-Type": "application/x-tar"})
