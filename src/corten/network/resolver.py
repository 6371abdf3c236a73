"""The name service of containers: its sockets inside their namespaces, and forwarding what is not about containers.

Owns no names: whoever makes it says what they mean (`Names`). The sockets outlive it (a monitor holds copies), so questions that are asked
while no engine is there wait in the socket until the next one answers.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from corten.network import dns

_BURST = 64  # datagrams of one container before the others have their turn
_IN_FLIGHT = 512  # questions of one container that are being forwarded
_PATIENCE, _IDLE = 2.5, 10.0  # seconds: for an upstream server, for a TCP client
_CACHE = 2048
_log = logging.getLogger("corten.network")
Address = IPv4Address | IPv6Address


class Names(Protocol):
    """What names mean to one container, now. `generation` changes whenever any answer may."""

    @property
    def generation(self) -> int: ...
    def addresses(self, container: str, name: str) -> Sequence[Address] | None: ...
    def name_of(self, container: str, address: Address) -> str | None: ...
    def upstream(self, container: str) -> Sequence[tuple[str, int]]: ...


@dataclass
class _Served:
    container: str
    datagram: socket.socket
    server: asyncio.Server | None = None
    in_flight: int = 0


class Resolver:
    def __init__(self, names: Names, upstream_socket: Callable[[str, int, int], socket.socket]) -> None:
        """`upstream_socket(container, family, kind)`: an unconnected socket from where the container's questions are forwarded."""
        self._names, self._upstream_socket = names, upstream_socket
        self._served: dict[str, _Served] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._cache: dict[tuple[str, bytes], bytes] = {}
        self._generation = -1

    def serves(self, container: str) -> bool:
        return container in self._served

    async def serve(self, container: str, datagram: socket.socket, stream: socket.socket) -> None:
        """Answer at these bound sockets from here on; both are ours."""
        self.forget(container)
        datagram.setblocking(False)
        served = self._served[container] = _Served(container, datagram)
        asyncio.get_running_loop().add_reader(datagram.fileno(), self._readable, served)
        served.server = await asyncio.start_server(lambda reader, writer: self._converse(served, reader, writer), sock=stream)

    def forget(self, container: str) -> None:
        """Idempotent."""
        served = self._served.pop(container, None)
        if served:
            asyncio.get_running_loop().remove_reader(served.datagram.fileno())
            served.datagram.close()
            if served.server:
                served.server.close()

    def close(self) -> None:
        for container in list(self._served):
            self.forget(container)

    # --- datagrams
    def _readable(self, served: _Served) -> None:
        for _ in range(_BURST):
            try:
                query, client = served.datagram.recvfrom(4096)
            except OSError:
                return
            reply = self._cached(served.container, query)
            if reply is not None:
                self._send(served, reply, client)
            else:
                self._answer_datagram(served, query, client)

    def _cached(self, container: str, query: bytes) -> bytes | None:
        """The same question as before has the same answer until something changes; its id is the client's."""
        if self._generation != self._names.generation:
            self._generation = self._names.generation
            self._cache.clear()
        found = self._cache.get((container, query[2:]))
        return query[:2] + found if found is not None else None

    def _answer_datagram(self, served: _Served, query: bytes, client: tuple[str, int]) -> None:
        try:
            parsed = dns.parse(query)
        except dns.Malformed:
            return
        reply = self._own_answer(served.container, parsed)
        limit = dns.datagram_limit(parsed)
        if reply is None:
            if served.in_flight >= _IN_FLIGHT:
                self._send(served, dns.failure(parsed), client)
                return
            served.in_flight += 1
            self._spawn(self._forward_datagram(served, query, parsed, client))
            return
        reply = dns.fit(reply, limit)
        if len(self._cache) < _CACHE and reply[6:8] in (b"\0\0", b"\0\1"):  # what has several addresses is shuffled each time
            self._cache[served.container, query[2:]] = reply[2:]
        self._send(served, reply, client)

    def _own_answer(self, container: str, query: dns.Query) -> bytes | None:
        return dns.answer(
            query, lambda name: self._names.addresses(container, name), lambda address: self._names.name_of(container, address)
        )

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    def _send(served: _Served, reply: bytes, client: tuple[str, int]) -> None:
        with suppress(OSError):  # the container has gone, or does not read
            served.datagram.sendto(reply, client)

    async def _forward_datagram(self, served: _Served, query: bytes, parsed: dns.Query, client: tuple[str, int]) -> None:
        try:
            reply = await self._ask_upstream(served.container, query)
        finally:
            served.in_flight -= 1
        if self._served.get(served.container) is served:
            self._send(served, reply or dns.failure(parsed), client)

    async def _ask_upstream(self, container: str, query: bytes) -> bytes | None:
        """The first server's answer that comes; None if there is none."""
        for server in self._names.upstream(container):
            try:
                return await asyncio.wait_for(self._ask_server(container, server, query), _PATIENCE)
            except (OSError, TimeoutError) as error:
                _log.debug("name server %s: %s", server[0], error)
        return None

    async def _ask_server(self, container: str, server: tuple[str, int], query: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        asking = self._upstream_socket(container, _family(server), socket.SOCK_DGRAM)
        with asking:
            asking.setblocking(False)
            asking.connect(server)
            await loop.sock_sendall(asking, query)
            while True:
                reply = await loop.sock_recv(asking, 65535)
                if len(reply) >= 12 and reply[:2] == query[:2]:
                    return reply

    # --- TCP
    async def _converse(self, served: _Served, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's questions, each with its length before it (RFC 1035, 4.2.2)."""
        try:
            while True:
                length = struct.unpack(">H", await asyncio.wait_for(reader.readexactly(2), _IDLE))[0]
                query = await asyncio.wait_for(reader.readexactly(length), _IDLE)
                parsed = dns.parse(query)
                reply = self._own_answer(served.container, parsed) or await self._forward_stream(served.container, query) or dns.failure(parsed)
                writer.write(struct.pack(">H", len(reply)) + reply)
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, OSError, dns.Malformed) as error:
            _log.debug("a client of the name service: %s", error)
        finally:
            writer.close()

    async def _forward_stream(self, container: str, query: bytes) -> bytes | None:
        for server in self._names.upstream(container):
            asking = self._upstream_socket(container, _family(server), socket.SOCK_STREAM)
            try:
                return await asyncio.wait_for(_ask_by_tcp(asking, server, query), _PATIENCE)
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                _log.debug("name server %s: %s", server[0], error)
            finally:
                asking.close()
        return None


def _family(server: tuple[str, int]) -> int:
    return socket.AF_INET6 if ":" in server[0] else socket.AF_INET


async def _ask_by_tcp(asking: socket.socket, server: tuple[str, int], query: bytes) -> bytes:
    asking.setblocking(False)
    await asyncio.get_running_loop().sock_connect(asking, server)
    reader, writer = await asyncio.open_connection(sock=asking)
    try:
        writer.write(struct.pack(">H", len(query)) + query)
        length = struct.unpack(">H", await reader.readexactly(2))[0]
        return await reader.readexactly(length)
    finally:
        writer.close()
