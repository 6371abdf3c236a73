"""One API request as the handlers see it: its version, path parameters, query and body, typed and checked.

Must not hold any endpoint's logic. Source: Docker Engine API 1.51 conventions (booleans, filters, errors).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any, TypeVar
from urllib.parse import unquote_plus

import msgspec
from aiohttp import web

from corten.api.versions import Differences, Version, apply
from corten.errors import Invalid, UnsupportedOption
from corten.spec.bodies import parse_body
from corten.spec.filters import Filters, parse_any_filters, parse_filters
from corten.spec.timestamps import parse_moment

T = TypeVar("T")
_FALSE = frozenset({"", "0", "no", "false", "none"})
_BODY_LIMIT = 16 << 20
_BAD_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2}).{0,2}")
_NUMBER_LIMIT = 1 << 63


def parse_query(text: str) -> dict[str, list[str]]:
    """Raises Invalid with Go's text (net/url ParseQuery): a bad escape or a semicolon is no value."""
    found: dict[str, list[str]] = {}
    for part in text.split("&") if text else ():
        if ";" in part:
            raise Invalid("invalid semicolon separator in query")
        bad = _BAD_ESCAPE.search(part)
        if bad:
            raise Invalid(f'invalid URL escape "{bad[0]}"')
        key, _, value = part.partition("=")
        found.setdefault(unquote_plus(key), []).append(unquote_plus(value))
    return found


class Call:
    def __init__(self, request: web.BaseRequest, version: Version, parameters: Mapping[str, str], older: Differences) -> None:
        self.request, self.version, self.parameters, self._older = request, version, parameters, older

    def has(self, since: Version) -> bool:
        """Whether this call's version is new enough for a behaviour of versions.Since."""
        return self.version >= since

    @cached_property
    def _query(self) -> dict[str, list[str]]:
        query = parse_query(self.request.rel_url.raw_query_string)
        return {key: values for key, values in query.items() if key not in self._older.query} if self._older.query else query

    def values(self, key: str) -> list[str]:
        """Of a parameter that may be repeated."""
        return self._query.get(key, [])

    def given(self, key: str) -> bool:
        return key in self._query

    def text(self, key: str) -> str:
        values = self._query.get(key)
        return values[0] if values else ""

    def flag(self, key: str, *, default: bool = False) -> bool:
        return self.text(key).strip().lower() not in _FALSE if key in self._query else default

    def refuse(self, *keys: str) -> None:
        """Raise UnsupportedOption for a query parameter that is set and not there yet."""
        for key in keys:
            if self.flag(key):
                raise UnsupportedOption(key=f"the query parameter {key!r}")

    def number(self, key: str) -> int | None:
        """None if it is not given. Raises Invalid with Go's text."""
        value = self.text(key)
        if value == "":
            return None
        if not re.fullmatch(r"[+-]?[0-9]+", value):
            raise BadNumber(value=value, why="invalid syntax")
        if len(value) > 20 or not -_NUMBER_LIMIT <= int(value) < _NUMBER_LIMIT:
            raise BadNumber(value=value, why="value out of range")
        return int(value)

    def moment(self, key: str, *, now: int) -> int | None:
        """Nanoseconds since the epoch; None if it is not given. Raises Invalid with Go's text."""
        value = self.text(key)
        try:
            return parse_moment(value, now=now) if value else None
        except Invalid:
            raise Invalid(f'strconv.ParseInt: parsing "{value}": invalid syntax') from None

    def filters(self, *allowed: str) -> Filters:
        return parse_filters(self.text("filters"), frozenset(allowed))

    def any_filters(self) -> Filters:
        """Of an endpoint that passes over keys that it does not know."""
        return parse_any_filters(self.text("filters"))

    async def raw_body(self, limit: int = _BODY_LIMIT) -> bytes:
        if self.request.content_length and self.request.content_length > limit:
            raise Invalid(f"the request body is larger than {limit >> 20} MiB")
        data = bytearray()
        async for piece in self.request.content.iter_any():
            data += piece
            if len(data) > limit:
                raise Invalid(f"the request body is larger than {limit >> 20} MiB")
        return bytes(data)

    async def body(self, kind: type[T], *, empty: T | None = None) -> T:
        """Raises Invalid for a body that is not JSON or not of its type. `empty` is what no body at all means, if it means anything."""
        content_type = self.request.headers.get("Content-Type", "")
        data = await self.raw_body()
        if data and content_type.partition(";")[0].strip().lower() != "application/json":
            raise Invalid(f"unsupported Content-Type header ({content_type}): must be 'application/json'")
        if empty is not None and not data.strip():
            return empty
        return parse_body(data, kind, partial(apply, self._older.body) if self._older.body else None)

    def finish(self, response: web.StreamResponse) -> None:
        """Encode an answer, as this call's version has it."""
        if isinstance(response, JsonResponse):
            response.encode(self._older)

    @property
    def gone(self) -> bool:
        """Whether the client has closed the connection."""
        return self.request.transport is None or self.request.transport.is_closing()


class BadNumber(Invalid):
    """Go's text; Docker sends it with 500, which would say that the engine is at fault."""

    template = 'strconv.Atoi: parsing "{value}": {why}'


class JsonResponse(web.Response):
    """An answer that is encoded at the border, once it is known what the call's version has differently."""

    def __init__(self, value: Any, status: int) -> None:
        super().__init__(status=status, content_type="application/json")
        self._value = value

    def encode(self, older: Differences) -> None:
        value = self._value
        if older.answer:
            value = msgspec.to_builtins(value)
            apply(older.answer, value)
        self.body = _encode(value) + b"\n"


_encode = msgspec.json.Encoder().encode


def json_response(value: Any, status: int = 200) -> web.Response:
    return JsonResponse(value, status)


def empty(status: int = 204) -> web.Response:
    return web.Response(status=status)
