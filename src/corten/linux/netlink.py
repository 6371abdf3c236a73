"""The netlink codec: messages, attributes, and sending a batch of requests in one go. No families here.

Owns framing and acknowledgements only. Sources: netlink(7), include/uapi/linux/netlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from corten.linux.syscalls import attach_socket_filter

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x01, 0x04, 0x300
NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x200, 0x400, 0x800
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED = 0x8000
_SO_SNDBUFFORCE = 32
_USUAL_ROOM = 1 << 16  # bytes that every send buffer has
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True)
class Request:
    """`body` is the family's header and its attributes; `what` names the operand for errors. An error is told also of one that asks for no
    acknowledgement, as long as another in its batch does.
    """

    type: int
    flags: int
    body: bytes
    what: str = ""
    acknowledged: bool = True
    ignore: tuple[int, ...] = ()  # errno values that are as good as success (EEXIST for an idempotent add)


def attribute(kind: int, data: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(data)
    return _ATTRIBUTE.pack(length, kind) + data + bytes(-length % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def be32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value))


def parse_attributes(data: bytes) -> dict[int, bytes]:
    """Kind (without flags) -> payload. A repeated kind keeps the last."""
    return dict(attributes(data))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind without flags, payload) of each."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[offset + _ATTRIBUTE.size : offset + length]
        offset += length + 3 & ~3


class Netlink:
    """One socket in the network namespace of whoever made it. Synchronous; a batch is one send."""

    def __init__(self, protocol: int, groups: int = 0) -> None:
        """`groups`: a mask of multicast groups to listen to (then read `notifications`)."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind((0, groups))
        self._sequence = 0
        self._room = _USUAL_ROOM

    @property
    def port(self) -> int:
        """What the kernel knows this socket by: the sender in notifications."""
        return int(self._socket.getsockname()[0])

    def fileno(self) -> int:
        return self._socket.fileno()

    def let_through(self, program: bytes) -> None:
        """Of notifications, only what a program of netlink_filters.py accepts is received from now on."""
        attach_socket_filter(self._socket.fileno(), program)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pack(self, request: Request, flags: int) -> bytes:
        self._sequence += 1
        return _HEADER.pack(_HEADER.size + len(request.body), request.type, flags, self._sequence, 0) + request.body + bytes(-len(request.body) % 4)

    def execute(self, requests: list[Request]) -> None:
        """Send all, wait for every acknowledgement that is asked for, raise OSError for the first that failed."""
        if not requests:
            return
        sent: dict[int, Request] = {}
        packet = b""
        for request in requests:
            packet += self._pack(request, request.flags | NLM_F_REQUEST | (NLM_F_ACK if request.acknowledged else 0))
            sent[self._sequence] = request
        self._send(packet)
        waiting = {sequence for sequence, request in sent.items() if request.acknowledged}
        failed: OSError | None = None
        while waiting:
            for kind, sequence, body in self._receive():
                if kind != NLMSG_ERROR or sequence not in sent:
                    continue
                waiting.discard(sequence)
                number, request = -struct.unpack_from("=i", body)[0], sent[sequence]
                if number and number not in request.ignore and failed is None:
                    failed = OSError(number, os.strerror(number), request.what)
                    if request.type >> 8 or not request.acknowledged:  # a netfilter batch is one transaction: nothing else will be answered
                        waiting.clear()
                        break
        if failed:
            raise failed

    def _send(self, packet: bytes) -> None:
        if len(packet) > self._room:  # a message has to fit into the buffer whole
            self._room = len(packet)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, self._room)  # the kernel doubles it
        self._socket.send(packet)

    def dump(self, request: Request) -> Iterator[tuple[int, bytes]]:
        """Every (type, body) of a dump."""
        self._socket.send(self._pack(request, request.flags | NLM_F_REQUEST | NLM_F_DUMP))
        while True:
            for kind, _, body in self._receive():
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    raise OSError(number, os.strerror(number), request.what)
                yield kind, body

    def notifications(self) -> list[tuple[int, int, bytes]]:
        """(type, sender's port, body) of everything that waits. Raises OSError (ENOBUFS) if some was lost."""
        found: list[tuple[int, int, bytes]] = []
        while True:
            try:
                data = self._socket.recv(1 << 18, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, _, _, sender = _HEADER.unpack_from(data, offset)
                found.append((kind, sender, data[offset + _HEADER.size : offset + length]))
                offset += length + 3 & ~3

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        data = self._socket.recv(1 << 18)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
            yield kind, sequence, data[offset + _HEADER.size : offset + length]
            offset += length + 3 & ~3
