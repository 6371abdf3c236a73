"""The streams of one process: FIFOs or a terminal on one side, a log and any number of clients on the other.

A container holds its stdout and stderr FIFOs open for reading and writing, so that a monitor that is killed costs it
neither a SIGPIPE nor a line.

Nobody who reads slowly holds up the others. A client that is behind has what it missed spooled (spool.py); when its spool is full and
others are attached, it is dismissed. Alone it is waited for, as Docker does, as long as it goes on reading: after PATIENCE without a
byte it is dismissed too. A log whose destination does not keep up is waited for only when it says so (logdrivers).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from corten.runtime.clients import Client
from corten.runtime.logdrivers.container_log import ContainerLog
from corten.runtime.messages import LogSettings, Streams
from corten.runtime.reactor import READ, WRITE, Reactor
from corten.runtime.spool import LIMIT, Spool

PATIENCE = 10.0  # seconds
_INPUT_LIMIT = 1 << 20
_CHUNK = 1 << 16
_DRAIN_READS = 32  # of _CHUNK: twice the largest pipe that a process may ask for
_PIPE_SIZE = 1 << 20


class Session:
    """One process's streams. `outputs` maps a stream name to our readable end; a terminal is `stdout` and input in one."""

    def __init__(self, reactor: Reactor, outputs: dict[str, int], input_fd: int, *, terminal: bool,
                 close_input_with_client: bool, log: ContainerLog | None, spool_folder: str,
                 on_detach: Callable[[], None]) -> None:  # fmt: skip
        self.reactor, self.terminal = reactor, terminal
        self._outputs, self._input = dict(outputs), input_fd
        self._close_input_with_client = close_input_with_client
        self._log, self._spool_folder, self._on_detach = log, spool_folder, on_detach
        self._on_end: Callable[[], None] | None = None
        self._ample: set[int] = set()  # outputs whose pipe has been made larger
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

    def set_log(self, settings: LogSettings) -> None:
        """Log elsewhere from now on. Raises OSError if that cannot be opened; then all stays as it was."""
        if self._log:
            self._log.change(settings)

    @property
    def input_full(self) -> bool:
        return len(self._pending_input) >= _INPUT_LIMIT

    # --- output
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
            self._output_ended(stream, fd)
            return False
        if len(data) == _CHUNK and fd not in self._ample:
            self._ample.add(fd)
            with suppress(OSError):  # more than the machine gives one user, or a terminal: then it stays as it is
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        if self._log:
            self._log.write(stream, data)
        for client in tuple(self._clients):
            client.send(stream, data)
        self._hold_back()
        return True

    def _output_ended(self, stream: str, fd: int) -> None:
        """Its last writer has closed it."""
        self.reactor.forget(fd)
        if self._on_end and self._outputs.pop(stream, None) is not None:
            os.close(fd)
            self._end_if_over()

    def _hold_back(self) -> None:
        """Dismiss who must not be waited for, and stop reading for who must."""
        served = [client for client in self._clients if client.gets_output]
        for client in served:
            if client.spool.full and (len(served) > 1 or time.monotonic() - client.last_progress > PATIENCE):
                client.dismiss()
        if not self._reading or self._may_read():
            return
        self._reading = False
        for fd in self._outputs.values():
            self.reactor.forget(fd)
        self.reactor.later(PATIENCE, self._lose_patience)

    def _may_read(self) -> bool:
        return not (self._log and self._log.full) and not any(client.spool.full and client.gets_output for client in self._clients)

    def _lose_patience(self) -> None:
        if not self._reading and self._outputs:
            self._hold_back()
            self.client_drained()
            if not self._reading:
                self.reactor.later(PATIENCE, self._lose_patience)

    def client_drained(self) -> None:
        """Something that was waited for may have room again."""
        if self._reading or (self._log and self._log.full):
            return
        if all(client.closing or client.spool.size < LIMIT // 2 for client in self._clients):
            self.start_reading()

    # --- clients
    def attach(self, sock: socket.socket, streams: Streams, detach_keys: bytes, pending: bytes = b"") -> None:
        client = Client(self, sock, streams, detach_keys, Spool(self._spool_folder))
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
            client.spool.close()
            if client.input_open and client.streams.stdin and not by_keys:
                self.client_input_ended()
            if by_keys:
                self._on_detach()
            self.client_drained()

    # --- input
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

    # --- the end
    def drain(self) -> None:
        """The container has ended: pass on and log everything that is left, and close its streams.

        As much as a pipe can hold, not more: what was not killed with it (it left the container's cgroup) may write for ever.
        """
        self._on_end = None
        for stream, fd in self._outputs.items():
            self.reactor.forget(fd)
            for _ in range(_DRAIN_READS):
                if not self._read(stream, fd):
                    break
            self.reactor.forget(fd)
            os.close(fd)
        self._outputs.clear()
        self._close_other_ends()

    def end_with_last_writer(self, on_end: Callable[[], None]) -> None:
        """The process has ended, what it left behind may still write: go on until the last of them has closed its output.

        `drain` and `close` end it before that.
        """
        self._on_end = on_end
        self.close_input()
        for stream, fd in tuple(self._outputs.items()):
            if self._reading and self._read(stream, fd):
                self._watch_output(stream, fd)
        self._end_if_over()

    def _end_if_over(self) -> None:
        if not self._outputs and self._on_end:
            on_end, self._on_end = self._on_end, None
            self._close_other_ends()
            self.release_clients()
            on_end()

    def _close_other_ends(self) -> None:
        if self.terminal:
            self._input = -1
        self.close_input()
        self._reading = True  # nothing to resume
        if self._log:
            self._log.close()
            self._log = None

    def release_clients(self) -> None:
        """Let every client go once it has got what is spooled for it."""
        for client in tuple(self._clients):
            client.finish()

    def close(self) -> None:
        self.drain()
        self.release_clients()
