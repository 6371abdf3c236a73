"""The monitor: parent of the inits of a shard of containers. Forked by the launcher, detached, outlives the daemon.

Owns the listener, its daemons' connections and the loop; which message goes to whom is one table. The containers are shard.py's and
inside.py's. Decides nothing: it does what a daemon's messages say (messages.py), and writes down what happened where the next
daemon finds it (exit_record.py).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from corten.errors import CortenError, KernelRefused
from corten.linux import descriptors, syscalls
from corten.runtime import messages
from corten.runtime.inside import Inside
from corten.runtime.reactor import READ, Reactor
from corten.runtime.shard import Shard


class Monitor:
    """One loop over its listener, its daemons' connections, and its containers' descriptors."""

    def __init__(self, listener: socket.socket, socket_path: str) -> None:
        self._listener, self._socket_path = listener, socket_path
        self._reactor = Reactor()
        self._connections: list[socket.socket] = []
        self._ever_connected = False
        self._shard = Shard(self._reactor, os.path.join(os.path.dirname(socket_path), "seccomp"), self._broadcast)
        inside = Inside(self._reactor, self._shard)
        self._handlers: dict[type, Callable[..., None]] = {
            messages.Start: self._shard.start,
            messages.StartOnceReady: self._shard.start_once_ready,
            messages.Discard: self._shard.discard,
            messages.Keep: self._shard.keep,
            messages.Exec: inside.exec,
            messages.Attach: inside.attach,
            messages.Resize: inside.resize,
            messages.Signal: inside.signal,
            messages.Freeze: inside.freeze,
            messages.SetLog: self._shard.set_log,
            messages.Ping: lambda message, _fds, reply: reply(messages.Done(message.serial)),
        }

    def run(self) -> None:
        """Serve until there is neither a container nor a daemon left."""
        self._reactor.watch(self._listener.fileno(), READ, self._accept)
        while self._shard or self._connections or not self._ever_connected:
            self._reactor.run_once()
        with suppress(FileNotFoundError):
            os.unlink(self._socket_path)

    # --- daemons
    def _accept(self, _mask: int) -> None:
        connection, _ = self._listener.accept()
        self._ever_connected = True
        self._connections.append(connection)
        self._reactor.watch(connection.fileno(), READ, lambda _m: self._receive(connection))
        self._send(connection, messages.Hello(os.getpid(), self._shard.running(), [added.__name__ for added in messages.ADDED]))

    def _receive(self, connection: socket.socket) -> None:
        try:
            data, fds = descriptors.receive_packet(connection)
        except OSError:
            data, fds = b"", []
        if not data:
            self._hang_up(connection)
            return

        def reply(message: messages.FromMonitor) -> None:
            self._send(connection, message)

        try:
            message = messages.decode_for_monitor(data)
        except msgspec.DecodeError as error:  # a daemon of another release: no reason to lose containers over
            traceback.print_exc()
            descriptors.close_all(fds)
            refusal = messages.not_understood(data, error)
            if refusal:
                reply(refusal)
            else:
                self._hang_up(connection)
            return
        try:
            if isinstance(message, messages.Create):
                self._shard.create(message, reply, connection)
            elif isinstance(message, messages.TakeOver):
                self._shard.take_over(message, fds, reply, connection)
            elif isinstance(message, messages.GiveTerminal):
                master = self._shard.find(message.container).init.pty_master
                self._send(connection, messages.Done(message.serial), [master] if master >= 0 else [])
            elif isinstance(message, messages.GiveKept):
                self._send(connection, messages.Done(message.serial), self._shard.find(message.container).kept)
            else:
                self._handlers[type(message)](message, fds, reply)
        except KernelRefused as error:
            reply(messages.Failure(error.operation, error.operand, error.errno, error.reason, 0, message.serial))
        except CortenError as error:
            reply(messages.Failure(type(message).__name__, message.container, 0, error.message, 0, message.serial))
        except Exception as error:
            traceback.print_exc()
            reply(messages.failure_from(error, type(message).__name__, serial=message.serial))
        finally:
            descriptors.close_all(fds)  # what no handler has taken: a client must not wait on our copy of its connection

    def _send(self, connection: socket.socket, message: messages.FromMonitor, fds: Sequence[int] = ()) -> None:
        try:
            descriptors.send_packet(connection, messages.encode(message), fds)
        except OSError:
            self._hang_up(connection)

    def _hang_up(self, connection: socket.socket) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            self._reactor.forget(connection.fileno())
            connection.close()
            self._shard.daemon_gone(connection)

    def _broadcast(self, message: messages.FromMonitor) -> None:
        for connection in tuple(self._connections):
            self._send(connection, message)


def run_monitor(listener: socket.socket, socket_path: str, log_path: str) -> None:
    """Become a monitor: called in a process that the launcher has just forked and detached."""
    syscalls.set_process_name("corten-monitor")
    os.umask(0o022)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)
    null = os.open("/dev/null", os.O_RDWR)
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.close(null)
    os.close(log)
    try:
        Monitor(listener, socket_path).run()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
