"""Searching for repositories: docker.io's index, a registry's own search, or where it has none its catalog. Stores nothing.

Source: moby registry/search.go, search_endpoint_v1.go, search_session.go at v28.5.2 (its texts); distribution-spec has no search, its
catalog (distribution's `/v2/_catalog`) is Corten's addition: names that hold the term, without stars and descriptions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import TypeVar

import aiohttp
import msgspec
from yarl import URL

from corten.errors import Invalid, RegistryError
from corten.registry.auth import Credentials, parse_challenge
from corten.registry.client import connection_reason
from corten.registry.hosts import HUB, Endpoint, RegistryHosts
from corten.registry.reading import read_limited
from corten.registry.tokens import fetch_token
from corten.spec.filters import Filters, one_flag
from corten.spec.foreign_json import decode

INDEX = URL("https://index.docker.io")
DEFAULT_LIMIT, _MOST = 25, 100
_ANSWER_LIMIT, _PAGES = 4 << 20, 100
_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=30)
_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')
T = TypeVar("T")
_CATALOG_SCOPE = ("registry:catalog:*",)


class Found(msgspec.Struct, frozen=True):
    """One repository, with Docker's keys."""

    name: str = ""
    description: str = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Results(msgspec.Struct, frozen=True):
    results: list[Found] = []


class _Catalog(msgspec.Struct, frozen=True):
    repositories: list[str] = []


def split_term(term: str) -> tuple[str, str]:
    """(registry, rest of the term); an empty registry is docker.io. Raises Invalid."""
    if term.startswith(("http://", "https://")):
        raise Invalid(f"invalid repository name: repository name ({term}) should not have a scheme")
    head, slash, rest = term.partition("/")
    if not slash or (not any(mark in head for mark in ".:") and head != "localhost"):
        return "", term.removeprefix("library/")
    return ("", rest.removeprefix("library/")) if head in ("docker.io", "index.docker.io") else (head, rest)


def select(found: Sequence[Found], filters: Filters) -> list[Found]:
    """Those that pass `is-official` and `stars` (at least so many). Pure. Raises Invalid for a value that is none, of `is-automated` too."""
    one_flag(filters, "is-automated")
    official, stars = one_flag(filters, "is-official"), 0
    for value in filters.get("stars", []):
        if not re.fullmatch(r"[+-]?\d+", value):
            raise Invalid(f"invalid filter 'stars={value}': strconv.Atoi: parsing \"{value}\": invalid syntax")
        stars = max(stars, int(value))
    passing = [each for each in found if official in (None, each.is_official) and each.star_count >= stars]
    return [msgspec.structs.replace(each, is_automated=False) for each in passing]


async def search(term: str, limit: int, credentials: Credentials, hosts: RegistryHosts) -> list[Found]:
    """At most `limit` (0: 25) repositories. Raises Invalid with Docker's texts, RegistryError for what the registry refuses."""
    domain, rest = split_term(term)
    endpoint = hosts.origin(domain or HUB)
    async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session:
        base = await _ping(session, endpoint) if domain else INDEX
        wanted = limit or DEFAULT_LIMIT
        if not 1 <= wanted <= _MOST:
            raise Invalid(f"limit {wanted} is outside the range of [1, {_MOST}]")
        try:
            return await _Search(session, endpoint, base, credentials).run(rest, wanted, catalog_of=domain)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RegistryError(f'Get "{base}/v1/search": {connection_reason(error)}') from None


async def _ping(session: aiohttp.ClientSession, endpoint: Endpoint) -> URL:
    """The first scheme that is spoken there, whatever it answers."""
    problems: list[str] = []
    for base in endpoint.bases:
        try:
            async with session.get(base.joinpath("v1/_ping"), ssl=endpoint.tls):
                return base
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            problems.append(f'Get "{base}/v1/_ping": {connection_reason(error)}')
    if len(problems) > 1:
        raise Invalid(f'invalid registry endpoint "{endpoint.bases[-1]}/v1/". HTTPS attempt: {problems[0]}. HTTP attempt: {problems[1]}')
    raise Invalid(
        f"invalid registry endpoint {endpoint.bases[0]}/v1/: {problems[0]}. If this private registry supports only HTTP or HTTPS with an unknown CA "
        f"certificate, please add `--insecure-registry {endpoint.host}` to the daemon's arguments. In the case of HTTPS, if you have access to the "
        f"registry's CA certificate, no need for the flag; simply place the CA certificate at /etc/docker/certs.d/{endpoint.host}/ca.crt"
    )


class _Search:
    """One question to one registry."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: Endpoint, base: URL, credentials: Credentials) -> None:
        self._session, self._endpoint, self._base, self._credentials = session, endpoint, base, credentials
        self._authorization = credentials.basic

    async def run(self, term: str, limit: int, *, catalog_of: str) -> list[Found]:
        status, body, _ = await self._get(self._base.joinpath("v1/search").with_query(q=term, n=limit))
        if status == HTTPStatus.OK:
            return _decode(body, _Results).results[:limit]
        if status == HTTPStatus.NOT_FOUND and catalog_of:
            found = await self._catalog(term, limit)
            if found is not None:
                return [Found(f"{catalog_of}/{name}") for name in found]
        raise RegistryError(f"Unexpected status code {status}")

    async def _catalog(self, term: str, limit: int) -> list[str] | None:
        """Names that hold the term; None at a registry that shows no catalog."""
        found: list[str] = []
        url, self._authorization = self._base.joinpath("v2/_catalog").with_query(n=_MOST), ""
        for _ in range(_PAGES):
            status, body, link = await self._get(url)
            if status != HTTPStatus.OK:
                return None
            found += [name for name in _decode(body, _Catalog).repositories if term in name]
            further = _NEXT.search(link)
            if not further or len(found) >= limit:
                break
            url = self._base.join(URL(further[1], encoded=True))
        return found[:limit]

    async def _get(self, url: URL) -> tuple[int, bytes, str]:
        """(status, body, Link). A challenge is answered once; credentials go to the registry's own origin only."""
        status, body, link, challenge = await self._get_once(url)
        if status == HTTPStatus.UNAUTHORIZED and challenge:
            await self._answer(challenge)
            status, body, link, _ = await self._get_once(url)
        return status, body, link

    async def _get_once(self, url: URL) -> tuple[int, bytes, str, str]:
        own = {"Authorization": self._authorization} if self._authorization and url.origin() == self._base.origin() else {}
        async with self._session.get(url, headers=own, ssl=self._endpoint.tls) as response:
            body = await read_limited(response, _ANSWER_LIMIT, "the answer to a search")
            return response.status, body, response.headers.get("Link", ""), response.headers.get("WWW-Authenticate", "")

    async def _answer(self, header: str) -> None:
        challenge = parse_challenge(header)
        if challenge.scheme == "bearer":
            token = await fetch_token(self._session, challenge, self._credentials, _CATALOG_SCOPE, self._endpoint)
            self._authorization = f"Bearer {token}"
        else:
            self._authorization = self._credentials.basic


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return decode(body, kind)
    except msgspec.DecodeError as error:
        raise RegistryError(f"error decoding registry search results: {error}") from None
