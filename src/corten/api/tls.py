"""TLS in front of the engine: each connection is decrypted in a thread of its own and goes on as a plain socket.

Why not asyncio's TLS: it closes a connection when the client has finished sending, and a client of attach or exec wants the
output that follows. With plain sockets behind it, a stream is handed over as any other (streams.py). Such a connection
ends with this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
import ssl
import threading
from collections.abc import Callable, Sequence

_CHUNK = 1 << 16
_HANDSHAKE_SECONDS = 10.0
_log = logging.getLogger("corten.api")


class TlsFront:
    """Listens on one address; `accept` is given the plain end of every connection, in the event loop."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, protocol_factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self._context, self._factory = context, protocol_factory
        self._loop = asyncio.get_running_loop()
        self._listener = socket.create_server(address, backlog=512)
        threading.Thread(target=self._serve, name="tls-accept", daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._connection, args=(connection,), name="tls", daemon=True).start()

    def _connection(self, connection: socket.socket) -> None:
        connection.settimeout(_HANDSHAKE_SECONDS)
        try:
            secure = self._context.wrap_socket(connection, server_side=True)
        except OSError as error:  # a stranger without certificate, or no TLS at all
            _log.info("TLS handshake refused: %s", error)
            connection.close()
            return
        ours, theirs = socket.socketpair()
        accepted = asyncio.run_coroutine_threadsafe(self._loop.connect_accepted_socket(self._factory, theirs), self._loop)
        with secure, ours:
            try:
                accepted.result()
                relay(secure, ours)
            except OSError as error:
                _log.debug("TLS connection ended: %s", error)


def relay(secure: ssl.SSLSocket, plain: socket.socket) -> None:
    """Copy both ways until both have ended; one side's end is passed on, and the other direction goes on."""
    secure.setblocking(False)
    plain.setblocking(False)
    inward, outward = bytearray(), bytearray()
    secure_open = plain_open = True
    while plain_open or outward:
        reading = [sock for sock, wanted in ((secure, secure_open and len(inward) < _CHUNK), (plain, plain_open and len(outward) < _CHUNK)) if wanted]
        writing = [sock for sock, wanted in ((plain, inward), (secure, outward)) if wanted]
        if not (secure in reading and secure.pending()):
            _wait(reading, writing)
        if secure in reading:
            data = _receive(secure)
            if data == b"":
                secure_open = False
                if not inward:
                    plain.shutdown(socket.SHUT_WR)
            inward += data or b""
        if plain in reading:
            data = _receive(plain)
            plain_open = data != b""
            outward += data or b""
        if inward:
            del inward[: _send(plain, inward)]
            if not inward and not secure_open:
                plain.shutdown(socket.SHUT_WR)
        if outward:
            del outward[: _send(secure, outward)]
    with contextlib.suppress(OSError):
        secure.unwrap()  # says goodbye; whether the other side answers is its own affair


def _wait(reading: Sequence[socket.socket], writing: Sequence[socket.socket]) -> None:
    """By poll(2): select(2) knows no descriptor above 1023, and an engine with many containers has more."""
    poller = select.poll()
    for sock in {*reading, *writing}:
        poller.register(sock, (select.POLLIN if sock in reading else 0) | (select.POLLOUT if sock in writing else 0))
    poller.poll()


def _receive(sock: socket.socket) -> bytes | None:
    """None where there is nothing yet; empty at the end."""
    try:
        return sock.recv(_CHUNK)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return None
    except ssl.SSLEOFError:
        return b""  # gone without a farewell


def _send(sock: socket.socket, data: bytearray) -> int:
    try:
        return sock.send(data)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return 0
