"""A bounded queue of messages for a destination elsewhere, sent through the reactor. Never blocks, never raises.

A destination that is away is tried again, with growing pauses. A message with a receipt is kept until the destination has sent that back,
and sent again where the connection breaks before. What does not fit into the queue is dropped and counted, and the driver says
how many once there is room. With `patient` (Docker's mode=blocking) a destination that takes messages, only slowly, is waited
for (`full`); one that takes nothing for STALL seconds is not.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from corten.runtime.reactor import HANGUP, READ, WRITE, Reactor

STALL = 5.0
_LINGER = 5.0  # how long what is queued may still be sent after the container's end
_SLOWEST_RETRY = 10.0
_HEARD = 256  # bytes of an answer that may be the beginning of a receipt


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
    """Of one sender: bytes and messages that may wait, the first pause before a retry, and how many retries (0: no end).

    A connection that takes nothing for `write_timeout` seconds, or is older than `renew` seconds, is made anew (0: never).
    """

    limit: int
    patient: bool
    messages: int = 1 << 20
    retry: float = 0.1
    retries: int = 0
    write_timeout: float = 0
    renew: float = 0


class Message(NamedTuple):
    """`receipt` is what the destination sends back when it has it; empty if it sends nothing."""

    data: bytes
    receipt: bytes = b""


class Sender:
    """`receipts` finds them in what the destination sends; `note` makes the message that says how many are lost."""

    def __init__(self, reactor: Reactor, peer: Peer, patience: Patience, note: Callable[[int], Message], on_room: Callable[[], None],
                 receipts: re.Pattern[bytes] | None = None) -> None:  # fmt: skip
        self._reactor, self._peer, self._patience, self._note, self._on_room = reactor, peer, patience, note, on_room
        self._receipts = receipts
        self._queue: deque[Message] = deque()
        self._unconfirmed: dict[bytes, Message] = {}  # receipt -> what has been sent
        self._heard = b""
        self._size = self._lost = self._offset = self._failures = self._turn = 0
        self._sock: socket.socket | None = None
        self._connected = self._securing = self._closing = self._waiting_for_room = False
        self._last_progress = self._since = time.monotonic()
        self._connect()

    def put(self, data: bytes, receipt: bytes = b"") -> None:
        waiting = len(self._queue) + len(self._unconfirmed)
        no_room = self._size + len(data) > self._patience.limit or waiting >= self._patience.messages
        if no_room and not self.full:  # one that is waited for gets the rest of what was read, too
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            sys.stderr.write(f"log destination {self._peer.addresses[0]}: {lost} messages dropped\n")
            self._add(self._note(lost))
        self._add(Message(data, receipt))
        if self._connected and len(self._queue) == 1:
            self._flush()

    def _add(self, message: Message) -> None:
        self._queue.append(message)
        self._size += len(message.data)

    @property
    def full(self) -> bool:
        """Whether to wait: it takes messages, and half the queue is theirs."""
        busy = self._size > self._patience.limit // 2 and self._connected and time.monotonic() - self._last_progress < STALL
        self._waiting_for_room = self._patience.patient and busy
        return self._waiting_for_room

    def close(self) -> None:
        """Send what is queued, for a while."""
        self._closing = True
        if not self._queue and not self._unconfirmed:
            self._shut()
        else:
            self._reactor.later(_LINGER, self._shut)

    def _shut(self) -> None:
        if self._sock:
            self._reactor.forget(self._sock.fileno())
            self._sock.close()
        self._sock, self._connected = None, False
        self._queue.clear()
        self._unconfirmed.clear()

    # --- the connection
    def _connect(self) -> None:
        if self._closing and not self._queue:
            return
        self._sock, address = self._peer.socket_for(self._turn + self._failures)
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
        self._last_progress = self._since = time.monotonic()
        self._flush()

    def _disconnect(self) -> None:
        """What is not confirmed is to be sent again."""
        if self._sock:
            self._reactor.forget(self._sock.fileno())
            self._sock.close()
        self._sock, self._connected, self._heard = None, False, b""
        self._queue.extendleft(reversed(self._unconfirmed.values()))
        self._unconfirmed.clear()

    def _failed(self, error: OSError) -> None:
        self._disconnect()
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
                sent = self._send(self._queue[0].data)
            except (BlockingIOError, InterruptedError):
                self._watch()
                self._limit_wait()
                return
            except OSError as error:
                if self._peer.datagrams and self._peer.kind == "udp":
                    sent = len(self._queue[0].data)  # refused by a host that is not there (yet), or too long: a datagram is lost
                else:
                    self._failed(error)
                    return
            self._last_progress = time.monotonic()
            self._offset += sent
            if self._peer.datagrams or self._offset >= len(self._queue[0].data):
                self._sent(self._queue.popleft())
        self._settle()

    def _sent(self, message: Message) -> None:
        self._offset = 0
        if message.receipt:
            self._unconfirmed[message.receipt] = message
        else:
            self._size -= len(message.data)

    def _settle(self) -> None:
        """Nothing is left to send for now."""
        if not self._unconfirmed and self._closing:
            self._shut()
        elif not self._unconfirmed and self._patience.renew and self._connected and time.monotonic() - self._since > self._patience.renew:
            self._disconnect()
            self._turn += 1
            self._connect()
        else:
            self._watch()
        self._tell_of_room()

    def _limit_wait(self) -> None:
        """A connection that has taken nothing by then is given up."""
        if self._patience.write_timeout:
            sock, seen = self._sock, self._last_progress

            def check() -> None:
                if self._sock is sock and self._last_progress == seen and self._queue:
                    self._failed(TimeoutError(errno.ETIMEDOUT, "it took nothing in time"))

            self._reactor.later(self._patience.write_timeout, check)

    def _confirm(self, data: bytes) -> None:
        if self._receipts is None:
            return
        self._heard += data
        end = 0
        for match in self._receipts.finditer(self._heard):
            end = match.end()
            message = self._unconfirmed.pop(match[0], None)
            if message:
                self._size -= len(message.data)
                self._last_progress = time.monotonic()
        self._heard = self._heard[end:][-_HEARD:]
        if not self._queue:
            self._settle()

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
                data = self._sock.recv(4096)
                if not data:
                    raise ConnectionResetError(errno.ECONNRESET, "closed by the other side")
                self._confirm(data)
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
