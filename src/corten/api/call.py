"""One API request as the handlers see it: its version, path parameters, query and body, typed and checked.

Must not hold any endpoint's logic. Source: Docker Engine API 1.51 conventions (booleans, filters, errors).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from corten.errors import CortenError, Invalid, UnsupportedOption
from corten.spec.engine import parse_body
from corten.spec.filters import Filters, parse_filters

T = TypeVar("T")
Version = tuple[int, int]
_FALSE = frozenset({"", "0", "no", "false", "none"})
_BODY_LIMIT = 16 << 20


class Call:
    def __init__(self, request: web.BaseRequest, version: Version, parameters: Mapping[str, str]) -> None:
        self.request, self.version, self.parameters = request, version, parameters

    def text(self, key: str) -> str:
        return self.request.query.get(key, "")

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = self.request.query.get(key)
        return default if value is None else value.lower() not in _FALSE

    def refuse(self, *keys: str) -> None:
        """Raise UnsupportedOption for a query parameter that is set and not there yet."""
        for key in keys:
            if self.request.query.get(key, "").lower() not in _FALSE:
                raise UnsupportedOption(key=f"the query parameter {key!r}")

    def number(self, key: str) -> int | None:
        """None if it is not given. Raises Invalid with Go's text."""
        value = self.request.query.get(key)
        if value is None or value == "":
            return None
        if not re.fullmatch(r"[+-]?\d+", value):
            raise BadNumber(value=value)
        return int(value)

    def filters(self, *allowed: str) -> Filters:
        return parse_filters(self.request.query.get("filters", ""), frozenset(allowed))

    async def raw_body(self) -> bytes:
        if self.request.content_length and self.request.content_length > _BODY_LIMIT:
            raise Invalid(f"the request body is larger than {_BODY_LIMIT >> 20} MiB")
        data = b""
        async for piece in self.request.content.iter_any():
            data += piece
            if len(data) > _BODY_LIMIT:
                raise Invalid(f"the request body is larger than {_BODY_LIMIT >> 20} MiB")
        return data

    async def body(self, kind: type[T], *, empty: T | None = None) -> T:
        """Raises Invalid for a body that is not JSON or not of its type. `empty` is what no body at all means, if it means anything."""
        content_type = self.request.headers.get("Content-Type", "")
        data = await self.raw_body()
        if data and content_type.partition(";")[0].strip().lower() != "application/json":
            raise Invalid(f"unsupported Content-Type header ({content_type}): must be 'application/json'")
        if empty is not None and not data.strip():
            return empty
        return parse_body(data, kind)

    @property
    def gone(self) -> bool:
        """Whether the client has closed the connection."""
        return self.request.transport is None or self.request.transport.is_closing()


class BadNumber(CortenError):
    """Docker answers 500 to a number that is none; the text is Go's."""

    template = 'strconv.Atoi: parsing "{value}": invalid syntax'


def json_response(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value) + b"\n", content_type="application/json")


def empty(status: int = 204) -> web.Response:
    return web.Response(status=status)
