"""Taking a connection out of HTTP's hands (attach, exec), and the frames of multiplexed output.

The connection's socket itself is handed to the monitor, so a stream outlives this process (but a TLS one: tls.py). Source: Docker Engine API "Attach to a container", hijacking.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from contextlib import suppress

from aiohttp import web

from corten.api.versions import Since, Version
from corten.errors import Invalid
from corten.linux.descriptors import unread

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"
_NUMBERS = {"stdout": 1, "stderr": 2}
_HEAD_PATIENCE, _HEAD_PAUSE, _LONGEST_PAUSE = 1.0, 0.0002, 0.005  # seconds
_DEFAULT_KEYS = b"\x10\x11"  # ctrl-p ctrl-q


def frame(stream: str, data: bytes) -> bytes:
    return struct.pack(">BxxxI", _NUMBERS[stream], len(data)) + data


def parse_detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q`, `a,ctrl-@`; empty means the default. Raises Invalid."""
    if not text:
        return _DEFAULT_KEYS
    keys = b""
    for part in text.split(","):
        letter = part.removeprefix("ctrl-")
        if part.startswith("ctrl-") and len(letter) == 1 and "@" <= letter.upper() <= "_":
            keys += bytes([ord(letter.upper()) - 64])
        elif len(part) == 1:
            keys += part.encode()
        else:
            raise Invalid(f"invalid detach keys ({text}) provided")
    return keys


class Hijacked:
    """A connection after its response head. `fd` belongs to whoever calls; `pending` is what the client sent already."""

    def __init__(self, fd: int, pending: bytes) -> None:
        self.fd, self.pending = fd, pending

    def close(self) -> None:
        os.close(self.fd)

    async def say(self, data: bytes) -> None:
        """Last words on a connection that nobody else has taken."""
        with suppress(OSError), socket.socket(fileno=os.dup(self.fd)) as sock:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(sock, data)


async def hijack(request: web.BaseRequest, *, framed: bool, version: Version) -> Hijacked:
    """Answer 101 (or 200 without Upgrade) and take the connection. The handler must end with `over()`."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    upgraded = request.headers.get("Upgrade", "").lower() == "tcp"
    content_type = MULTIPLEXED_STREAM if upgraded and framed and version >= Since.MULTIPLEXED_TYPE else RAW_STREAM
    head = (
        f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        if upgraded
        else f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n"
    )
    transport.pause_reading()
    transport.write(head.encode())
    while transport.get_write_buffer_size():
        await asyncio.sleep(0.001)
    await _head_read(transport.get_extra_info("socket"))
    # aiohttp keeps what follows an upgrade request here and has no public name for it.
    pending = bytes(request.protocol._message_tail)  # noqa: SLF001
    fd = os.dup(transport.get_extra_info("socket").fileno())
    transport.abort()  # closes this process's descriptor only: nothing is shut down
    return Hijacked(fd, pending)


async def _head_read(sock: socket.socket) -> None:
    """Wait until the client has taken the head, if that can be known (UNIX sockets), and for a second at most.

    docker-py reads the head through a buffer and what follows past it: output that came along with the head would be lost to it.
    """
    if sock.family != socket.AF_UNIX:
        return
    end, pause = time.monotonic() + _HEAD_PATIENCE, _HEAD_PAUSE
    while unread(sock.fileno()) and time.monotonic() < end:
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def over() -> web.Response:
    """What a handler returns when the connection is no longer HTTP's: it meets a closed transport and goes nowhere."""
    return web.Response()
