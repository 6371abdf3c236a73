"""A bounded queue of messages for a destination elsewhere, sent through the reactor. Never blocks, never raises.

A destination that is away is tried again, with growing pauses. What does not fit into the queue is dropped and counted, and the driver says
how many once there is room. With `patient` (Docker's mode=blocking) a destination that takes messages, only slowly, is waited
for (`full`); one that takes nothing for STALL seconds is not.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from corten.runtime.reactor import HANGUP, READ, WRITE, Reactor

STALL = 5.0
_LINGER = 5.0  # how long what is queued may still be sent after the container's end
_SLOWEST_RETRY = 10.0


@dataclass(frozen=True)
class Peer:
    """`kind` is tcp, tls (`tcp+tls`), udp, unix, unixgram; addresses are tried in turn. `secure` wraps a connected socket in TLS."""

    kind: str
    addresses: tuple[tuple[str, int], ...]
    secure: Callable[[socket.socket], socket.socket] | None = None

    @property
    def datagrams(self) -> bool:
        return self.kind in ("udp", "unixgram")

    def socket_for(self, attempt: int) -> tuple[socket.socket, str | tuple[str, int]]:
        host, port = self.addresses[attempt % len(self.addresses)]
        kind = (socket.SOCK_DGRAM if self.datagrams else socket.SOCK_STREAM) | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        if self.kind in ("unix", "unixgram"):
            return socket.socket(socket.AF_UNIX, kind), host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.socket(family, kind), (host, port)


@dataclass(frozen=True)
class Patience:
    """Of one sender: bytes and messages that may wait, the first pause before a retry, and how many retries (0: no end)."""

    limit: int
    patient: bool
    messages: int = 1 << 20
    retry: float = 0.1
    retries: int = 0


class Sender:
    def __init__(self, reactor: Reactor, peer: Peer, patience: Patience, note: Callable[[int], bytes], on_room: Callable[[], None]) -> None:
        self._reactor, self._peer, self._patience, self._note, self._on_room = reactor, peer, patience, note, on_room
        self._queue: deque[bytes] = deque()
        self._size = self._lost = self._offset = self._failures = 0
        self._sock: socket.socket | None = None
        self._connected = self._securing = self._closing = self._waiting_for_room = False
        self._last_progress = time.monotonic()
        self._connect()

    def put(self, message: bytes) -> None:
        no_room = self._size + len(message) > self._patience.limit or len(self._queue) >= self._patience.messages
        if no_room and not self.full:  # one that is waited for gets the rest of what was read, too
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            sys.stderr.write(f"log destination {self._peer.addresses[0]}: {lost} messages dropped\n")
            self._add(self._note(lost))
        self._add(message)
        if self._connected and len(self._queue) == 1:
            self._flush()

    def _add(self, message: bytes) -> None:
        self._queue.append(message)
        self._size += len(message)

    @property
    def full(self) -> bool:
        """Whether to wait: it takes messages, and half the queue is theirs."""
        busy = self._size > self._patience.limit // 2 and self._connected and time.monotonic() - self._last_progress < STALL
        self._waiting_for_room = self._patience.patient and busy
        return self._waiting_for_room

    def close(self) -> None:
        """Send what is queued, for a while."""
        self._closing = True
        if not self._queue:
            self._shut()
        else:
            self._reactor.later(_LINGER, self._shut)

    def _shut(self) -> None:
        if self._sock:
            self._reactor.forget(self._sock.fileno())
            self._sock.close()
        self._sock, self._connected = None, False
        self._queue.clear()

    # --- the connection
    def _connect(self) -> None:
        if self._closing and not self._queue:
            return
        self._sock, address = self._peer.socket_for(self._failures)
        self._offset = 0
        try:
            self._sock.connect(address)
        except BlockingIOError:
            self._reactor.watch(self._sock.fileno(), WRITE, self._connecting)
        except OSError as error:
            self._failed(error)
        else:
            self._secure()

    def _connecting(self, _mask: int) -> None:
        if self._sock:
            code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._failed(OSError(code, os.strerror(code)))
            else:
                self._secure()

    def _secure(self) -> None:
        if self._peer.secure and self._sock:
            self._reactor.forget(self._sock.fileno())
            try:
                self._sock = self._peer.secure(self._sock)
            except OSError as error:
                self._failed(error)
                return
            self._securing = True
            self._reactor.watch(self._sock.fileno(), READ | WRITE, self._shake_hands)
        else:
            self._established()

    def _shake_hands(self, _mask: int) -> None:
        from ssl import SSLSocket, SSLWantReadError, SSLWantWriteError

        if not isinstance(self._sock, SSLSocket):
            return
        try:
            self._sock.do_handshake()
        except SSLWantReadError:
            self._reactor.watch(self._sock.fileno(), READ, self._shake_hands)
        except SSLWantWriteError:
            self._reactor.watch(self._sock.fileno(), WRITE, self._shake_hands)
        except OSError as error:
            self._failed(error)
        else:
            self._established()

    def _established(self) -> None:
        self._connected, self._failures = True, 0
        self._last_progress = time.monotonic()
        self._flush()

    def _failed(self, error: OSError) -> None:
        if self._sock:
            self._reactor.forget(self._sock.fileno())
            self._sock.close()
        self._sock, self._connected = None, False
        if self._closing:
            self._shut()
            return
        self._failures += 1
        if self._failures == 1:
            sys.stderr.write(f"log destination {self._peer.addresses[0]}: {error}\n")
            sys.stderr.flush()
        if self._patience.retries and self._failures > self._patience.retries:
            self._lost += len(self._queue)
            self._queue.clear()
            self._size = 0
        self._reactor.later(min(self._patience.retry * 1.5 ** (self._failures - 1), _SLOWEST_RETRY), self._connect)
        self._tell_of_room()

    # --- sending
    def _flush(self) -> None:
        while self._queue and self._sock:
            try:
                sent = self._send(self._queue[0])
            except (BlockingIOError, InterruptedError):
                self._watch()
                return
            except OSError as error:
                if self._peer.datagrams and self._peer.kind == "udp":
                    sent = len(self._queue[0])  # refused by a host that is not there (yet), or too long: a datagram is lost
                else:
                    self._failed(error)
                    return
            self._last_progress = time.monotonic()
            self._offset += sent
            if self._peer.datagrams or self._offset >= len(self._queue[0]):
                self._size -= len(self._queue.popleft())
                self._offset = 0
        if self._closing:
            self._shut()
        else:
            self._watch()
        self._tell_of_room()

    def _send(self, message: bytes) -> int:
        if self._sock is None:
            raise BlockingIOError
        if not self._peer.secure:
            return self._sock.send(memoryview(message)[self._offset :], socket.MSG_NOSIGNAL)
        from ssl import SSLWantReadError, SSLWantWriteError

        try:
            return self._sock.send(memoryview(message)[self._offset :])
        except (SSLWantReadError, SSLWantWriteError):
            raise BlockingIOError from None

    def _watch(self) -> None:
        if self._sock:
            mask = HANGUP | (WRITE if self._queue else 0) | (0 if self._peer.datagrams else READ)
            self._reactor.watch(self._sock.fileno(), mask, self._ready)

    def _ready(self, mask: int) -> None:
        if mask & READ and self._sock and not self._peer.datagrams:
            try:
                if not self._sock.recv(4096):
                    raise ConnectionResetError(104, "closed by the other side")
            except BlockingIOError:
                pass
            except OSError as error:
                if type(error).__name__ not in ("SSLWantReadError", "SSLWantWriteError"):
                    self._failed(error)
                    return
        if mask & HANGUP and self._peer.datagrams and self._sock:
            with suppress(OSError):
                self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._flush()

    def _tell_of_room(self) -> None:
        if self._waiting_for_room and not self.full:
            self._on_room()
