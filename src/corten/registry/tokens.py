"""Obtaining a token from the service that a registry's challenge names. Source: distribution "Token Authentication" and "OAuth2".

What a client sends is only ever sent where the challenge says: a redirect gets no identity token, and no password on another host.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import aiohttp
import msgspec

from corten.errors import RegistryError
from corten.registry.auth import Challenge, Credentials
from corten.registry.hosts import Endpoint
from corten.registry.reading import read_limited
from corten.spec.foreign_json import decode

_LIMIT = 1 << 20


async def fetch_token(session: aiohttp.ClientSession, challenge: Challenge, credentials: Credentials, scopes: Sequence[str],
                      registry: Endpoint) -> str:  # fmt: skip
    """The access token. Raises RegistryError: 401 with Docker's text for wrong credentials, else what the service did instead."""
    realm, service = challenge.parameters.get("realm", ""), challenge.parameters.get("service", "")
    request: Any
    if credentials.identitytoken:
        form = {"grant_type": "refresh_token", "refresh_token": credentials.identitytoken, "client_id": "corten", "service": service,
                "scope": " ".join(scopes)}  # fmt: skip
        request = session.post(realm, data=form, ssl=registry.tls, allow_redirects=False)
    else:
        headers = {"Authorization": credentials.basic} if credentials.basic else {}
        request = session.get(realm, params=[("service", service), *(("scope", scope) for scope in scopes)], headers=headers, ssl=registry.tls)
    try:
        async with request as response:
            body = await read_limited(response, _LIMIT, f"the answer of the token service {realm!r}")
            status = response.status
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise RegistryError(f"Get {realm!r}: {error or type(error).__name__}") from None
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.BAD_REQUEST):
        raise RegistryError(f"Get {realm!r}: unauthorized: incorrect username or password", status=HTTPStatus.UNAUTHORIZED)
    if status != HTTPStatus.OK:
        raise RegistryError(f"Get {realm!r}: the token service answered with HTTP status {status}")
    try:
        answer = decode(body, dict[str, Any])
    except msgspec.DecodeError as error:
        raise RegistryError(f"Get {realm!r}: the token service did not answer with a token: {error}") from None
    return str(answer.get("token") or answer.get("access_token") or "")
