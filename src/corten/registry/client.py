"""One repository of one registry over HTTP: authentication, retries, manifests, and reading blobs. Knows nothing of the store.

Writing is upload.py's. Source: OCI distribution-spec 1.1; distribution "Token Authentication". How a registry is to be
spoken to (TLS, plain HTTP, a mirror) is an Endpoint's, which hosts.py makes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from corten.errors import ArchiveRefused, NotFound, RegistryError
from corten.registry import retry
from corten.registry.auth import Credentials, parse_challenge
from corten.registry.hosts import Endpoint
from corten.spec.digest import digest_of
from corten.spec.image import ACCEPTED_MANIFESTS
from corten.spec.reference import Reference

_MANIFEST_LIMIT = 4 << 20
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=30, sock_read=60)
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
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno:
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
        self._authorization = f"Bearer {credentials.registrytoken}" if credentials.registrytoken else ""

    async def __aenter__(self) -> Repository:
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False, trust_env=True)
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
        raise Broken(f'Get "{self._endpoint.bases[-1]}/v2/": {problem}')

    def _of(self, base: URL, path: str) -> URL:
        url = base.joinpath(path)
        return url.with_query(ns=self._endpoint.namespace) if self._endpoint.is_mirror else url

    # --- authentication
    async def _answer_challenge(self, header: str) -> None:
        challenge = parse_challenge(header)
        if challenge.scheme == "basic":
            self._authorization = self._credentials.basic
        elif challenge.scheme == "bearer" and not self._credentials.registrytoken:
            self._authorization = "Bearer " + await self._fetch_token(challenge.parameters)

    async def _fetch_token(self, parameters: dict[str, str]) -> str:
        realm, service = parameters.get("realm", ""), parameters.get("service", "")
        credentials = self._credentials
        if credentials.identitytoken:
            form = {"grant_type": "refresh_token", "refresh_token": credentials.identitytoken, "client_id": "corten",
                    "service": service, "scope": " ".join(self._scopes)}  # fmt: skip
            request = self._session.post(realm, data=form)
        else:
            headers = {"Authorization": credentials.basic} if credentials.basic else {}
            query = [("service", service), *(("scope", scope) for scope in self._scopes)]
            request = self._session.get(realm, params=query, headers=headers)
        async with request as response:
            body = await response.read()
            if response.status != 200:
                raise RegistryError(f"Get {realm!r}: unauthorized: incorrect username or password", status=401)
            answer: dict[str, Any] = msgspec.json.decode(body)
            return str(answer.get("token") or answer.get("access_token") or "")

    # --- one exchange
    def address(self, path: str) -> URL:
        """`manifests/latest` -> its URL in this repository."""
        return self._of(self._base, f"v2/{self.reference.path}/{path}")

    def at(self, location: str) -> URL:
        """A Location that the registry gave, which may be relative."""
        return self._base.join(URL(location, encoded=True))

    @asynccontextmanager
    async def request(self, method: str, url: URL, headers: Mapping[str, str] | None = None,
                      make_body: Callable[[], Content] | None = None, *, tries: int = retry.ATTEMPTS) -> AsyncIterator[aiohttp.ClientResponse]:  # fmt: skip
        """One exchange; a refusal that may pass is tried again. Raises Broken when the connection breaks.

        Credentials go to the registry's own origin only, whatever a Location or a redirect says.
        """
        wanted = dict(headers or {})
        if self._authorization and url.origin() == self._base.origin():
            wanted["Authorization"] = self._authorization
        attempt = 0
        try:
            while True:
                attempt += 1
                async with self._session.request(method, url, headers=wanted, data=make_body() if make_body else None,
                                                 ssl=self._endpoint.tls) as response:  # fmt: skip
                    if attempt == tries or not retry.is_transient(response.status):
                        yield response
                        return
                    wait = retry.pause(attempt, response.headers.get("Retry-After", ""), time.time())
                await asyncio.sleep(wait)
        except _BROKEN as error:
            raise Broken(f'{method.capitalize()} "{url}": {error or type(error).__name__}') from None

    # --- reading
    async def manifest(self, which: str) -> tuple[bytes, str, str]:
        """By tag or digest: (document, media type, digest), the digest verified."""
        async with self.request("GET", self.address(f"manifests/{which}"), {"Accept": ACCEPTED_MANIFESTS}) as response:
            if response.status in (401, 403):
                raise PullDenied(name=self.reference.familiar_name)
            if response.status == 404:
                raise ManifestMissing(reference=self.reference.familiar)
            if response.status != 200:
                raise unexpected(response)
            data = await response.content.read(_MANIFEST_LIMIT + 1)
            while len(data) <= _MANIFEST_LIMIT and (more := await response.content.read(_MANIFEST_LIMIT + 1 - len(data))):
                data += more
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        if len(data) > _MANIFEST_LIMIT:
            raise ArchiveRefused(f"the manifest of {self.reference.familiar} is larger than {_MANIFEST_LIMIT >> 20} MiB")
        digest = digest_of(data)
        if which.startswith("sha256:") and digest != which:
            raise ArchiveRefused(f"manifest verification failed for digest {which}")
        return data, media_type, digest

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
                raise unexpected(response)
            skip = offset if response.status == 200 else 0  # a registry that knows no ranges starts at the beginning
            async for data in response.content.iter_chunked(1 << 18):
                if len(data) > skip:
                    yield data[skip:]
                skip = max(0, skip - len(data))


class Broken(RegistryError):
    """The connection failed, or the registry fell silent: worth another try."""


def unexpected(response: aiohttp.ClientResponse) -> RegistryError:
    return RegistryError(f"received unexpected HTTP status: {response.status} {response.reason}")
