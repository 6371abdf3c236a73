"""The streams of one process: FIFOs or a terminal on one side, a log and any number of clients on the other.

A container holds its stdout and stderr FIFOs open for reading and writing, so that a monitor that is killed costs it
neither a SIGPIPE nor a line. A client that does not read stops being fed at BUFFER_LIMIT, and then the reading stops
(as in Docker: nothing is lost, nothing grows). Source of the frames: Docker API, "attach", stdcopy.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from corten.runtime.logfile import LogFile
from corten.runtime.messages import Streams
from corten.runtime.reactor import HANGUP, READ, WRITE, Reactor

BUFFER_LIMIT = 1 << 20
_CHUNK = 1 << 16
_DRAIN_READS = 32  # of _CHUNK: twice the largest pipe that a process may ask for
_FRAME = {"stdout": 1, "stderr": 2}


def make_fifo(path: str) -> tuple[int, int]:
    """A named FIFO: (the process's end, ours). The process's end is open both ways, ours reads without blocking."""
    os.mkfifo(path, 0o600)
    theirs = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    return theirs, os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def make_stdin(path: str) -> tuple[int, int]:
    """A FIFO for input: (the process's end, ours). Closing ours is the process's end of file."""
    os.mkfifo(path, 0o600)
    ours = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    theirs = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.close(ours)
    return theirs, writer


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
    """One attached connection. Owned by its Session."""

    def __init__(self, session: Session, sock: socket.socket, streams: Streams, detach_keys: bytes) -> None:
        self.session, self.sock, self.streams = session, sock, streams
        self.buffer = bytearray()
        self.input_open = True
        self.closing = False
        self._keys = DetachKeys(detach_keys if streams.stdin and session.terminal else b"")
        sock.setblocking(False)

    def watch(self) -> None:
        if self.sock.fileno() < 0:
            return
        mask = HANGUP | (WRITE if self.buffer else 0)
        if self.input_open and not self.session.input_full:
            mask |= READ
        self.session.reactor.watch(self.sock.fileno(), mask, self._ready)

    def send(self, stream: str, data: bytes) -> None:
        if not (self.streams.stdout if stream == "stdout" else self.streams.stderr):
            return
        if self.streams.framed:
            data = struct.pack(">BxxxI", _FRAME[stream], len(data)) + data
        if self.buffer:
            self.buffer += data
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
            self.buffer += data[sent:]
            self.watch()

    def _ready(self, mask: int) -> None:
        if mask & WRITE and self.buffer:
            self._flush()
        if mask & READ and self.input_open and self.sock.fileno() >= 0:
            self._receive()
        elif mask & HANGUP:
            self.session.drop(self)

    def _flush(self) -> None:
        try:
            sent = self.sock.send(self.buffer, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError:
            self.session.drop(self)
            return
        del self.buffer[:sent]
        if not self.buffer:
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
        """No more output will come: close once what is buffered has been sent."""
        if not self.buffer:
            self.session.drop(self)
            return
        self.closing = True
        self.input_open = False
        self.watch()


class Session:
    """One process's streams. `outputs` maps a stream name to our readable end; a terminal is `stdout` and input in one."""

    def __init__(self, reactor: Reactor, outputs: dict[str, int], input_fd: int, *, terminal: bool,
                 close_input_with_client: bool, log: LogFile | None,
                 on_detach: Callable[[], None]) -> None:  # fmt: skip
        self.reactor, self.terminal = reactor, terminal
        self._outputs, self._input = dict(outputs), input_fd
        self._close_input_with_client = close_input_with_client
        self._log, self._on_detach = log, on_detach
        self._clients: list[Client] = []
        self._pending_input = bytearray()
        self._input_ending = False
        self._reading = False
        self._terminal_expected = terminal

    def use_terminal(self, master: int) -> None:
        """The child has opened its terminal: from now on it is input and output."""
        self._outputs, self._input, self._terminal_expected = {"stdout": master}, master, False
        if self._pending_input:
            self._write_input(0)

    @property
    def input_full(self) -> bool:
        return len(self._pending_input) >= BUFFER_LIMIT

    def start_reading(self) -> None:
        if not self._reading:
            self._reading = True
            for stream, fd in self._outputs.items():
                self._watch_output(stream, fd)

    def _watch_output(self, stream: str, fd: int) -> None:
        self.reactor.watch(fd, READ, lambda _mask: self._take_output(stream, fd))

    def _take_output(self, stream: str, fd: int) -> None:
        self._read(stream, fd)

    def _read(self, stream: str, fd: int) -> bool:
        """Read once; False when there is nothing more for now or for ever."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the terminal's last user has closed it
                raise
            data = b""
        if not data:
            self.reactor.forget(fd)
            return False
        if self._log:
            self._log.write(stream, data)
        for client in tuple(self._clients):
            client.send(stream, data)
        if any(len(client.buffer) >= BUFFER_LIMIT for client in self._clients):
            self._pause()
        return True

    def _pause(self) -> None:
        self._reading = False
        for fd in self._outputs.values():
            self.reactor.forget(fd)

    def client_drained(self) -> None:
        if not self._reading and all(len(client.buffer) < BUFFER_LIMIT // 2 for client in self._clients):
            self.start_reading()

    def attach(self, sock: socket.socket, streams: Streams, detach_keys: bytes, pending: bytes = b"") -> None:
        client = Client(self, sock, streams, detach_keys)
        self._clients.append(client)
        client.watch()
        if pending:
            client.take(pending)

    def drop(self, client: Client, *, by_keys: bool = False) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self.reactor.forget(client.sock.fileno())
            with suppress(OSError):
                client.sock.shutdown(socket.SHUT_RDWR)  # our copies elsewhere must not keep the peer waiting
            client.sock.close()
            if client.input_open and client.streams.stdin and not by_keys:
                self.client_input_ended()
            if by_keys:
                self._on_detach()
            self.client_drained()

    def feed_input(self, data: bytes) -> None:
        if self._input < 0 and not self._terminal_expected:
            return
        self._pending_input += data
        if self._input >= 0:
            self._write_input(0)
        else:
            self._watch_clients()

    def _watch_clients(self) -> None:
        """Whether a client is listened to depends on how much input waits."""
        for client in self._clients:
            client.watch()

    def _write_input(self, _mask: int) -> None:
        while self._pending_input:
            try:
                written = os.write(self._input, self._pending_input[:_CHUNK])
            except BlockingIOError:
                self._watch_input()
                self._watch_clients()
                return
            except OSError:
                self._pending_input.clear()  # the process has closed its input: as a pipe, what is sent is lost
                break
            del self._pending_input[:written]
        if self.terminal:
            self._watch_terminal()
        else:
            self.reactor.forget(self._input)
        if self._input_ending:
            self.close_input()
        self._watch_clients()

    def _watch_input(self) -> None:
        if self.terminal:
            fd = self._outputs["stdout"]
            self.reactor.watch(fd, READ | WRITE, self._terminal_ready)
        else:
            self.reactor.watch(self._input, WRITE, self._write_input)

    def _watch_terminal(self) -> None:
        if self._reading:
            self._watch_output("stdout", self._outputs["stdout"])

    def _terminal_ready(self, mask: int) -> None:
        if mask & WRITE:
            self._write_input(mask)
        if mask & READ:
            self._read("stdout", self._outputs["stdout"])

    def client_input_ended(self) -> None:
        if self._close_input_with_client and not self.terminal:
            self._input_ending = True
            if not self._pending_input:
                self.close_input()

    def close_input(self) -> None:
        if self._input >= 0 and not self.terminal:
            self.reactor.forget(self._input)
            os.close(self._input)
            self._input = -1

    def abandon_clients(self) -> None:
        """The process never ran: let go of the connections without closing them; the daemon has them too and answers."""
        for client in self._clients:
            self.reactor.forget(client.sock.fileno())
            client.sock.close()
        self._clients.clear()

    def drain(self) -> None:
        """The process has ended: pass on and log everything that is left, and close its streams.

        As much as a pipe can hold, not more: a process that it left behind may write for ever.
        """
        for stream, fd in self._outputs.items():
            self.reactor.forget(fd)
            for _ in range(_DRAIN_READS):
                if not self._read(stream, fd):
                    break
            self.reactor.forget(fd)
            os.close(fd)
        self._outputs.clear()
        if self.terminal:
            self._input = -1
        self.close_input()
        self._reading = True  # nothing to resume
        if self._log:
            self._log.close()
            self._log = None

    def release_clients(self) -> None:
        """Let every client go once it has got what is buffered for it."""
        for client in tuple(self._clients):
            client.finish()

    def close(self) -> None:
        self.drain()
        self.release_clients()
