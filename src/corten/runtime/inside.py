"""What goes on in a running container: more processes, clients, window sizes, signals, freezing."""

from __future__ import annotations

import os
import signal
import socket

from corten.errors import KernelRefused
from corten.linux import pty
from corten.linux.descriptors import close_all
from corten.runtime import messages, sandbox
from corten.runtime.fifos import open_stdio, unlink_fifos
from corten.runtime.live import LiveContainer, Reply, live_process
from corten.runtime.reactor import READ, Reactor
from corten.runtime.seccomp_cache import filter_for
from corten.runtime.shard import Shard
from corten.runtime.stdio import Session
from corten.spec.runtime import Process, parse_process


class Inside:
    def __init__(self, reactor: Reactor, shard: Shard) -> None:
        self._reactor, self._shard = reactor, shard

    def exec(self, message: messages.Exec, fds: list[int], reply: Reply) -> None:
        live = self._shard.find(message.container)
        process = parse_process(message.process)
        ours: list[int] = []
        theirs: list[int] = []
        prefix = f"{message.exec_id}-"
        try:
            outputs, input_fd, stdio = open_stdio(
                live.run_dir, prefix, ours, theirs, open_stdin=message.streams.stdin, terminal=process.terminal
            )
            child = self._spawn_exec(live, message, process, stdio)
        except BaseException:
            close_all(ours)
            unlink_fifos(live.run_dir, prefix)
            raise
        finally:
            close_all(theirs)
        session = Session(
            self._reactor, outputs, input_fd, terminal=process.terminal, close_input_with_client=True, log=None,
            spool_folder=live.spool_folder, on_detach=lambda: self._shard.broadcast(messages.Detached(message.container, message.exec_id)),
        )  # fmt: skip
        if fds:
            session.attach(socket.socket(fileno=fds.pop(0)), message.streams, message.detach_keys, message.pending)
        running = live_process(child, session, reply, message.serial, live.runtime)
        live.execs[message.exec_id] = running
        self._shard.watch(message.container, message.exec_id, running)

    def _spawn_exec(self, live: LiveContainer, message: messages.Exec, process: Process, stdio: tuple[int, int, int] | None) -> sandbox.Child:
        if live.runtime:
            from corten.runtime import foreign

            line = foreign.CommandLine(live.runtime, live.id, live.run_dir)
            return foreign.spawn_exec(line, message.exec_id, process, message.user, message.groups, live.init.pid, self._shard.layout, stdio)
        section = live.config.linux.seccomp if live.config.linux else None
        try:
            return sandbox.spawn_exec(
                live.init.pid, process, message.user, tuple(message.groups), live.group,
                filter_for(bytes(section)) if section else None, stdio,
                tools=tuple(message.tools), scratch=live.run_dir,
            )  # fmt: skip
        except OSError as error:  # mostly because its namespaces are about to go: nothing to report here, the daemon looks
            reason = error.strerror or str(error)
            raise KernelRefused(operation="start exec", operand=str(error.filename), errno=error.errno or 0, reason=reason) from None

    def attach(self, message: messages.Attach, fds: list[int], reply: Reply) -> None:
        live = self._shard.find(message.container)
        live.init.session.attach(socket.socket(fileno=fds.pop(0)), message.streams, message.detach_keys, message.pending)
        reply(messages.Done(message.serial))

    def resize(self, message: messages.Resize, _fds: list[int], reply: Reply) -> None:
        live = self._shard.find(message.container)
        process = live.execs.get(message.exec_id) if message.exec_id else live.init
        if process and process.pty_master >= 0:
            pty.set_window_size(process.pty_master, message.height, message.width)
        reply(messages.Done(message.serial))

    def signal(self, message: messages.Signal, _fds: list[int], reply: Reply) -> None:
        live = self._shard.find(message.container)
        if message.exec_id:
            self._signal_exec(live, message)
        elif live.runtime:
            self._tell_runtime(live, reply, message.serial, "kill", live.id, str(message.number))
            return
        else:
            signal.pidfd_send_signal(live.init.killable, message.number)
        reply(messages.Done(message.serial))

    @staticmethod
    def _signal_exec(live: LiveContainer, message: messages.Signal) -> None:
        process = live.execs.get(message.exec_id)
        if process is None or process.killable < 0:
            raise KernelRefused(operation="signal", operand=message.exec_id, errno=3, reason="the exec is not running")
        if live.runtime:
            signal.pidfd_send_signal(process.killable, message.number)
        else:
            os.killpg(process.pid, message.number)  # not reaped yet, so the number is still its own

    def freeze(self, message: messages.Freeze, _fds: list[int], reply: Reply) -> None:
        live = self._shard.find(message.container)
        if live.runtime:
            self._tell_runtime(live, reply, message.serial, "pause" if message.frozen else "resume", live.id)
            return
        if live.group is None:
            raise KernelRefused(operation="freeze", operand=message.container, errno=95, reason="the container has no cgroup")
        live.group.freeze(message.frozen)
        reply(messages.Done(message.serial))

    def _tell_runtime(self, live: LiveContainer, reply: Reply, serial: int, verb: str, *arguments: str) -> None:
        from corten.runtime import foreign

        driver = foreign.spawn_command(foreign.CommandLine(live.runtime, live.id, live.run_dir), self._shard.layout, verb, *arguments)

        def ended(_mask: int) -> None:
            message, _ = sandbox.receive(driver.channel)
            self._reactor.forget(driver.channel.fileno())
            driver.channel.close()
            os.waitpid(driver.pid, 0)
            os.close(driver.pidfd)
            if isinstance(message, messages.Failure):
                reply(messages.Failure(verb, live.id, message.errno, message.text, 0, serial))
            else:
                reply(messages.Done(serial))

        self._reactor.watch(driver.channel.fileno(), READ, ended)
