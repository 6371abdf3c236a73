"""One repository of one registry over HTTP: authentication, retries, manifests, and reading blobs. Knows nothing of the store.

Writing is upload.py's, obtaining tokens tokens.py's. Source: OCI distribution-spec 1.1. How a registry is to be spoken to (TLS,
plain HTTP, a mirror) is an Endpoint's, which hosts.py makes.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

import aiohttp
import msgspec
from yarl import URL

from corten.errors import ArchiveRefused, NotFound, RegistryError
from corten.registry import rate_limit, retry
from corten.registry.auth import Credentials, parse_challenge
from corten.registry.hosts import Endpoint
from corten.registry.reading import read_limited, reason_of
from corten.registry.tokens import fetch_token
from corten.spec.digest import digest_of
from corten.spec.foreign_json import decode
from corten.spec.image import ACCEPTED_MANIFESTS, OCI_INDEX
from corten.spec.reference import Reference

_MANIFEST_LIMIT = 4 << 20
_CONNECT = 30.0
_TAGS_LIMIT = 100_000
_PAGES = 1000
_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')
_HEADERS = {"Accept-Encoding": "identity"}  # digests are those of the bytes as they are
_BROKEN = (aiohttp.ClientError, TimeoutError, ConnectionError)
Content = bytes | AsyncIterable[bytes]


class ManifestMissing(NotFound):
    template = "manifest for {reference} not found: manifest unknown: manifest unknown"


class PullDenied(NotFound):
    template = (
        "pull access denied for {name}, repository does not exist or may require 'docker login': denied: "
        "requested access to the resource is denied"
    )


def connection_reason(error: Exception) -> str:
    """Why a connection did not come about, as Go words it."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {error.host}: no such host"
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError) and error.os_error.errno:
        return f"dial tcp {error.host}:{error.port}: connect: {os.strerror(error.os_error.errno).lower()}"
    return str(error) or type(error).__name__


class Repository:
    """Use as an async context manager. Raises RegistryError and its kin; foreign errors are translated here.

    `push` asks for the right to write; `mountable` are other repositories of the registry whose blobs may be mounted.
    """

    def __init__(self, reference: Reference, credentials: Credentials, endpoint: Endpoint, *, push: bool = False,
                 mountable: tuple[str, ...] = ()) -> None:  # fmt: skip
        self.reference, self._credentials, self._endpoint = reference, credentials, endpoint
        self._scopes = (f"repository:{reference.path}:{'pull,push' if push else 'pull'}", *(f"repository:{path}:pull" for path in mountable))
        self._base = URL()
        self.rate_limit = ""
        self._authorization = f"Bearer {credentials.registrytoken}" if credentials.registrytoken else ""

    async def __aenter__(self) -> Repository:
        timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT, sock_read=self._endpoint.silence)
        self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=False, trust_env=True, headers=_HEADERS)
        try:
            self._base = await self._probe()
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def _probe(self) -> URL:
        """The scheme that the registry speaks; also takes its challenge."""
        problem: Exception | None = None
        for base in self._endpoint.bases:
            try:
                async with self._session.get(self._of(base, "v2/"), ssl=self._endpoint.tls) as response:
                    if response.status == 401:
                        await self._answer_challenge(response.headers.get("WWW-Authenticate", ""))
                    return base
            except (*_BROKEN, OSError) as error:
                problem = error
        raise Unreachable(f'Get "{self._endpoint.bases[-1]}/v2/": {connection_reason(problem) if problem else "no address"}')

    def _of(self, base: URL, path: str) -> URL:
        url = base.joinpath(path)
        return url.with_query(ns=self._endpoint.namespace) if self._endpoint.is_mirror else url

    # --- authentication
    async def _answer_challenge(self, header: str) -> None:
        challenge = parse_challenge(header)
        if challenge.scheme == "basic":
            self._authorization = self._credentials.basic
        elif challenge.scheme == "bearer" and not self._credentials.registrytoken:
            self._authorization = "Bearer " + await fetch_token(self._session, challenge, self._credentials, self._scopes, self._endpoint)

    # --- one exchange
    @property
    def host(self) -> str:
        """What to call the registry (or the mirror) in a message."""
        return self._endpoint.host

    def address(self, path: str) -> URL:
        """`manifests/latest` -> its URL in this repository."""
        return self._of(self._base, f"v2/{self.reference.path}/{path}")

    @asynccontextmanager
    async def request(self, method: str, url: URL, headers: Mapping[str, str] | None = None,
                      make_body: Callable[[], Content] | None = None, *, tries: int = retry.ATTEMPTS) -> AsyncIterator[aiohttp.ClientResponse]:  # fmt: skip
        """One exchange; a refusal that may pass is tried again, and one for a token that has expired once with a new one.

        Raises Broken when the connection breaks. Credentials go to the registry's own origin only, whatever a Location or a redirect says.
        """
        attempt, renewed = 0, False
        try:
            while True:
                attempt += 1
                own = {"Authorization": self._authorization} if self._authorization and url.origin() == self._base.origin() else {}
                async with self._session.request(method, url, headers={**(headers or {}), **own}, data=make_body() if make_body else None,
                                                 ssl=self._endpoint.tls) as response:  # fmt: skip
                    challenge = response.headers.get("WWW-Authenticate", "")
                    renew = response.status == HTTPStatus.UNAUTHORIZED and own and challenge and not renewed and attempt < tries
                    if not renew and (attempt == tries or not retry.is_transient(response.status)):
                        yield response
                        return
                    wait = 0.0 if renew else retry.pause(attempt, response.headers.get("Retry-After", ""), time.time())
                if renew:
                    renewed = True
                    await self._answer_challenge(challenge)
                await asyncio.sleep(wait)
        except (aiohttp.TooManyRedirects, aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise RegistryError(f'{method.capitalize()} "{url}": it leads nowhere: {type(error).__name__}') from None
        except _BROKEN as error:
            raise Broken(f'{method.capitalize()} "{url}": {connection_reason(error)}') from None

    # --- reading
    async def manifest(self, which: str) -> tuple[bytes, str, str]:
        """By tag or digest: (document, media type, digest), the digest verified."""
        async with self.request("GET", self.address(f"manifests/{which}"), {"Accept": ACCEPTED_MANIFESTS}) as response:
            if response.status in (401, 403):
                raise PullDenied(name=self.reference.familiar_name)
            if response.status == 404:
                raise ManifestMissing(reference=self.reference.familiar)
            if response.status != 200:
                raise await unexpected(response)
            self.rate_limit = rate_limit.described(response.headers) or self.rate_limit
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
            if media_type == "text/html":
                raise ArchiveRefused("it answered with a page of HTML, not with a manifest: is it a registry, and not a login page before one?")
            data = await read_limited(response, _MANIFEST_LIMIT, "the manifest")
        digest = digest_of(data)
        if which.startswith("sha256:") and digest != which:
            raise ArchiveRefused(f"manifest verification failed for digest {which}")
        return data, media_type, digest

    async def referrers(self, digest: str) -> bytes | None:
        """The index of what refers to a manifest; None at a registry without such lists."""
        async with self.request("GET", self.address(f"referrers/{digest}"), {"Accept": OCI_INDEX}) as response:
            return await read_limited(response, _MANIFEST_LIMIT, f"the list of referrers of {digest}") if response.status == HTTPStatus.OK else None

    async def document(self, digest: str, limit: int) -> bytes:
        """A small blob, verified. Raises ArchiveRefused for one that is longer than `limit` bytes, or another."""
        data = b""
        async for piece in self.blob(digest):
            data += piece
            if len(data) > limit:
                raise ArchiveRefused(f"blob {digest} is longer than {limit} bytes")
        if digest_of(data) != digest:
            raise ArchiveRefused(f"blob {digest} is not what its digest says")
        return data

    async def tags(self) -> list[str]:
        """Of the repository, by name. Follows the pages that the registry makes of a long list."""
        found: list[str] = []
        url = self.address("tags/list")
        for _ in range(_PAGES):
            async with self.request("GET", url) as response:
                if response.status in (401, 403):
                    raise PullDenied(name=self.reference.familiar_name)
                if response.status == 404:
                    raise ManifestMissing(reference=self.reference.familiar)
                if response.status != 200:
                    raise await unexpected(response)
                found += _Tags.parse(await read_limited(response, _MANIFEST_LIMIT, "the list of tags"))
                further = _NEXT.search(response.headers.get("Link", ""))
            if not further or len(found) > _TAGS_LIMIT:
                break
            url = response.url.join(URL(further[1], encoded=True))
        return sorted(found)

    async def blob(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]:
        """The blob from `offset` on, in pieces as they arrive; verifying it is the receiver's.

        A broken connection is taken up where it broke, as long as every try brings something.
        """
        failures = 0
        while True:
            try:
                async for data in self._blob_once(digest, offset):
                    yield data
                    offset += len(data)
                    failures = 0
                return
            except Broken:
                failures += 1
                if failures == retry.ATTEMPTS:
                    raise
                await asyncio.sleep(retry.pause(failures))

    async def _blob_once(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self.request("GET", self.address(f"blobs/{digest}"), headers) as response:
            if response.status == 404:
                raise RegistryError(f"blob {digest} is missing from {self.reference.name}: blob unknown to registry", status=404)
            if response.status == 416:  # there is no more: the receiver knows whether it is enough
                return
            if response.status not in (200, 206):
                raise await unexpected(response)
            skip = offset if response.status == 200 else 0  # a registry that knows no ranges starts at the beginning
            async for data in response.content.iter_chunked(1 << 18):
                if len(data) > skip:
                    yield data[skip:]
                skip = max(0, skip - len(data))


class _Tags(msgspec.Struct, frozen=True):
    """distribution-spec "Listing Tags"."""

    tags: list[str] | None = None

    @classmethod
    def parse(cls, data: bytes) -> list[str]:
        try:
            return decode(data, cls).tags or []
        except msgspec.MsgspecError as error:
            raise RegistryError(f"the registry's list of tags cannot be read: {error}") from None


class Broken(RegistryError):
    """The connection failed, or the registry fell silent: worth another try."""


class Unreachable(Broken):
    """Nobody answers at the registry's address. Docker's text, which names no image."""


async def unexpected(response: aiohttp.ClientResponse) -> RegistryError:
    """A refusal that nobody expected here, with the registry's own reason where it gives one."""
    text = f"received unexpected HTTP status: {response.status} {response.reason} ({response.method} {response.url})"
    said = await reason_of(response)
    return RegistryError(f"{text}: {said}" if said else text)
