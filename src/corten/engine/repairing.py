"""fsck: what store/checking.py finds broken is fetched again from where it came, or unpacked again.

A blob is fetched by its digest from a repository that a name of one of its images has it by, and takes the broken one's place when it is
whole. A layer is unpacked anew from a blob that is good, which is fetched if it is not here, unless a running container stands on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corten.engine import states
from corten.engine.containers import Containers
from corten.errors import CortenError, StoreCorrupt
from corten.registry.auth import Credentials
from corten.registry.blob_download import refetch_blob, refetch_manifest
from corten.registry.client import Repository
from corten.registry.hosts import RegistryHosts
from corten.registry.progress import Emit, Progress
from corten.registry.refetch import Refetching
from corten.spec.image import MANIFEST_TYPES, Descriptor, Manifest
from corten.spec.reference import parse_reference
from corten.store.blobs import Blobs
from corten.store.checking import Checked, Checking, Problem
from corten.store.database import ImageRow
from corten.store.holds import Holds
from corten.store.images import Images
from corten.store.layers import Layers


@dataclass(frozen=True)
class Outcome:
    """What became of a problem; `how` says it, or why not."""

    problem: Problem
    repaired: bool
    how: str


class Repairing:
    def __init__(self, checking: Checking, blobs: Blobs, layers: Layers, images: Images, containers: Containers, holds: Holds,
                 hosts: RegistryHosts, refetching: Refetching) -> None:  # fmt: skip
        self._checking, self._blobs, self._layers, self._images = checking, blobs, layers, images
        self._containers, self._holds, self._hosts, self._refetching = containers, holds, hosts, refetching

    async def check(self, emit: Emit = lambda _progress: None) -> Checked:
        with self._holds.lease():
            return await self._checking.check(lambda what, done, total: emit(Progress("Checking", what, done, total)))

    async def repair(self, problems: list[Problem], credentials: Credentials, emit: Emit = lambda _progress: None) -> list[Outcome]:
        """Manifests and configs before what they name, blobs before layers."""
        outcomes: list[Outcome] = []
        with self._holds.lease():
            rows = self._images.rows()
            manifests = {digest for row in rows for digest in (row.manifest, *self._images.targets_of(row.id), *self._manifests_beside(row))}
            ranks = {row.id: 1 for row in rows} | dict.fromkeys(manifests, 0)
            ordered = sorted(problems, key=lambda problem: (problem.kind == "layer", ranks.get(problem.id, 2)))
            for problem in ordered:
                outcomes.append(await self._repair(problem, credentials))
                emit(Progress(outcomes[-1].how, f"{problem.kind} {problem.id}"))
        return outcomes

    def _manifests_beside(self, row: ImageRow) -> list[str]:
        """Of what is kept beside it."""
        return [digest for digest, entry in self._images.kept_beside(row.id).items() if entry.media_type in MANIFEST_TYPES]

    async def _repair(self, problem: Problem, credentials: Credentials) -> Outcome:
        try:
            how = await (self._renew_layer(problem, credentials) if problem.kind == "layer" else self._fetch(problem, credentials))
        except CortenError as error:
            return Outcome(problem, repaired=False, how=error.message)
        self._images.config.cache_clear()
        return Outcome(problem, repaired=True, how=how)

    async def _fetch(self, problem: Problem, credentials: Credentials) -> str:
        users = self._checking.users().get(problem.id, ())  # as they are now: manifests have been repaired before
        rows = [row for row in self._images.rows() if row.id in users]
        if not rows:
            if not self._checking.knows_all():
                raise StoreCorrupt("another image's manifest or config is broken: whose this is cannot be said")
            self._blobs.remove(problem.id)
            return "removed: no image needs it"
        reason = "none of its images is known in a registry: load or build it again"
        for row in rows:
            for place in self._images.repository_digests(row.id):
                reference = parse_reference(place)
                try:
                    async with Repository(reference, credentials, self._hosts.origin(reference.domain)) as remote:
                        await self._fetch_from(remote, row, problem.id)
                except CortenError as error:
                    reason = error.message
                else:
                    return f"fetched again from {reference.familiar_name}"
        raise StoreCorrupt(reason)

    async def _fetch_from(self, remote: Repository, row: ImageRow, digest: str) -> None:
        if digest in (row.manifest, *self._images.targets_of(row.id), *self._manifests_beside(row)):
            await refetch_manifest(remote, digest, self._blobs)
            return
        descriptors = {**self._described(row), **self._images.kept_beside(row.id)}
        if digest not in descriptors:
            raise StoreCorrupt(f"the manifest {row.manifest} does not name it")
        await refetch_blob(remote, descriptors[digest], self._blobs)

    def _described(self, row: ImageRow) -> Mapping[str, Descriptor]:
        manifest = self._images.document(row)
        return {each.digest: each for each in (manifest.config, *manifest.layers)} if isinstance(manifest, Manifest) else {}

    async def _renew_layer(self, problem: Problem, credentials: Credentials) -> str:
        row = self._layers.find(problem.id)
        user = next((record for record in self._containers.all() if states.is_up(record) and problem.id in record.layers), None)
        if user:
            raise StoreCorrupt(f"the running container {user.name} stands on it: stop it and check again")
        blob, how = await self._have_blob(problem, credentials)
        if row is None:
            await self._layers.unpack(blob, problem.id)
        else:
            await self._layers.renew(row, blob)
        return how

    async def _have_blob(self, problem: Problem, credentials: Credentials) -> tuple[str, str]:
        """A blob that has the layer, here or fetched: (its digest, what will have been done). Raises StoreCorrupt."""
        row = self._layers.find(problem.id)
        users = self._images.with_layer(problem.id)  # as they are now: configs have been repaired before
        wanted = [(image, blob) for image in self._images.rows() if image.id in users for blob, diff_id in self._images.pairs(image) if diff_id == problem.id]
        for blob in ([row.blob] if row else []) + [blob for _, blob in wanted]:
            if self._blobs.has(blob):
                return blob, "unpacked again"
        reason = "none of its blobs is here, nor known in a registry: load or build its image again"
        for image, blob in wanted:
            try:
                place = await self._refetching.bring_back(self._described(image)[blob], credentials, self._domain(image))
            except CortenError as error:
                reason = error.message
            else:
                return blob, f"fetched from {place} and unpacked again"
        raise StoreCorrupt(reason)

    def _domain(self, image: ImageRow) -> str:
        """Of the registry that the request's credentials are for: that of the image's names."""
        return next((parse_reference(place).domain for place in self._images.repository_digests(image.id)), "")
