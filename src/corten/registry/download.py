"""One file by its address, for `import URL` and builds. No registry's protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp

from corten.errors import Invalid, RegistryError
from corten.registry.client import connection_reason

_CHUNK = 1 << 18
_TEXT_LIMIT = 4096
_SETTLED = 60  # seconds
_KNOWN_STATUSES = (400, 401, 403, 404)


@dataclass(frozen=True)
class Validators:
    """What a server says by which it can be asked again: headers' values, empty where it has not. Source: RFC 9110, 8.8."""

    etag: str = ""
    last_modified: str = ""

    def __bool__(self) -> bool:
        return bool(self.etag or self.last_modified)

    @property
    def headers(self) -> dict[str, str]:
        """For the request. An ETag says more, and is asked alone."""
        if self.etag:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.last_modified} if self.last_modified else {}


NO_VALIDATORS = Validators()


@dataclass(frozen=True)
class Download:
    """`total` and `modified` (seconds since the epoch) are 0 where the server does not say. `pieces` may be read once.

    `unchanged`: there are none, because it is still what the request's validators say. `validators`: for the next time, if it may be kept.
    """

    total: int
    pieces: AsyncIterator[bytes]
    modified: int = 0
    unchanged: bool = False
    validators: Validators = NO_VALIDATORS


@asynccontextmanager
async def download(url: str, authorization: str = "", known: Validators = NO_VALIDATORS) -> AsyncIterator[Download]:
    """`authorization` goes to the address's own host only; `known`: of what there is already. Raises Invalid for what is no address, RegistryError with Docker's text for a refusal or no answer."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False, trust_env=True) as session:
        try:
            async with session.get(url, headers={**known.headers, **({"Authorization": authorization} if authorization else {})}) as response:
                if response.status >= 400:
                    text = (await response.content.read(_TEXT_LIMIT)).decode("utf-8", "replace").strip()
                    status = response.status if response.status in _KNOWN_STATUSES else 500
                    raise RegistryError(f"failed to GET {url} with status {response.status} {response.reason}: {text}", status=status)
                unchanged = bool(known) and response.status == HTTPStatus.NOT_MODIFIED
                yield Download(response.content_length or 0, response.content.iter_chunked(_CHUNK), _modified(response), unchanged, _validators(response))
        except aiohttp.NonHttpUrlClientError:
            raise Invalid(f'Get "{url}": unsupported protocol scheme "{urlsplit(url).scheme}"') from None
        except aiohttp.InvalidURL:
            raise Invalid(f'Get "{url.rstrip("/")}": http: no Host in request URL') from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RegistryError(f'Get "{url}": {connection_reason(error)}') from None


def _modified(response: aiohttp.ClientResponse) -> int:
    return _seconds(response, "Last-Modified")


def _seconds(response: aiohttp.ClientResponse, header: str) -> int:
    """Since the epoch; 0 where it does not say."""
    try:
        return max(0, int(parsedate_to_datetime(response.headers.get(header, "")).timestamp()))
    except ValueError:
        return 0


def _validators(response: aiohttp.ClientResponse) -> Validators:
    """A time says something only if nothing can have changed within its second since (RFC 9110, 8.8.2.2)."""
    if "no-store" in response.headers.get("Cache-Control", "").lower():
        return NO_VALIDATORS
    settled = 0 < _modified(response) <= _seconds(response, "Date") - _SETTLED
    return Validators(response.headers.get("ETag", ""), response.headers.get("Last-Modified", "") if settled else "")
