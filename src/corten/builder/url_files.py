"""Files that ADD has fetched, kept to be asked for again: the server says whether one is still what it was, and then sends nothing.

A file is a row of the build cache with a folder, as a cache mount is; it goes with the row. Kept are those whose server gave something to
ask by. Source: RFC 9110, 8.8 (validators) and 13.1; BuildKit's source/http for what is asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from corten.builder.attest.provenance import without_credentials
from corten.builder.cache import DOWNLOAD, Cache, CacheRow, pack
from corten.builder.cache_mounts import CacheMounts
from corten.registry.download import Validators
from corten.spec.timestamps import now_ns
from corten.store.layout import Layout
from corten.store.locks import NamedLocks

_CONTENT = "content"


@dataclass(frozen=True)
class KeptFile:
    """`modified`: seconds since the epoch, 0 where the server has not said. `validators` are for asking again."""

    path: str
    digest: str
    modified: int
    validators: Validators


class UrlFiles:
    def __init__(self, layout: Layout, cache: Cache, mounts: CacheMounts) -> None:
        self._layout, self._cache, self._mounts = layout, cache, mounts
        self._locks = NamedLocks()

    @asynccontextmanager
    async def of(self, url: str) -> AsyncIterator[KeptFile | None]:
        """What there is of an address, which stays for the block. One block an address at a time: who waits finds what the other has fetched."""
        name = _name(url)
        async with self._locks[name]:
            with self._mounts.held(name):
                yield self._find(name)

    def _find(self, name: str) -> KeptFile | None:
        row, path = self._cache.row(name), f"{self._mounts.path(name)}/{_CONTENT}"
        if row is None or not os.path.isfile(path) or os.stat(path).st_size != row.length:
            return None
        said = dict(self._cache.inputs(name))
        return KeptFile(path, said["digest"], int(said["modified"]), Validators(said["etag"], said["last-modified"]))

    def used(self, url: str) -> None:
        row = self._cache.row(_name(url))
        if row:
            self._cache.touch(row)

    async def keep(self, url: str, path: str, digest: str, modified: int, validators: Validators) -> None:
        """Move a file here in place of what there was. Inside of()'s block."""
        name, now = _name(url), now_ns()
        staging, target = f"{self._layout.temporary}/url-{secrets.token_hex(8)}", self._mounts.path(name)
        os.mkdir(staging, 0o700)
        os.rename(path, f"{staging}/{_CONTENT}")
        size = os.stat(f"{staging}/{_CONTENT}").st_size
        await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
        os.rename(staging, target)
        row = CacheRow(name, DOWNLOAD, f"http url {without_credentials(url)}", "", now, now, 1, length=size, size=size, folder=name)
        said = [("digest", digest), ("modified", str(modified)), ("etag", validators.etag), ("last-modified", validators.last_modified)]
        self._cache.put(row, pack(said))


def _name(url: str) -> str:
    return hashlib.sha256(f"url {url}".encode()).hexdigest()[:32]
