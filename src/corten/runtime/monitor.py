"""The monitor: parent of the inits of a shard of containers. Forked by the launcher, detached, outlives the daemon.

Owns their processes, streams, logs and exit records. Decides nothing: it does what a daemon's messages say
(messages.py), and writes down what happened where the next daemon finds it (exit.json in the container's run folder).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from corten.errors import CortenError, KernelRefused
from corten.linux import descriptors, pty, syscalls
from corten.linux.cgroup import Cgroup, host_layout
from corten.linux.cgroup_versions import open_cgroup
from corten.runtime import messages, sandbox
from corten.runtime.logdrivers.container_log import ContainerLog, open_log
from corten.runtime.reactor import READ, Reactor
from corten.runtime.seccomp_cache import filter_for
from corten.runtime.stdio import Session, make_fifo, make_stdin
from corten.spec.runtime import Process, RuntimeConfig, parse_process, parse_runtime_config

EXIT_RECORD = "exit.json"
Reply = Callable[[messages.FromMonitor], None]
_SILENT_DEATH = messages.Failure("start", "container", 0, "the child died before its program ran")


class ExitRecord(msgspec.Struct, frozen=True):
    """What the next daemon needs to know of a container that ended while none was there."""

    exit_code: int
    oom_killed: bool
    finished: int


@dataclass
class LiveProcess:
    """A running init or exec. Never stored."""

    child: sandbox.Child
    session: Session
    reply: Reply
    serial: int
    pid: int  # of the program: the child's, or that which another runtime has made beside it
    killable: int  # pidfd of the program; -1 while another runtime has not made it yet
    pty_master: int = -1
    proceeding: bool = False  # told to execute its program
    started: bool = False  # has done so

    def kill(self) -> None:
        """A program of another runtime that is not made yet is ended by its driver, when its channel closes."""
        if self.killable >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.killable, signal.SIGKILL)

    def close_handles(self) -> None:
        for fd in {self.child.pidfd, self.killable} - {-1}:
            os.close(fd)


@dataclass
class LiveContainer:
    id: str
    config: RuntimeConfig
    group: Cgroup | None
    run_dir: str
    init: LiveProcess
    creator: socket.socket  # the daemon's connection: what it did not get to start dies with it
    runtime: tuple[str, ...] = ()  # the command line of another OCI runtime; empty for the built-in one
    execs: dict[str, LiveProcess] = field(default_factory=dict)
    kept: list[int] = field(default_factory=list)  # descriptors that the daemon's successor will ask for
    spool_folder: str = ""
    lingering: dict[str, Session] = field(default_factory=dict)  # of ended execs whose outputs somebody still has open

    def was_oom_killed(self) -> bool:
        """Another runtime's group has gone by the time that this is asked: its driver has left a mark."""
        if self.runtime:
            from corten.runtime import foreign

            return os.path.exists(f"{self.run_dir}/{foreign.OOM_MARK}")
        return bool(self.group and self.group.oom_kills())


class Monitor:
    """One loop over its listener, its daemons' connections, and its containers' descriptors."""

    def __init__(self, listener: socket.socket, socket_path: str) -> None:
        self._listener, self._socket_path = listener, socket_path
        self._reactor = Reactor()
        self._connections: list[socket.socket] = []
        self._containers: dict[str, LiveContainer] = {}
        self._layout = host_layout()
        self._ever_connected = False
        self._handlers: dict[type, Callable[..., None]] = {
            messages.Start: self._start,
            messages.Exec: self._exec,
            messages.Attach: self._attach,
            messages.Resize: self._resize,
            messages.Signal: self._signal,
            messages.Freeze: self._freeze,
            messages.Discard: self._discard,
            messages.Ping: lambda message, _fds, reply: reply(messages.Done(message.serial)),
            messages.Keep: self._keep,
        }

    def run(self) -> None:
        """Serve until there is neither a container nor a daemon left."""
        self._reactor.watch(self._listener.fileno(), READ, self._accept)
        while self._containers or self._connections or not self._ever_connected:
            self._reactor.run_once()
        with suppress(FileNotFoundError):
            os.unlink(self._socket_path)

    # --- daemons
    def _accept(self, _mask: int) -> None:
        connection, _ = self._listener.accept()
        self._ever_connected = True
        self._connections.append(connection)
        self._reactor.watch(connection.fileno(), READ, lambda _m: self._receive(connection))
        running = [
            messages.RunningContainer(live.id, live.init.pid, live.init.started, list(live.execs))
            for live in self._containers.values()
        ]
        self._send(connection, messages.Hello(os.getpid(), running))

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
        except msgspec.DecodeError:  # a daemon of another version: no reason to lose containers over
            traceback.print_exc()
            _close_all(fds)
            self._hang_up(connection)
            return
        try:
            if isinstance(message, messages.Create):
                self._create(message, fds, reply, connection)
            elif isinstance(message, messages.GiveKept):
                self._send(connection, messages.Done(message.serial), self._find(message.container).kept)
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
            _close_all(fds)  # what no handler has taken: a client must not wait on our copy of its connection

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
            for live in tuple(self._containers.values()):
                if live.creator is connection and not live.init.proceeding:
                    self._abandon(live)

    def _broadcast(self, message: messages.FromMonitor) -> None:
        for connection in tuple(self._connections):
            self._send(connection, message)

    def _find(self, container: str) -> LiveContainer:
        try:
            return self._containers[container]
        except KeyError:
            raise _ended(container) from None

    # --- containers
    def _create(self, message: messages.Create, _fds: list[int], reply: Reply, connection: socket.socket) -> None:
        with open(os.path.join(message.bundle, "config.json"), "rb") as file:
            config = parse_runtime_config(file.read())
        runtime = tuple(message.runtime)
        group = open_cgroup(_group_path(config), self._layout) if runtime else sandbox.prepare_cgroup(config, self._layout)
        ours: list[int] = []
        theirs: list[int] = []
        terminal = bool(config.process and config.process.terminal)
        log: ContainerLog | None = None
        try:
            log = open_log(message.log, self._reactor, lambda: self._log_has_room(message.container))
            outputs, input_fd, stdio = self._open_stdio(message.run_dir, "", ours, theirs, open_stdin=message.open_stdin, terminal=terminal)
            root = config.root.path if config.root else "rootfs"
            if runtime:
                from corten.runtime import foreign

                line = foreign.CommandLine(runtime, message.container, message.run_dir)
                child = foreign.spawn_container(line, config, os.path.join(message.bundle, root), message.rootfs, self._layout, group, stdio)
            else:
                child = sandbox.spawn_container(
                    config, os.path.join(message.bundle, root), tuple(message.rootfs), self._layout, group, stdio,
                    cache_dir=os.path.join(os.path.dirname(self._socket_path), "seccomp"),
                )  # fmt: skip
        except BaseException:
            _close_all(ours)
            if log:
                log.close()
            if group:
                group.remove()
            raise
        finally:
            _close_all(theirs)
        session = Session(
            self._reactor, outputs, input_fd, terminal=terminal, close_input_with_client=message.stdin_once,
            log=log, spool_folder=message.bundle, on_detach=lambda: self._broadcast(messages.Detached(message.container, "")),
        )  # fmt: skip
        process = _live(child, session, reply, message.serial, runtime)
        self._containers[message.container] = LiveContainer(
            message.container, config, group, message.run_dir, process, connection, runtime, spool_folder=message.bundle
        )
        self._watch(message.container, "", process)

    def _log_has_room(self, container: str) -> None:
        live = self._containers.get(container)
        if live:
            live.init.session.client_drained()

    @staticmethod
    def _open_stdio(run_dir: str, prefix: str, ours: list[int], theirs: list[int], *, open_stdin: bool,
                    terminal: bool) -> tuple[dict[str, int], int, tuple[int, int, int] | None]:  # fmt: skip
        """(our readable ends, our input, the process's three). The caller closes `theirs`, and `ours` if the clone fails."""
        if terminal:
            return {}, -1, None
        outputs: dict[str, int] = {}
        ends: list[int] = []
        input_fd = -1
        if open_stdin:
            end, input_fd = make_stdin(f"{run_dir}/{prefix}stdin")
            ours.append(input_fd)
        else:
            end = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        ends.append(end)
        theirs.append(end)
        for stream in ("stdout", "stderr"):
            end, outputs[stream] = make_fifo(f"{run_dir}/{prefix}{stream}")
            ours.append(outputs[stream])
            ends.append(end)
            theirs.append(end)
        return outputs, input_fd, (ends[0], ends[1], ends[2])

    def _watch(self, container: str, exec_id: str, process: LiveProcess) -> None:
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
        os.waitpid(process.child.pid, 0)
        process.close_handles()
        process.session.abandon_clients()
        process.session.close()
        live = self._containers[container]
        if exec_id:
            live.execs.pop(exec_id, None)
            self._unlink_fifos(live.run_dir, f"{exec_id}-")
        else:
            self._take_down(live)
        failure = message if isinstance(message, messages.Failure) else _SILENT_DEATH
        process.reply(msgspec.structs.replace(failure, serial=process.serial))

    def _start(self, message: messages.Start, _fds: list[int], reply: Reply) -> None:
        init = self._find(message.container).init
        init.reply, init.serial, init.proceeding = reply, message.serial, True
        sandbox.proceed(init.child.channel)

    def _ended(self, container: str, exec_id: str, process: LiveProcess) -> None:
        self._reactor.forget(process.child.pidfd)
        _, status = os.waitpid(process.child.pid, 0)
        process.close_handles()
        finished = time.time_ns()
        live = self._containers[container]
        oom_killed = live.was_oom_killed()
        code = os.waitstatus_to_exitcode(status)
        record = ExitRecord(code if code >= 0 else 128 - code, oom_killed, finished)
        if exec_id:
            self._exec_ended(live, exec_id, process.session, record)
        else:
            self._container_ended(live, record)

    def _container_ended(self, live: LiveContainer, record: ExitRecord) -> None:
        if live.group and not _has_own_pids(live.config):
            with suppress(OSError):  # _take_down tries again, and complains
                live.group.kill()  # what it left behind may still write
        live.init.session.drain()
        _write_record(live.run_dir, record)
        # The daemon is told before the clients see the end of their streams: they ask for the exit code next.
        self._broadcast(messages.Exited(live.id, "", record.exit_code, record.oom_killed, record.finished))
        self._take_down(live)
        live.init.session.release_clients()

    def _exec_ended(self, live: LiveContainer, exec_id: str, session: Session, record: ExitRecord) -> None:
        """Its streams go on until what it left behind has closed them (as in Docker), or the container ends."""
        self._broadcast(messages.Exited(live.id, exec_id, record.exit_code, record.oom_killed, record.finished))
        live.execs.pop(exec_id, None)
        self._unlink_fifos(live.run_dir, f"{exec_id}-")
        live.lingering[exec_id] = session
        session.end_with_last_writer(lambda: live.lingering.__delitem__(exec_id))

    def _take_down(self, live: LiveContainer) -> None:
        try:
            # With a pid namespace of its own everything inside is dead by now; with the host's, it is not.
            for exec_id, process in tuple(live.execs.items()):
                self._end_exec(live, exec_id, process)
            if live.group:
                live.group.kill()
                live.group.remove()
            for session in tuple(live.lingering.values()):
                session.close()
        except OSError:  # a group that cannot be removed is one folder too many, and no reason to lose the other containers
            traceback.print_exc()
        self._unlink_fifos(live.run_dir, "")
        _close_all(live.kept)
        del self._containers[live.id]

    def _end_exec(self, live: LiveContainer, exec_id: str, process: LiveProcess) -> None:
        """Kill and reap an exec whose container has ended; say so as if it had ended by itself."""
        process.kill()
        if process.started:
            self._ended(live.id, exec_id, process)
        else:
            self._child_speaks(live.id, exec_id, process)

    @staticmethod
    def _unlink_fifos(run_dir: str, prefix: str) -> None:
        for stream in ("stdin", "stdout", "stderr"):
            with suppress(FileNotFoundError):
                os.unlink(f"{run_dir}/{prefix}{stream}")

    def _keep(self, message: messages.Keep, fds: list[int], reply: Reply) -> None:
        live = self._find(message.container)
        _close_all(live.kept)
        live.kept = list(fds)
        fds.clear()  # ours now
        reply(messages.Done(message.serial))

    def _discard(self, message: messages.Discard, _fds: list[int], reply: Reply) -> None:
        live = self._containers.get(message.container)
        if live and not live.init.started:
            self._abandon(live)
        elif live:
            live.init.kill()
        reply(messages.Done(message.serial))

    def _abandon(self, live: LiveContainer) -> None:
        """Undo a container whose program never ran."""
        child = live.init.child
        live.init.kill()
        self._reactor.forget(child.channel.fileno())
        child.channel.close()
        os.waitpid(child.pid, 0)
        live.init.close_handles()
        live.init.session.close()
        self._take_down(live)

    # --- what goes on in a running container
    def _exec(self, message: messages.Exec, fds: list[int], reply: Reply) -> None:
        live = self._find(message.container)
        process = parse_process(message.process)
        ours: list[int] = []
        theirs: list[int] = []
        prefix = f"{message.exec_id}-"
        try:
            outputs, input_fd, stdio = self._open_stdio(
                live.run_dir, prefix, ours, theirs, open_stdin=message.streams.stdin, terminal=process.terminal
            )
            child = self._spawn_exec(live, message, process, stdio)
        except BaseException:
            _close_all(ours)
            self._unlink_fifos(live.run_dir, prefix)
            raise
        finally:
            _close_all(theirs)
        session = Session(
            self._reactor, outputs, input_fd, terminal=process.terminal, close_input_with_client=True, log=None,
            spool_folder=live.spool_folder, on_detach=lambda: self._broadcast(messages.Detached(message.container, message.exec_id)),
        )  # fmt: skip
        if fds:
            session.attach(socket.socket(fileno=fds.pop(0)), message.streams, message.detach_keys, message.pending)
        running = _live(child, session, reply, message.serial, live.runtime)
        live.execs[message.exec_id] = running
        self._watch(message.container, message.exec_id, running)

    def _spawn_exec(self, live: LiveContainer, message: messages.Exec, process: Process, stdio: tuple[int, int, int] | None) -> sandbox.Child:
        if live.runtime:
            from corten.runtime import foreign

            line = foreign.CommandLine(live.runtime, live.id, live.run_dir)
            return foreign.spawn_exec(line, message.exec_id, process, message.user, message.groups, live.init.pid, self._layout, stdio)
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

    def _attach(self, message: messages.Attach, fds: list[int], reply: Reply) -> None:
        live = self._find(message.container)
        live.init.session.attach(socket.socket(fileno=fds.pop(0)), message.streams, message.detach_keys, message.pending)
        reply(messages.Done(message.serial))

    def _resize(self, message: messages.Resize, _fds: list[int], reply: Reply) -> None:
        live = self._find(message.container)
        process = live.execs.get(message.exec_id) if message.exec_id else live.init
        if process and process.pty_master >= 0:
            pty.set_window_size(process.pty_master, message.height, message.width)
        reply(messages.Done(message.serial))

    def _signal(self, message: messages.Signal, _fds: list[int], reply: Reply) -> None:
        live = self._find(message.container)
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

    def _freeze(self, message: messages.Freeze, _fds: list[int], reply: Reply) -> None:
        live = self._find(message.container)
        if live.runtime:
            self._tell_runtime(live, reply, message.serial, "pause" if message.frozen else "resume", live.id)
            return
        if live.group is None:
            raise KernelRefused(operation="freeze", operand=message.container, errno=95, reason="the container has no cgroup")
        live.group.freeze(message.frozen)
        reply(messages.Done(message.serial))

    def _tell_runtime(self, live: LiveContainer, reply: Reply, serial: int, verb: str, *arguments: str) -> None:
        from corten.runtime import foreign

        driver = foreign.spawn_command(foreign.CommandLine(live.runtime, live.id, live.run_dir), self._layout, verb, *arguments)

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


def _live(child: sandbox.Child, session: Session, reply: Reply, serial: int, runtime: tuple[str, ...]) -> LiveProcess:
    return LiveProcess(child, session, reply, serial, child.pid, -1 if runtime else child.pidfd)


def _group_path(config: RuntimeConfig) -> str:
    return config.linux.cgroups_path if config.linux else ""


def _has_own_pids(config: RuntimeConfig) -> bool:
    """Then nothing outlives its init."""
    namespaces = (config.linux and config.linux.namespaces) or []
    return any(space.type == "pid" and not space.path for space in namespaces)


def _ended(container: str) -> KernelRefused:
    return KernelRefused(operation="find", operand=container, errno=3, reason="the container is not running")


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


def _write_record(run_dir: str, record: ExitRecord) -> None:
    temporary = os.path.join(run_dir, EXIT_RECORD + ".new")
    with open(temporary, "wb") as file:
        file.write(msgspec.json.encode(record))
    os.rename(temporary, os.path.join(run_dir, EXIT_RECORD))


def read_exit_record(run_dir: str) -> ExitRecord | None:
    """The record of a container that has ended, or None."""
    try:
        with open(os.path.join(run_dir, EXIT_RECORD), "rb") as file:
            return msgspec.json.decode(file.read(), type=ExitRecord)
    except FileNotFoundError:
        return None


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
