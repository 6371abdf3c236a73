"""One file by its address, for `import URL` and builds. No registry's protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import aiohttp

from corten.errors import Invalid, RegistryError

_CHUNK = 1 << 18
_TEXT_LIMIT = 4096
_KNOWN_STATUSES = (400, 401, 403, 404)


@dataclass(frozen=True)
class Download:
    """`total` and `modified` (seconds since the epoch) are 0 where the server does not say. `pieces` may be read once."""

    total: int
    pieces: AsyncIterator[bytes]
    modified: int = 0


@asynccontextmanager
async def download(url: str, authorization: str = "") -> AsyncIterator[Download]:
    """`authorization` goes to the address's own host only. Raises Invalid for what is no address, RegistryError with Docker's text for a refusal or no answer."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False, trust_env=True) as session:
        try:
            async with session.get(url, headers={"Authorization": authorization} if authorization else None) as response:
                if response.status >= 400:
                    text = (await response.content.read(_TEXT_LIMIT)).decode("utf-8", "replace").strip()
                    status = response.status if response.status in _KNOWN_STATUSES else 500
                    raise RegistryError(f"failed to GET {url} with status {response.status} {response.reason}: {text}", status=status)
                yield Download(response.content_length or 0, response.content.iter_chunked(_CHUNK), _modified(response))
        except aiohttp.InvalidURL:
            raise Invalid(f'Get "{url}": unsupported protocol scheme or no Host in request URL') from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RegistryError(f'Get "{url}": {error or "timed out"}') from None


def _modified(response: aiohttp.ClientResponse) -> int:
    try:
        return max(0, int(parsedate_to_datetime(response.headers.get("Last-Modified", "")).timestamp()))
    except ValueError:
        return 0
