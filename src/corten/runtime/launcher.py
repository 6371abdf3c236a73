"""The launcher: everything that must fork is forked from here, with its imports already warm.

Started by launch.py as `python -m corten.runtime.launcher FD NAME=MODULE:FUNCTION ...`, from a read-only view of the
interpreter. Single-threaded; imports nothing heavy (asyncio, http, ssl, sqlite3: each fork would pay for them).
A job is a function (argument, descriptors) -> result, run in a child that dies with the launcher.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from corten.linux import descriptors, syscalls
from corten.linux.memory import give_back
from corten.runtime import messages, monitor
from corten.runtime.interpreter import make_undumpable
from corten.runtime.reactor import READ, Reactor

Job = Callable[[bytes, list[int]], bytes]


class Launcher:
    def __init__(self, daemon: socket.socket, jobs: dict[str, str]) -> None:
        self._daemon, self._jobs = daemon, jobs
        self._reactor = Reactor()

    def run(self) -> None:
        """Serve until the daemon has gone."""
        self._alive = True
        self._reactor.watch(self._daemon.fileno(), READ, self._receive)
        while self._alive:
            self._reactor.run_once()

    def _receive(self, _mask: int) -> None:
        try:
            data, fds = descriptors.receive_packet(self._daemon)
        except OSError:  # it died with a job's answer unread
            data, fds = b"", []
        if not data:
            self._alive = False
            return
        message = messages.decode_for_launcher(data)
        try:
            if isinstance(message, messages.SpawnMonitor):
                self._spawn_monitor(message)
            else:
                self._run_job(message, fds)
        except OSError as error:
            self._reply(messages.failure_from(error, type(message).__name__, serial=message.serial))
        finally:
            for fd in fds:
                os.close(fd)

    def _reply(self, message: messages.FromLauncher) -> None:
        with suppress(OSError):  # the daemon has gone; run() ends at its end of file
            descriptors.send_packet(self._daemon, messages.encode(message))

    def _spawn_monitor(self, message: messages.SpawnMonitor) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with suppress(FileNotFoundError):
            os.unlink(message.socket_path)
        listener.bind(message.socket_path)
        os.chmod(message.socket_path, 0o600)
        listener.listen(8)
        middle = os.fork()
        if middle == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            descriptors.close_all_but({0, 1, 2, listener.fileno()})
            monitor.run_monitor(listener, message.socket_path, message.log_path)
        os.waitpid(middle, 0)
        listener.close()
        self._reply(messages.Done(message.serial))

    def _run_job(self, message: messages.RunJob, fds: list[int]) -> None:
        pid = os.fork()
        if pid == 0:
            _job_child(self._daemon, self._jobs[message.entry], message, fds)
        pidfd = os.pidfd_open(pid)
        self._reactor.watch(pidfd, READ, lambda _mask: self._job_ended(pid, pidfd, message))

    def _job_ended(self, pid: int, pidfd: int, message: messages.RunJob) -> None:
        self._reactor.forget(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code:
            self._reply(messages.Failure(message.entry, "worker", 0, f"the worker died (status {code})", 0, message.serial))


def _job_child(daemon: socket.socket, target: str, message: messages.RunJob, fds: list[int]) -> NoReturn:
    """Answers the daemon itself, so that a result passes through no other process."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    descriptors.close_all_but({0, 1, 2, daemon.fileno(), *fds})
    reply: messages.FromLauncher
    try:
        reply = messages.Done(message.serial, _load(target)(message.argument, fds))
    except BaseException as error:
        if not isinstance(error, OSError) and not getattr(type(error), "expected", False):
            traceback.print_exc()
        reply = messages.failure_from(error, message.entry, serial=message.serial)
    try:
        descriptors.send_packet(daemon, messages.encode(reply))
    except OSError:
        os._exit(1)
    os._exit(0)


def _load(target: str) -> Job:
    """Import a job where it runs: what it needs (tar, compression) no monitor should carry."""
    module, _, function = target.partition(":")
    job: Job = getattr(importlib.import_module(module), function)
    return job


def main(arguments: list[str]) -> None:
    syscalls.set_process_name("corten-launcher")
    make_undumpable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's ctrl-c is the daemon's to handle
    jobs = dict(specification.split("=", 1) for specification in arguments[1:])
    daemon = socket.socket(fileno=int(arguments[0]))
    gc.collect()
    gc.freeze()  # shared pages stay shared: the collector's marks would copy them
    gc.disable()
    give_back()
    Launcher(daemon, jobs).run()


if __name__ == "__main__":
    main(sys.argv[1:])
