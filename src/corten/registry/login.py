"""Checking credentials with a registry, as `docker login` does before it keeps them. Stores nothing.

Source: moby registry/auth.go and service.go at v28.5.2 (its texts); distribution token specification (offline_token).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from corten.errors import Invalid, RegistryError
from corten.registry.auth import Challenge, Credentials, parse_challenge
from corten.registry.client import connection_reason
from corten.registry.hosts import HUB, RegistryHosts
from corten.registry.reading import read_limited
from corten.spec.foreign_json import decode

_ANSWER_LIMIT = 1 << 20
_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=30)
_HUB_NAMES = ("", "docker.io", "index.docker.io", "registry-1.docker.io")
_UNAUTHORIZED = 401


def registry_host(address: str) -> str:
    """Pure: the host of a server address, with or without scheme and path. Raises Invalid."""
    try:
        host = urlsplit(address if address.startswith(("https://", "http://")) else f"https://{address}").netloc
    except ValueError as error:
        raise Invalid(f"unable to parse server address: {error}") from None
    if any(not mark.isprintable() or mark.isspace() for mark in host) or "@" in host:
        raise Invalid(f"unable to parse server address: {address!r} is no host")
    return HUB if host in _HUB_NAMES else host


async def log_in(credentials: Credentials, hosts: RegistryHosts) -> str:
    """The identity token, or empty. Raises RegistryError: 401 for wrong credentials, 500 for a registry that is not there."""
    host = registry_host(credentials.serveraddress)
    endpoint = hosts.origin(host)
    problem: Exception | None = None
    for base in endpoint.bases:
        url = f"{base.joinpath('v2/')}"
        async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session:
            try:
                return await _log_in(session, url, credentials, endpoint.tls)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                problem = RegistryError(f'Get "{url}": {connection_reason(error)}')
    assert problem is not None
    raise problem


async def _log_in(session: aiohttp.ClientSession, url: str, credentials: Credentials, tls: Any) -> str:
    async with session.get(url, ssl=tls) as response:
        if response.status != _UNAUTHORIZED:
            _check(url, response.status)
            return ""
        challenge = parse_challenge(response.headers.get("WWW-Authenticate", ""))
    identity = ""
    if challenge.scheme == "bearer":
        token, identity = await _token(session, url, challenge, credentials, tls)
        authorization = f"Bearer {token}"
    elif credentials.username and credentials.password:
        authorization = credentials.basic
    else:
        raise RegistryError(f'Get "{url}": no basic auth credentials', status=_UNAUTHORIZED)
    async with session.get(url, headers={"Authorization": authorization}, ssl=tls) as response:
        _check(url, response.status)
    return identity


def _check(url: str, status: int) -> None:
    if status == HTTPStatus.OK:
        return
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    text = f"login attempt to {url} failed with status: {status} {phrase}"
    raise RegistryError(text, status=_UNAUTHORIZED if status in (_UNAUTHORIZED, HTTPStatus.FORBIDDEN) else 500)


async def _token(session: aiohttp.ClientSession, url: str, challenge: Challenge, credentials: Credentials, tls: Any) -> tuple[str, str]:
    """(access token, identity token)."""
    realm, service = challenge.parameters.get("realm", ""), challenge.parameters.get("service", "")
    if credentials.identitytoken:
        form = {"grant_type": "refresh_token", "refresh_token": credentials.identitytoken, "client_id": "corten", "service": service}
        request = session.post(realm, data=form, ssl=tls, allow_redirects=False)  # an identity token goes nowhere else
    else:
        query = {"service": service, "client_id": "corten", "offline_token": "true"}
        headers = {}
        if credentials.basic:
            query["account"], headers["Authorization"] = credentials.username, credentials.basic
        request = session.get(realm, params=query, headers=headers, ssl=tls)
    async with request as response:
        if response.status != HTTPStatus.OK:
            raise RegistryError(f'Get "{url}": unauthorized: incorrect username or password', status=_UNAUTHORIZED)
        try:
            answer = decode(await read_limited(response, _ANSWER_LIMIT, f"the answer of the token service {realm!r}"), dict[str, Any])
        except msgspec.MsgspecError as error:
            raise RegistryError(f'Get "{url}": the token service at {realm!r} did not answer with a token: {error}') from None
    return str(answer.get("token") or answer.get("access_token") or ""), str(answer.get("refresh_token") or "")
