"""Reading a response's body into memory, and no more of it than it may have."""

from __future__ import annotations

import aiohttp

from corten.errors import ArchiveRefused
from corten.registry.auth import first_reason

_REFUSAL_LIMIT = 4096


async def read_limited(response: aiohttp.ClientResponse, limit: int, what: str) -> bytes:
    """Raises ArchiveRefused for a body of more than `limit` bytes."""
    data = bytearray()
    while piece := await response.content.read(limit + 1 - len(data)):
        data += piece
        if len(data) > limit:
            raise ArchiveRefused(f"{what} is larger than {limit >> 20} MiB")
    return bytes(data)


async def reason_of(response: aiohttp.ClientResponse) -> str:
    """Why a registry refuses, in its own words, if it has any (distribution-spec "Error Codes")."""
    return first_reason(await response.content.read(_REFUSAL_LIMIT))
