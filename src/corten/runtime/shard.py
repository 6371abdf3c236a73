"""The containers of one monitor: set up, started, ended, taken down. Told what to do by monitor.py; what goes on in one that runs
is inside.py's.

Decides nothing. Whatever fails is raised, and becomes a Failure at the border.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

import msgspec

from corten.linux.cgroup import host_layout
from corten.linux.cgroup_versions import open_cgroup
from corten.linux.descriptors import close_all
from corten.linux.pidfd import parent_of
from corten.runtime import messages, sandbox
from corten.runtime.exit_record import ExitRecord, write_exit_record
from corten.runtime.fifos import open_stdio, reopen_stdio, unlink_fifos
from corten.runtime.live import LiveContainer, LiveProcess, Reply, live_process, not_running
from corten.runtime.logdrivers.container_log import ContainerLog
from corten.runtime.reactor import READ, Reactor
from corten.runtime.stdio import Session
from corten.spec.runtime import RuntimeConfig, parse_runtime_config

_SILENT_DEATH = messages.Failure("start", "container", 0, "the child died before its program ran")


class Shard:
    """`broadcast` tells every daemon that listens; `cache_folder` keeps compiled seccomp filters."""

    def __init__(self, reactor: Reactor, cache_folder: str, broadcast: Callable[[messages.FromMonitor], None]) -> None:
        self._reactor, self._cache_folder, self.broadcast = reactor, cache_folder, broadcast
        self._containers: dict[str, LiveContainer] = {}
        self.layout = host_layout()

    def __bool__(self) -> bool:
        return bool(self._containers)

    def running(self) -> list[messages.RunningContainer]:
        return [messages.RunningContainer(live.id, live.init.pid, live.init.started, list(live.execs)) for live in self._containers.values()]

    def find(self, container: str) -> LiveContainer:
        try:
            return self._containers[container]
        except KeyError:
            raise not_running(container) from None

    # --- set-up and start
    def create(self, message: messages.Create, reply: Reply, connection: socket.socket) -> None:
        with open(os.path.join(message.bundle, "config.json"), "rb") as file:
            config = parse_runtime_config(file.read())
        runtime = tuple(message.runtime)
        group = open_cgroup(_group_path(config), self.layout) if runtime else sandbox.prepare_cgroup(config, self.layout)
        ours: list[int] = []
        theirs: list[int] = []
        terminal = bool(config.process and config.process.terminal)
        log: ContainerLog | None = None
        try:
            folder = os.open(message.run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            ours.append(folder)
            log = ContainerLog(message.log, self._reactor, lambda: self._log_has_room(message.container))
            outputs, input_fd, stdio = open_stdio(message.run_dir, "", ours, theirs, open_stdin=message.open_stdin, terminal=terminal)
            root = config.root.path if config.root else "rootfs"
            if runtime:
                from corten.runtime import foreign

                line = foreign.CommandLine(runtime, message.container, message.run_dir)
                child = foreign.spawn_container(line, config, os.path.join(message.bundle, root), message.rootfs, self.layout, group, stdio)
            else:
                child = sandbox.spawn_container(
                    config, os.path.join(message.bundle, root), tuple(message.rootfs), self.layout, group, stdio,
                    cache_dir=self._cache_folder,
                )  # fmt: skip
        except BaseException:
            close_all(ours)
            if log:
                log.close()
            if group:
                group.remove()
            raise
        finally:
            close_all(theirs)
        session = self._session(message, outputs, input_fd, log, terminal=terminal)
        process = live_process(child, session, reply, message.serial, runtime)
        self._containers[message.container] = LiveContainer(
            message.container, config, group, message.run_dir, process, connection, runtime, spool_folder=message.bundle,
            folder=folder,
        )  # fmt: skip
        self.watch(message.container, "", process)
        if message.tell_pid and not runtime:
            reply(messages.Cloned(message.container, child.pid))

    def take_over(self, message: messages.TakeOver, fds: list[int], reply: Reply, connection: socket.socket) -> None:
        """Look after a container that runs already. What it had said and nobody read is still in its FIFOs."""
        with open(os.path.join(message.bundle, "config.json"), "rb") as file:
            config = parse_runtime_config(file.read())
        terminal = bool(config.process and config.process.terminal)
        log = ContainerLog(message.log, self._reactor, lambda: self._log_has_room(message.container))
        try:
            outputs, input_fd = ({}, -1) if terminal else reopen_stdio(message.run_dir, open_stdin=message.open_stdin)
        except BaseException:
            log.close()
            raise
        session = self._session(message, outputs, input_fd, log, terminal=terminal)
        init = _taken_over(message, fds.pop(0), session, reply)
        if terminal and fds:
            init.pty_master = fds.pop(0)
            os.set_blocking(init.pty_master, False)
            session.use_terminal(init.pty_master)
        self._containers[message.container] = LiveContainer(
            message.container, config, open_cgroup(_group_path(config), self.layout) if _group_path(config) else None, message.run_dir, init,
            connection, tuple(message.runtime), spool_folder=message.bundle,
        )  # fmt: skip
        self._program_runs(message.container, "", init)

    def _session(self, asked: messages.Create | messages.TakeOver, outputs: dict[str, int], input_fd: int, log: ContainerLog, *,
                 terminal: bool) -> Session:  # fmt: skip
        return Session(
            self._reactor, outputs, input_fd, terminal=terminal, close_input_with_client=asked.stdin_once,
            log=log, spool_folder=asked.bundle, on_detach=lambda: self.broadcast(messages.Detached(asked.container, "")),
        )  # fmt: skip

    def _log_has_room(self, container: str) -> None:
        live = self._containers.get(container)
        if live:
            live.init.session.client_drained()

    def watch(self, container: str, exec_id: str, process: LiveProcess) -> None:
        channel = process.child.channel
        self._reactor.watch(channel.fileno(), READ, lambda _m: self._child_speaks(container, exec_id, process))

    def _child_speaks(self, container: str, exec_id: str, process: LiveProcess) -> None:
        message, fds = sandbox.receive(process.child.channel)
        if isinstance(message, messages.Ready):
            if message.pid:
                process.pid, process.killable = message.pid, os.pidfd_open(message.pid)
            if fds:
                process.pty_master = fds[0]
                os.set_blocking(fds[0], False)
                process.session.use_terminal(process.pty_master)
            if exec_id:
                process.proceeding = True
                sandbox.proceed(process.child.channel)
            else:
                process.reply(messages.Created(process.serial, process.pid, message.warnings))
                process.ready = True
                if process.held:
                    self._proceed(process, *process.held)
            return
        self._reactor.forget(process.child.channel.fileno())
        process.child.channel.close()
        if message is None and process.proceeding:
            self._program_runs(container, exec_id, process)
            return
        self._never_started(container, exec_id, process, message)

    def _program_runs(self, container: str, exec_id: str, process: LiveProcess) -> None:
        process.started = True
        process.session.start_reading()
        self._reactor.watch(process.child.pidfd, READ, lambda _m: self._ended(container, exec_id, process))
        process.reply(messages.Done(process.serial, str(process.pid).encode()))

    def _never_started(self, container: str, exec_id: str, process: LiveProcess, message: messages.FromChild | None) -> None:
        process.reap()
        process.close_handles()
        process.session.abandon_clients()
        process.session.close()
        live = self._containers[container]
        if exec_id:
            live.execs.pop(exec_id, None)
            unlink_fifos(live.run_dir, f"{exec_id}-")
        else:
            self._take_down(live)
        failure = message if isinstance(message, messages.Failure) else _SILENT_DEATH
        process.reply(msgspec.structs.replace(failure, serial=process.serial))
        _refuse_held(process, failure)

    def set_log(self, message: messages.SetLog, _fds: list[int], reply: Reply) -> None:
        self.find(message.container).init.session.set_log(message.log)
        reply(messages.Done(message.serial))

    def start(self, message: messages.Start, _fds: list[int], reply: Reply) -> None:
        self._proceed(self.find(message.container).init, message, reply)

    def start_once_ready(self, message: messages.StartOnceReady, _fds: list[int], reply: Reply) -> None:
        init = self.find(message.container).init
        if init.ready:
            self._proceed(init, message, reply)
        else:
            init.held = message, reply

    @staticmethod
    def _proceed(init: LiveProcess, message: messages.Start | messages.StartOnceReady, reply: Reply) -> None:
        init.reply, init.serial, init.proceeding = reply, message.serial, True
        sandbox.proceed(init.child.channel)

    def _ended(self, container: str, exec_id: str, process: LiveProcess) -> None:
        self._reactor.forget(process.child.pidfd)
        code = process.reap()
        process.close_handles()
        finished = time.time_ns()
        live = self._containers[container]
        record = ExitRecord(code, live.was_oom_killed(), finished)
        if exec_id:
            self._exec_ended(live, exec_id, process.session, record)
        else:
            self._container_ended(live, record)

    def _container_ended(self, live: LiveContainer, record: ExitRecord) -> None:
        if live.group and not _has_own_pids(live.config):
            with suppress(OSError):  # _take_down tries again, and complains
                live.group.kill()  # what it left behind may still write
        live.init.session.drain()
        with suppress(FileNotFoundError):  # a daemon that does not know the container has swept its folder away
            write_exit_record(live.run_dir, record)
        # The daemon is told before the clients see the end of their streams: they ask for the exit code next.
        self.broadcast(messages.Exited(live.id, "", record.exit_code, record.oom_killed, record.finished))
        self._take_down(live)
        live.init.session.release_clients()

    def _exec_ended(self, live: LiveContainer, exec_id: str, session: Session, record: ExitRecord) -> None:
        """Its streams go on until what it left behind has closed them (as in Docker), or the container ends."""
        self.broadcast(messages.Exited(live.id, exec_id, record.exit_code, record.oom_killed, record.finished))
        live.execs.pop(exec_id, None)
        unlink_fifos(live.run_dir, f"{exec_id}-")
        live.lingering[exec_id] = session
        session.end_with_last_writer(lambda: live.lingering.__delitem__(exec_id))

    def _take_down(self, live: LiveContainer) -> None:
        superseded = live.is_superseded()
        try:
            # With a pid namespace of its own everything inside is dead by now; with the host's, it is not.
            for exec_id, process in tuple(live.execs.items()):
                self._end_exec(live, exec_id, process)
            if live.group and not superseded:
                live.group.kill()
                live.group.remove()
            for session in tuple(live.lingering.values()):
                session.close()
        except OSError:  # a group that cannot be removed is one folder too many, and no reason to lose the other containers
            traceback.print_exc()
        if not superseded:
            unlink_fifos(live.run_dir, "")
        close_all([*live.kept, *([live.folder] if live.folder >= 0 else [])])
        del self._containers[live.id]

    def _end_exec(self, live: LiveContainer, exec_id: str, process: LiveProcess) -> None:
        """Kill and reap an exec whose container has ended; say so as if it had ended by itself."""
        process.kill()
        if process.started:
            self._ended(live.id, exec_id, process)
        else:
            self._child_speaks(live.id, exec_id, process)

    def keep(self, message: messages.Keep, fds: list[int], reply: Reply) -> None:
        live = self.find(message.container)
        close_all(live.kept)
        live.kept = list(fds)
        fds.clear()  # ours now
        reply(messages.Done(message.serial))

    def discard(self, message: messages.Discard, _fds: list[int], reply: Reply) -> None:
        live = self._containers.get(message.container)
        if live and not live.init.started:
            self._abandon(live)
        elif live:
            live.init.kill()
        reply(messages.Done(message.serial))

    def _abandon(self, live: LiveContainer) -> None:
        """Undo a container whose program never ran."""
        _refuse_held(live.init, _SILENT_DEATH)
        child = live.init.child
        live.init.kill()
        self._reactor.forget(child.channel.fileno())
        child.channel.close()
        live.init.reap()
        live.init.close_handles()
        live.init.session.close()
        self._take_down(live)

    def daemon_gone(self, connection: socket.socket) -> None:
        """What it had set up and not started ends with it."""
        for live in tuple(self._containers.values()):
            if live.creator is connection and not live.init.proceeding:
                self._abandon(live)


def _refuse_held(process: LiveProcess, failure: messages.Failure) -> None:
    """A start that waits for a set-up that has failed."""
    if process.held and not process.proceeding:
        start, reply = process.held
        reply(msgspec.structs.replace(failure, serial=start.serial))


def _taken_over(message: messages.TakeOver, pidfd: int, session: Session, reply: Reply) -> LiveProcess:
    """`pidfd` is its init's, and ours here. Another runtime's container ends with its driver, as in the monitor that made it."""
    channel = socket.socket(socket.AF_UNIX)
    channel.close()  # its program runs: there is nothing more to be said
    pid, watched = message.pid, pidfd
    if message.runtime:
        pid = parent_of(message.pid)
        watched = os.pidfd_open(pid)
    child = sandbox.Child(pid, watched, channel)
    return LiveProcess(child, session, reply, message.serial, message.pid, pidfd, proceeding=True, started=True, ours=False)


def _group_path(config: RuntimeConfig) -> str:
    return config.linux.cgroups_path if config.linux else ""


def _has_own_pids(config: RuntimeConfig) -> bool:
    """Then nothing outlives its init."""
    namespaces = (config.linux and config.linux.namespaces) or []
    return any(space.type == "pid" and not space.path for space in namespaces)
