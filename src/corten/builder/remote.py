"""Files from elsewhere: a URL's, a git commit's, a whole build context's. Each becomes a Context, as if a client had sent it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets as random_names
import shutil
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from corten.builder.context import Context
from corten.builder.git_checkout import check_out
from corten.builder.git_reference import parse_git_reference
from corten.builder.graph import Git, Http
from corten.builder.hosting import Private
from corten.builder.remote_auth import http_authorization
from corten.builder.url_files import KeptFile, UrlFiles
from corten.errors import Invalid, RegistryError
from corten.registry.download import NO_VALIDATORS, Validators, download
from corten.spec.archive_head import BLOCK, is_archive
from corten.store.layout import Layout
from corten.store.tar_writer import TarWriter
from corten.store.workers import RunJob

_CHUNK = 1 << 18
_LEFT = 64 << 20  # bytes that no download takes


@dataclass(frozen=True)
class _File:
    """`modified`: seconds since the epoch, 0 where the server does not say."""

    path: str
    digest: str
    modified: int
    validators: Validators = NO_VALIDATORS

    async def pieces(self) -> AsyncIterator[bytes]:
        with open(self.path, "rb") as file:
            while data := await asyncio.to_thread(file.read, _CHUNK):
                yield data

    def is_archive(self) -> bool:
        with open(self.path, "rb") as file:
            return is_archive(file.read(BLOCK))


class Remote:
    """Everything is asked for anew by each build: whether a step can be used again is told by the content."""

    def __init__(self, layout: Layout, run_job: RunJob, private: Private) -> None:
        self._layout, self._run_job, self._private = layout, run_job, private

    async def url(self, op: Http, kept: UrlFiles, *, anew: bool) -> Context:
        """A folder with the one file, root's; one that is `kept` and still the same is not sent again, unless it shall be `anew`.

        Raises RegistryError, Invalid for another checksum.
        """
        async with kept.of(op.url) as there, self._folder() as folder:
            known = None if anew else there
            if known and op.checksum == known.digest:
                kept.used(op.url)
                return await self._receive(_with_one_file(_File(known.path, known.digest, known.modified), op.name, op.mode), known.digest)
            file = await fetch(op.url, folder, http_authorization(op.url, self._private.secrets), known)
            if op.checksum and file.digest != op.checksum:
                raise Invalid(f"digest mismatch {op.checksum}: {file.digest} of {op.url}")
            context = await self._receive(_with_one_file(file, op.name, op.mode), file.digest)
            if known and file.path == known.path:
                kept.used(op.url)
            elif file.validators:
                await kept.keep(op.url, file.path, file.digest, file.modified, file.validators)
            return context

    async def git(self, op: Git) -> Context:
        """Raises what check_out does."""
        async with self._folder() as folder:
            root, commit = await check_out(op, folder, self._private)
            packed = f"{folder}/packed"
            await asyncio.to_thread(_pack, root, packed)
            return await self._receive(_File(packed, "", 0).pieces(), commit)

    async def context(self, address: str, *, keep_git_dir: bool = False) -> Context:
        """A git repository, a tar, or a Dockerfile without any context (as which it is in it)."""
        found = parse_git_reference(address, bare_github=True)
        if found:
            return await self.git(Git(found.remote, found.ref, found.folder, keep_git_dir if found.keep_git_dir is None else found.keep_git_dir, found.checksum, found.submodules))
        if not address.startswith(("http://", "https://")):
            raise Invalid(f"{address} is no address of a build context: want a git repository, http:// or https://")
        async with self._folder() as folder:
            file = await self._fetch(address, folder)
            return await self._receive(file.pieces() if file.is_archive() else _with_one_file(file, "Dockerfile", 0o644), file.digest)

    async def _fetch(self, url: str, folder: str) -> _File:
        return await fetch(url, folder, http_authorization(url, self._private.secrets))

    async def _receive(self, pieces: AsyncIterator[bytes], revision: str) -> Context:
        context = await Context.receive(self._layout, self._run_job, pieces)
        context.revision = revision
        return context

    @asynccontextmanager
    async def _folder(self) -> AsyncIterator[str]:
        """Gone afterwards, whatever happens; after a crash with all else that is temporary."""
        folder = f"{self._layout.temporary}/remote-{random_names.token_hex(8)}"
        os.mkdir(folder, 0o700)
        try:
            yield folder
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))


def room_in(folder: str) -> int:
    """Bytes that may be written there: what is free but for a part that is left to the rest of the engine."""
    found = os.statvfs(folder)
    return max(0, found.f_bavail * found.f_frsize - _LEFT)


async def fetch(url: str, folder: str, authorization: str = "", known: KeptFile | None = None) -> _File:
    """Into the folder, or the file that is `known` if it still is what is there. Raises RegistryError for a refusal, and for more than there is room for."""
    path, digest, room, size = f"{folder}/fetched", hashlib.sha256(), room_in(folder), 0
    async with download(url, authorization, known.validators if known else NO_VALIDATORS) as found:
        if known and found.unchanged:
            return _File(known.path, known.digest, known.modified)
        _check_room(url, found.total, room)
        with open(path, "wb") as file:
            async for piece in found.pieces:
                size += len(piece)
                _check_room(url, size, room)
                digest.update(piece)
                file.write(piece)
        return _File(path, f"sha256:{digest.hexdigest()}", found.modified, found.validators)


def _check_room(url: str, size: int, room: int) -> None:
    if size > room:
        raise RegistryError(f"{url} has {size} bytes, and there is room for {room} on the engine's disk")


async def _with_one_file(file: _File, name: str, mode: int) -> AsyncIterator[bytes]:
    """A tar."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = os.stat(file.path).st_size, mode, file.modified
    yield entry.tobuf(tarfile.PAX_FORMAT)
    async for piece in file.pieces():
        yield piece
    yield bytes(-entry.size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)


def _pack(root: str, target: str) -> None:
    with open(target, "wb") as output:
        writer = TarWriter(output)
        for folder, below, names in os.walk(root):
            below.sort()
            for name in sorted([*below, *names]):
                path = f"{folder}/{name}"
                writer.add(path, os.path.relpath(path, root), os.lstat(path))
        output.write(bytes(2 * tarfile.BLOCKSIZE))
