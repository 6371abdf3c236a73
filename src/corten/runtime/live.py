"""A running container and a running process as a monitor holds them: handles, never stored, never sent."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from corten.errors import KernelRefused
from corten.linux import pidfd
from corten.linux.cgroup import Cgroup
from corten.runtime import messages, sandbox
from corten.runtime.stdio import Session
from corten.spec.runtime import RuntimeConfig

Reply = Callable[[messages.FromMonitor], None]


UNKNOWN_EXIT_CODE = 255


@dataclass
class LiveProcess:
    """A running init or exec. Never stored. `ours`: it is a child of this process, which only one taken over is not."""

    child: sandbox.Child
    session: Session
    reply: Reply
    serial: int
    pid: int  # of the program: the child's, or that which another runtime has made beside it
    killable: int  # pidfd of the program; -1 while another runtime has not made it yet
    pty_master: int = -1
    ready: bool = False  # its sandbox is set up
    held: tuple[messages.StartOnceReady, Reply] | None = None  # until it is ready
    proceeding: bool = False  # told to execute its program
    started: bool = False  # has done so
    ours: bool = True

    def kill(self) -> None:
        """A program of another runtime that is not made yet is ended by its driver, when its channel closes."""
        if self.killable >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.killable, signal.SIGKILL)

    def reap(self) -> int:
        """The exit code, as a shell tells it, of a program that has ended."""
        status = os.waitpid(self.child.pid, 0)[1] if self.ours else pidfd.exit_status(self.child.pidfd, self.child.pid)
        if status is None:
            return UNKNOWN_EXIT_CODE
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

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
    folder: int = -1  # descriptor of run_dir as it was at the set-up

    def is_superseded(self) -> bool:
        """Whether a daemon that waited in vain has had the container made anew by another monitor: then group and FIFOs are that one's."""
        try:
            now = os.stat(self.run_dir)
        except FileNotFoundError:
            return False
        return self.folder >= 0 and not os.path.samestat(os.fstat(self.folder), now)

    def was_oom_killed(self) -> bool:
        """Another runtime's group has gone by the time that this is asked: its driver has left a mark."""
        if self.runtime:
            from corten.runtime import foreign

            return os.path.exists(f"{self.run_dir}/{foreign.OOM_MARK}")
        return bool(self.group and self.group.oom_kills())


def live_process(child: sandbox.Child, session: Session, reply: Reply, serial: int, runtime: tuple[str, ...]) -> LiveProcess:
    return LiveProcess(child, session, reply, serial, child.pid, -1 if runtime else child.pidfd)


def not_running(container: str) -> KernelRefused:
    return KernelRefused(operation="find", operand=container, errno=3, reason="the container is not running")
