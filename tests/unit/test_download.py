"""Files by their address: who sees the credentials of an address, and what is refused before the disk is full."""

from __future__ import annotations

import asyncio
import http.server
import threading
from contextlib import contextmanager

import pytest

from corten.builder import remote
from corten.errors import RegistryError
from corten.registry.download import download


@contextmanager
def server(answer):
    """`answer(handler)` is called for every GET; the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def log_message(self, *_):
            return

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


async def read(url: str, authorization: str) -> bytes:
    async with download(url, authorization) as found:
        return b"".join([data async for data in found.pieces])


def sends(data: bytes, length: int | None = None):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data) if length is None else length))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


@pytest.mark.parametrize("user, header", [("user:secret@", ""), ("", "Basic dXNlcjpzZWNyZXQ=")])
def test_credentials_stay_with_the_origin_that_they_are_for(user, header):
    seen: dict[str, str | None] = {}

    def second(handler):
        seen["second"] = handler.headers.get("Authorization")
        sends(b"data")(handler)

    with server(second) as other:

        def first(handler):
            seen["first"] = handler.headers.get("Authorization")
            handler.send_response(302)
            handler.send_header("Location", f"http://{other}/x")
            handler.end_headers()

        with server(first) as address:
            assert asyncio.run(read(f"http://{user}{address}/x", header)) == b"data"
    assert seen == {"first": "Basic dXNlcjpzZWNyZXQ=", "second": None}


def test_no_more_than_there_is_room_for(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "room_in", lambda _folder: 1000)
    with server(sends(b"x", 10_000)) as address, pytest.raises(RegistryError, match="10000 bytes, and there is room for 1000"):
        asyncio.run(remote.fetch(f"http://{address}/x", str(tmp_path)))

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(bytes(4000))

    with server(endless) as address, pytest.raises(RegistryError, match="room for 1000"):
        asyncio.run(remote.fetch(f"http://{address}/x", str(tmp_path)))
