"""HTTP in front of the routes: versions, errors as Docker shapes them, and the listeners.

Must not know any endpoint. Source: Docker Engine 28.5 (moby api/server: version middleware, httputils errors).
"""

from __future__ import annotations

import asyncio
import errno
import grp
import logging
import os
import posixpath
import re
import ssl
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import unquote

import msgspec
from aiohttp import web

from corten.api.call import Call
from corten.api.quiet import Quiet
from corten.api.route import Route
from corten.api.tls import TlsFront
from corten.api.versions import Version, differences
from corten.engine.system import API_VERSION, MIN_API_VERSION, SERVER_VERSION
from corten.errors import CortenError, Invalid, PageNotFound, VersionTooNew, VersionTooOld
from corten.spec.build_extras import LONGEST

_VERSIONED = re.compile(r"/v([0-9.]+)(/.*)")
_log = logging.getLogger("corten.api")
_BASE_HEADERS = {
    "Api-Version": API_VERSION, "Docker-Experimental": "false", "Ostype": "linux", "Server": f"Docker/{SERVER_VERSION} (linux)",
}  # fmt: skip


def _parse_version(text: str) -> Version:
    """`1` is 1.0, as Docker counts; what is beyond a minor number is left out."""
    major, _, rest = text.partition(".")
    return int(major[:9] or 0), int(rest.partition(".")[0][:9] or 0)


_NEWEST, _OLDEST = _parse_version(API_VERSION), _parse_version(MIN_API_VERSION)


def _unexpected(error: Exception) -> str:
    """A disk that takes nothing is the machine's trouble, and said to be; anything else is a fault of ours."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return f"{error.filename or 'write'}: {os.strerror(error.errno).lower()}"
    return "internal error: the engine's log has the details; please report it"


class Server:
    """`handle` answers one request; `listen` opens the sockets."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_segment: dict[str, list[tuple[Route, re.Pattern[str]]]] = defaultdict(list)
        for route in routes:
            self._by_segment[route.path.split("/")[1]].append((route, re.compile(route.pattern)))
        self._server = web.Server(self.handle, access_log=None, keepalive_timeout=3600.0, max_field_size=LONGEST)
        self._listeners: list[asyncio.Server | TlsFront] = []
        self._socket_paths: list[str] = []
        self._quiet = Quiet()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if request.method == "OPTIONS":
                response: web.StreamResponse = web.Response()
            else:
                call, route = self._match(request)
                response = await route.handler(call)
                call.finish(response)
        except CortenError as error:
            response = error_response(error)
        except web.HTTPMovedPermanently as elsewhere:
            response = web.Response(status=elsewhere.status, headers={"Location": str(elsewhere.location)})
        except ConnectionError:
            return web.Response()  # the client has gone: there is nobody to answer
        except Exception as error:
            _log.exception("%s %s", request.method, request.path)
            response = error_response(CortenError(_unexpected(error)))
        finally:
            self._quiet.asked()
        if not response.prepared:
            response.headers.update({key: value for key, value in _BASE_HEADERS.items() if key not in response.headers})
        return response

    def _match(self, request: web.BaseRequest) -> tuple[Call, Route]:
        path, version = request.rel_url.raw_path, _NEWEST
        versioned = _VERSIONED.fullmatch(path)
        if versioned:
            version, path = _parse_version(versioned[1]), versioned[2]
            if version > _NEWEST:
                raise VersionTooNew(version=versioned[1], maximum=API_VERSION)
            if version < _OLDEST:
                raise VersionTooOld(version=versioned[1], minimum=MIN_API_VERSION)
        path = unquote(path)
        if "//" in path or "/." in path:
            clean = posixpath.normpath("/" + path.lstrip("/"))
            if clean != path:
                raise web.HTTPMovedPermanently(clean)
        for route, pattern in self._by_segment.get(path.split("/")[1] if "/" in path else "", ()):
            if request.method in route.methods and (found := pattern.fullmatch(path)):
                return Call(request, version, found.groupdict(), differences(route.key, version)), route
        raise PageNotFound

    async def listen(self, hosts: list[str], group: str, tls: ssl.SSLContext | None) -> None:
        """Open every `unix://` and `tcp://` address. Raises Invalid for anything else."""
        loop = asyncio.get_running_loop()
        for host in hosts:
            scheme, _, address = host.partition("://")
            if scheme == "unix":
                listener = await self._listen_unix(loop, address, group)
            elif scheme == "tcp":
                name, _, port = address.rpartition(":")
                if not port.isdigit():
                    raise Invalid(f"invalid host {host!r}: want tcp://ADDRESS:PORT")
                bound = (name.strip("[]") or "0.0.0.0", int(port))
                if tls:
                    self._listeners.append(TlsFront(bound, tls, self._server))
                    continue
                listener = await loop.create_server(self._server, *bound)
            else:
                raise Invalid(f"invalid host {host!r}: want unix://PATH or tcp://ADDRESS:PORT")
            self._listeners.append(listener)

    async def _listen_unix(self, loop: asyncio.AbstractEventLoop, path: str, group: str) -> asyncio.Server:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with suppress(FileNotFoundError):
            os.unlink(path)
        mask = os.umask(0o117)  # 0660 from its first moment
        try:
            listener = await loop.create_unix_server(self._server, path, backlog=512)
        finally:
            os.umask(mask)
        try:
            os.chown(path, -1, grp.getgrnam(group).gr_gid if not group.isdigit() else int(group))
        except KeyError:
            _log.info("there is no group %r: the socket is root's alone", group)
        self._socket_paths.append(path)
        return listener

    async def close(self) -> None:
        for listener in self._listeners:
            listener.close()
        for path in self._socket_paths:
            with suppress(FileNotFoundError):
                os.unlink(path)
        await self._server.shutdown(1.0)


def error_response(error: CortenError) -> web.Response:
    """The status and text of an error; 304 has no body."""
    status = error.http_status
    if status == 304:
        return web.Response(status=status)
    if isinstance(error, VersionTooOld):  # a client that old may not know JSON errors
        return web.Response(status=status, text=error.message + "\n")
    return web.Response(status=status, body=msgspec.json.encode({"message": error.message}) + b"\n", content_type="application/json")
