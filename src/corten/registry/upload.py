"""Writing to a repository: blobs (found, mounted from another repository, or uploaded with resume) and manifests.

Knows nothing of the store: content is a function from an offset to pieces. Source: OCI distribution-spec 1.1 "Push".
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable
from http import HTTPStatus

import aiohttp
from yarl import URL

from corten.errors import RegistryError
from corten.registry import retry
from corten.registry.client import Broken, Repository, unexpected

_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_CHUNK = 1 << 18
_REASON = 300  # bytes of a refusal that are passed on
ReadFrom = Callable[[int], AsyncIterable[bytes]]
Report = Callable[[int], None]


class PushDenied(RegistryError):
    """Docker's words: what a client prints after a push without the right to."""


async def has_blob(remote: Repository, digest: str) -> bool:
    async with remote.request("HEAD", remote.address(f"blobs/{digest}")) as response:
        _check_allowed(response)
        return response.status == 200


async def mount_blob(remote: Repository, digest: str, source: str) -> bool:
    """Have the registry share a blob of its repository `source`. False if it will not; nothing stays open then."""
    async with remote.request("POST", remote.address("blobs/uploads/").update_query({"mount": digest, "from": source})) as response:
        _check_allowed(response)
        if response.status == 202:  # it began an upload instead
            await _cancel(remote, _location(response))
        return response.status == 201


async def upload_blob(remote: Repository, read_from: ReadFrom, digest_when_read: Callable[[], str], report: Report) -> None:
    """Upload content whose digest is known once it has been read to its end.

    Where a connection broke it is gone on with; begun anew at a registry that cannot (docker-registry 2.8).
    """
    location, offset = await _begin(remote), 0
    failures = 0
    while True:
        try:
            location = await _send(remote, location, offset, read_from, report)
            break
        except Broken:
            failures += 1
            if failures == retry.ATTEMPTS:
                await _cancel(remote, location)
                raise
            await asyncio.sleep(retry.pause(failures))
            location, offset = await _progress(remote, location) or (await _begin(remote), 0)
    async with remote.request("PUT", location.update_query({"digest": digest_when_read()})) as response:
        if response.status != 201:
            raise await unexpected(response)


async def _begin(remote: Repository) -> URL:
    async with remote.request("POST", remote.address("blobs/uploads/")) as response:
        _check_allowed(response)
        if response.status != 202:
            raise await unexpected(response)
        return _location(response)


def _location(response: aiohttp.ClientResponse) -> URL:
    """Where an upload goes on; relative to where it was asked for, which need not be the registry. Raises RegistryError."""
    text = response.headers.get("Location", "")
    if not text:
        raise RegistryError(f"{response.method} {response.url}: the registry does not say where the upload goes on (no Location)")
    return response.url.join(URL(text, encoded=True))


async def _send(remote: Repository, location: URL, offset: int, read_from: ReadFrom, report: Report) -> URL:
    async def pieces() -> AsyncIterator[bytes]:
        sent = offset
        async for data in read_from(offset):
            yield data
            sent += len(data)
            report(sent)

    async with remote.request("PATCH", location, {"Content-Type": "application/octet-stream"}, pieces, tries=1) as response:
        if retry.is_transient(response.status) or response.status == HTTPStatus.UNAUTHORIZED:  # how much of it arrived is to be asked before anything is sent again
            raise Broken(f'Patch "{location}": HTTP status {response.status} {response.reason}')
        if response.status != 202:
            raise await unexpected(response)
        return _location(response)


async def _progress(remote: Repository, location: URL) -> tuple[URL, int] | None:
    """Where an interrupted upload goes on: (its address, how many bytes the registry has); None if it has given it up."""
    async with remote.request("GET", location) as response:
        if response.status != 204:
            return None
        found = _RANGE.fullmatch(response.headers.get("Range", ""))
        last = int(found[1]) if found else 0
        # `0-0` is said of nothing and of a single byte alike; should it have been one, the digest at the end tells.
        return _location(response) if "Location" in response.headers else location, last + 1 if last else 0


async def _cancel(remote: Repository, location: URL) -> None:
    """Best effort: a registry throws unfinished uploads away by itself."""
    try:
        async with remote.request("DELETE", location):
            return
    except Broken:
        return


async def put_manifest(remote: Repository, tag: str, data: bytes, media_type: str) -> None:
    async with remote.request("PUT", remote.address(f"manifests/{tag}"), {"Content-Type": media_type}, lambda: data) as response:
        _check_allowed(response)
        if response.status not in (200, 201, 202):
            text = (await response.content.read(_REASON)).decode("utf-8", "replace")
            raise RegistryError(f"manifest of {remote.reference.familiar} refused: HTTP status {response.status} {text}")


async def from_file(fd: int, offset: int) -> AsyncIterator[bytes]:
    """What a file has from `offset` on; closes the descriptor. Small reads of a local file: no thread is worth it."""
    try:
        while data := os.pread(fd, _CHUNK, offset):
            yield data
            offset += len(data)
    finally:
        os.close(fd)


async def from_memory(data: bytes, offset: int) -> AsyncIterator[bytes]:
    yield data[offset:]


def _check_allowed(response: aiohttp.ClientResponse) -> None:
    if response.status == 401:
        raise PushDenied("unauthorized: authentication required", status=401)
    if response.status in (403, 405):
        raise PushDenied("denied: requested access to the resource is denied", status=403)
