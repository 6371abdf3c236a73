"""One attached connection: its output framed and spooled, its input watched for the detach keys.

Must not know where output comes from or input goes: that is its session's (stdio.py). Source of the frames: Docker API, "attach",
stdcopy; stream 3 is an error of the engine's, which clients show.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Protocol

from corten.runtime.messages import Streams
from corten.runtime.reactor import HANGUP, READ, WRITE, Reactor
from corten.runtime.spool import LIMIT, Spool

_CHUNK = 1 << 16
_FRAME = {"stdout": 1, "stderr": 2, "error": 3}
_TOO_SLOW = f"detached: this client was {LIMIT >> 20} MiB behind the container's output, which others wait for; docker logs has all of it\n"


class Attachable(Protocol):
    """What a client asks of its session."""

    reactor: Reactor
    terminal: bool

    @property
    def input_full(self) -> bool: ...

    def feed_input(self, data: bytes) -> None: ...

    def client_input_ended(self) -> None: ...

    def client_drained(self) -> None: ...

    def drop(self, client: Client, *, by_keys: bool = False) -> None: ...


class DetachKeys:
    """Finds the detach sequence in what a client types; holds back a beginning of it until it is decided."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Returns (what to pass on, whether the sequence was completed)."""
        if not self._keys:
            return data, False
        data = self._held + data
        at = data.find(self._keys)
        if at >= 0:
            self._held = b""
            return data[:at], True
        keep = next((n for n in range(min(len(self._keys) - 1, len(data)), 0, -1) if data.endswith(self._keys[:n])), 0)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep], False


class Client:
    """One attached connection. Owned by its session."""

    def __init__(self, session: Attachable, sock: socket.socket, streams: Streams, detach_keys: bytes, spool: Spool) -> None:
        self.session, self.sock, self.streams, self.spool = session, sock, streams, spool
        self.input_open = True
        self.closing = False
        self.last_progress = time.monotonic()
        self._keys = DetachKeys(detach_keys if streams.stdin and session.terminal else b"")
        sock.setblocking(False)

    @property
    def gets_output(self) -> bool:
        return not self.closing and (self.streams.stdout or self.streams.stderr)

    def watch(self) -> None:
        if self.sock.fileno() < 0:
            return
        mask = HANGUP | (WRITE if self.spool.size else 0)
        if self.input_open and not self.session.input_full:
            mask |= READ
        self.session.reactor.watch(self.sock.fileno(), mask, self._ready)

    def send(self, stream: str, data: bytes) -> None:
        if self.closing or not (self.streams.stdout if stream == "stdout" else self.streams.stderr):
            return
        self._put(struct.pack(">BxxxI", _FRAME[stream], len(data)) + data if self.streams.framed else data)

    def _put(self, data: bytes) -> None:
        if self.spool.size:
            self.spool.append(data)
            return
        sent = 0
        try:
            sent = self.sock.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            pass
        except OSError:
            self.session.drop(self)
            return
        if sent < len(data):
            self.last_progress = time.monotonic()  # from here on it is behind
            self.spool.append(data[sent:])
            self.watch()

    def dismiss(self) -> None:
        """It is too far behind: it gets what is spooled and, in a frame of its own, the reason; and no more."""
        if self.streams.framed:
            text = _TOO_SLOW.encode()
            self.spool.append(struct.pack(">BxxxI", _FRAME["error"], len(text)) + text)
        self.finish()

    def _ready(self, mask: int) -> None:
        if mask & WRITE and self.spool.size:
            self._flush()
        if mask & READ and self.input_open and self.sock.fileno() >= 0:
            self._receive()
        elif mask & HANGUP:
            self.session.drop(self)

    def _flush(self) -> None:
        before = self.spool.size
        try:
            self.spool.send(self.sock)
        except BlockingIOError:
            pass
        except OSError:
            self.session.drop(self)
            return
        if self.spool.size < before:
            self.last_progress = time.monotonic()
        if not self.spool.size:
            if self.closing:
                self.session.drop(self)
                return
            self.watch()
        self.session.client_drained()

    def _receive(self) -> None:
        try:
            data = self.sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.session.drop(self)
            return
        self.take(data)

    def take(self, data: bytes) -> None:
        """Input from the client; empty is its end of file (a half-closed connection still gets output)."""
        if not data:
            self.input_open = False
            if self.streams.stdin:
                self.session.client_input_ended()
            self.watch()
            return
        if not self.streams.stdin:
            return
        data, detach = self._keys.feed(data)
        if data:
            self.session.feed_input(data)
        if detach:
            self.session.drop(self, by_keys=True)

    def finish(self) -> None:
        """No more output will come: close once what is spooled has been sent."""
        if not self.spool.size:
            self.session.drop(self)
            return
        self.closing = True
        self.input_open = False
        self.watch()
