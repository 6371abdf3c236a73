"""One repository of one registry over HTTP: manifests and blobs, with authentication. Knows nothing of the store.

Source: OCI distribution-spec 1.1 (pull); distribution "Token Authentication". Registries on loopback may speak plain
HTTP, as with Docker (its insecure 127.0.0.0/8); every other one must speak TLS.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from corten.errors import ArchiveRefused, NotFound, RegistryError
from corten.registry.auth import Credentials, parse_challenge
from corten.spec.digest import digest_of
from corten.spec.image import ACCEPTED_MANIFESTS
from corten.spec.reference import DEFAULT_DOMAIN, Reference

_HUB = "registry-1.docker.io"
_MANIFEST_LIMIT = 4 << 20
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=30, sock_read=60)


class ManifestMissing(NotFound):
    template = "manifest for {reference} not found: manifest unknown: manifest unknown"


class PullDenied(NotFound):
    template = (
        "pull access denied for {name}, repository does not exist or may require 'docker login': denied: "
        "requested access to the resource is denied"
    )


def is_loopback(domain: str) -> bool:
    host = domain.rsplit(":", 1)[0].strip("[]") if not domain.endswith("]") else domain.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Repository:
    """Use as an async context manager. Raises RegistryError and its kin; foreign errors are translated here."""

    def __init__(self, reference: Reference, credentials: Credentials) -> None:
        self._reference, self._credentials = reference, credentials
        self._host = _HUB if reference.domain == DEFAULT_DOMAIN else reference.domain
        self._loopback = is_loopback(reference.domain)
        self._base = ""
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

    async def _probe(self) -> str:
        """The scheme that the registry speaks; also takes its challenge."""
        schemes = ("https", "http") if self._loopback else ("https",)
        problem: Exception | None = None
        for scheme in schemes:
            url = f"{scheme}://{self._host}/v2/"
            try:
                async with self._session.get(url, ssl=False if self._loopback else ssl.create_default_context()) as response:
                    if response.status == 401:
                        await self._answer_challenge(response.headers.get("WWW-Authenticate", ""))
                    return f"{scheme}://{self._host}"
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                problem = error
        raise RegistryError(f'Get "https://{self._host}/v2/": {problem}')

    async def _answer_challenge(self, header: str) -> None:
        challenge = parse_challenge(header)
        if challenge.scheme == "basic":
            self._authorization = self._credentials.basic
        elif challenge.scheme == "bearer" and not self._credentials.registrytoken:
            self._authorization = "Bearer " + await self._fetch_token(challenge.parameters)

    async def _fetch_token(self, parameters: dict[str, str]) -> str:
        scope = f"repository:{self._reference.path}:pull"
        realm = parameters.get("realm", "")
        credentials = self._credentials
        if credentials.identitytoken:
            form = {"grant_type": "refresh_token", "refresh_token": credentials.identitytoken, "client_id": "corten",
                    "service": parameters.get("service", ""), "scope": scope}  # fmt: skip
            request = self._session.post(realm, data=form)
        else:
            headers = {"Authorization": credentials.basic} if credentials.basic else {}
            query = {"service": parameters.get("service", ""), "scope": scope}
            request = self._session.get(realm, params=query, headers=headers)
        async with request as response:
            body = await response.read()
            if response.status != 200:
                raise RegistryError(f"Get {realm!r}: unauthorized: incorrect username or password", status=401)
            answer: dict[str, Any] = msgspec.json.decode(body)
            return str(answer.get("token") or answer.get("access_token") or "")

    @asynccontextmanager
    async def _get(self, path: str, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._authorization:
            headers = {**headers, "Authorization": self._authorization}
        url = f"{self._base}/v2/{self._reference.path}/{path}"
        try:
            async with self._session.get(url, headers=headers, ssl=not self._loopback) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RegistryError(f'Get "{url}": {error or type(error).__name__}') from None

    async def manifest(self, which: str) -> tuple[bytes, str, str]:
        """By tag or digest: (document, media type, digest), the digest verified."""
        async with self._get(f"manifests/{which}", {"Accept": ACCEPTED_MANIFESTS}) as response:
            if response.status in (401, 403):
                raise PullDenied(name=self._reference.familiar_name)
            if response.status == 404:
                raise ManifestMissing(reference=self._reference.familiar)
            if response.status != 200:
                raise RegistryError(f"received unexpected HTTP status: {response.status} {response.reason}")
            data = await response.content.read(_MANIFEST_LIMIT + 1)
            while len(data) <= _MANIFEST_LIMIT and (more := await response.content.read(_MANIFEST_LIMIT + 1 - len(data))):
                data += more
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        if len(data) > _MANIFEST_LIMIT:
            raise ArchiveRefused(f"the manifest of {self._reference.familiar} is larger than {_MANIFEST_LIMIT >> 20} MiB")
        digest = digest_of(data)
        if which.startswith("sha256:") and digest != which:
            raise ArchiveRefused(f"manifest verification failed for digest {which}")
        return data, media_type, digest

    async def blob(self, digest: str) -> AsyncIterator[bytes]:
        """The blob in pieces as they arrive; verifying it is the receiver's."""
        async with self._get(f"blobs/{digest}", {}) as response:
            if response.status == 404:
                raise RegistryError(f"blob {digest} is missing from {self._reference.name}: blob unknown to registry", status=404)
            if response.status != 200:
                raise RegistryError(f"received unexpected HTTP status: {response.status} {response.reason}")
            async for data in response.content.iter_chunked(1 << 18):
                yield data
