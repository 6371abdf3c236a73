"""How the daemon starts processes: the asyncio side of the launcher and of the monitors. Imported by nobody else.

Owns the connections, the pairing of replies with requests, and which monitor serves which container (SHARD each).
Promises: every call either returns the reply or raises the error that a Failure stands for; a lost connection fails
all that waits on it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from corten.errors import CommandNotStarted, CortenError, KernelRefused, OtherCommandNotStarted, OtherRuntimeRefused
from corten.linux import descriptors
from corten.runtime import messages
from corten.runtime.interpreter import readonly_view

SHARD = 16
Notice = messages.Exited | messages.Detached


def error_for(failure: messages.Failure) -> CortenError:
    if failure.operation == messages.OTHER_RUNTIME:
        return OtherCommandNotStarted(failure.text, failure.exit_code) if failure.exit_code else OtherRuntimeRefused(reason=failure.text)
    if failure.exit_code:
        return CommandNotStarted(failure.text, failure.exit_code)
    return KernelRefused(
        operation=failure.operation, operand=failure.operand, errno=failure.errno, reason=failure.text
    )


class _Link:
    """One SOCK_SEQPACKET connection with requests and replies paired by serial."""

    def __init__(self, sock: socket.socket, decode: Callable[[bytes], messages.FromMonitor],
                 on_notice: Callable[[Notice | messages.Hello], None], on_lost: Callable[[], None]) -> None:  # fmt: skip
        sock.setblocking(False)
        self._sock, self._decode = sock, decode
        self._on_notice, self._on_lost = on_notice, on_lost
        self._serials = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[messages.Done | messages.Created]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data, fds = descriptors.receive_packet(self._sock)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        for fd in fds:
            os.close(fd)
        if not data:
            self.close()
            self._on_lost()
            return
        message = self._decode(data)
        if isinstance(message, messages.Exited | messages.Detached | messages.Hello):
            self._on_notice(message)
            return
        future = self._waiting.pop(message.serial, None)
        if future and not future.done():
            if isinstance(message, messages.Failure):
                future.set_exception(error_for(message))
            else:
                future.set_result(message)

    async def call(self, message: messages.ToMonitor | messages.ToLauncher, fds: Sequence[int] = ()) -> messages.Done | messages.Created:
        serial = next(self._serials)
        future: asyncio.Future[messages.Done | messages.Created] = self._loop.create_future()
        self._waiting[serial] = future
        packet = messages.encode(msgspec.structs.replace(message, serial=serial))
        held = [os.dup(fd) for fd in fds]  # the caller may close its own at once, also while this has to wait
        try:
            await self._send(packet, held, type(message).__name__)
        except KernelRefused:
            self._waiting.pop(serial, None)
            raise
        finally:
            for fd in held:
                os.close(fd)
        return await future

    async def _send(self, packet: bytes, fds: Sequence[int], what: str) -> None:
        while True:
            try:
                descriptors.send_packet(self._sock, packet, fds)
                return
            except BlockingIOError:
                await asyncio.sleep(0.001)
            except OSError as error:
                raise KernelRefused(operation="send", operand=what, errno=error.errno or 0, reason="the other process has gone") from None

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
        lost = KernelRefused(operation="wait", operand="reply", errno=0, reason="the other process has gone")
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(lost)
        self._waiting.clear()


class LauncherProcess:
    """The launcher before there is an event loop: start it before any thread exists."""

    def __init__(self, jobs: dict[str, str]) -> None:
        """`jobs` maps a name to `module:function`; the launcher's children import them."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        view = readonly_view()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", "corten.runtime.launcher", str(theirs.fileno()),
             *(f"{name}={target}" for name, target in jobs.items())],
            executable=f"/proc/self/fd/{view}", pass_fds=(theirs.fileno(), view), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        os.close(view)
        self.sock = ours

    def stop(self) -> None:
        """It ends by itself when the connection closes; wait for that."""
        self.sock.close()
        self._process.wait()


class Launch:
    """Jobs and containers, started through the launcher and kept by the monitors."""

    def __init__(self, process: LauncherProcess, exec_root: str, on_notice: Callable[[Notice], None],
                 on_monitor_lost: Callable[[list[str]], None]) -> None:  # fmt: skip
        self._process = process
        self._directory = os.path.join(exec_root, "monitors")
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        self._launcher = _Link(process.sock, messages.decode_from_launcher, lambda _notice: None, self._launcher_lost)
        self._on_notice, self._on_monitor_lost = on_notice, on_monitor_lost
        self._monitors: dict[str, _Link] = {}
        self._loads: dict[str, set[str]] = {}
        self._numbers = itertools.count(1)
        self._spawning: asyncio.Task[str] | None = None

    def _launcher_lost(self) -> None:
        raise SystemExit("the launcher has died; containers run on, start cortend again")

    async def run_job(self, entry: str, argument: bytes, fds: Sequence[int] = ()) -> bytes:
        """Run a job in a child of the launcher. Raises the error its Failure stands for."""
        done = await self._launcher.call(messages.RunJob(0, entry, argument), fds)
        return done.result if isinstance(done, messages.Done) else b""

    async def adopt(self) -> list[messages.RunningContainer]:
        """Connect to the monitors that an earlier daemon has left; returns what they serve."""
        found: list[messages.RunningContainer] = []
        for name in sorted(os.listdir(self._directory)):
            if not name.endswith(".sock"):
                continue
            path = os.path.join(self._directory, name)
            try:
                hello = await self._connect(path)
            except OSError:
                os.unlink(path)  # its monitor died
                continue
            found.extend(hello.containers)
        return found

    async def _connect(self, path: str) -> messages.Hello:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        greeting: asyncio.Future[messages.Hello] = asyncio.get_running_loop().create_future()

        def notice(message: Notice | messages.Hello) -> None:
            if isinstance(message, messages.Hello):
                greeting.set_result(message)
                return
            if isinstance(message, messages.Exited) and not message.exec_id:
                self._loads[path].discard(message.container)
            self._on_notice(message)

        self._monitors[path] = _Link(sock, messages.decode_from_monitor, notice, lambda: self._lost(path))
        hello = await greeting
        self._loads[path] = {running.container for running in hello.containers}
        return hello

    def _lost(self, path: str) -> None:
        del self._monitors[path]
        with suppress(FileNotFoundError):
            os.unlink(path)
        self._on_monitor_lost(sorted(self._loads.pop(path, set())))

    async def _spawn(self) -> str:
        while True:
            path = os.path.join(self._directory, f"{next(self._numbers)}.sock")
            if not os.path.exists(path):
                break
        await self._launcher.call(messages.SpawnMonitor(0, path, os.path.join(self._directory, "monitor.log")))
        await self._connect(path)
        return path

    async def warm(self) -> None:
        """Have a monitor with room ready, so that the next start need not wait for one."""
        await self._monitor_with_room()

    async def _monitor_with_room(self) -> str:
        while True:
            for path, load in self._loads.items():
                if len(load) < SHARD and path in self._monitors:
                    return path
            if self._spawning is None or self._spawning.done():
                self._spawning = asyncio.ensure_future(self._spawn())
            await asyncio.shield(self._spawning)

    async def create(self, request: messages.Create) -> messages.Created:
        """Set a container up until just before its program."""
        path = await self._monitor_with_room()
        self._loads[path].add(request.container)
        try:
            created = await self._monitors[path].call(request)
        except CortenError:
            if path in self._loads:
                self._loads[path].discard(request.container)
            raise
        if not isinstance(created, messages.Created):
            raise TypeError(f"monitor answered {created!r} to Create")
        return created

    async def call(self, request: messages.ToMonitor, fds: Sequence[int] = ()) -> bytes:
        """Send any other request to the monitor of its container."""
        for path, load in self._loads.items():
            if request.container in load:
                done = await self._monitors[path].call(request, fds)
                return done.result if isinstance(done, messages.Done) else b""
        raise KernelRefused(operation="find", operand=request.container, errno=3, reason="no monitor serves the container")

    def forget(self, container: str) -> None:
        """A start that failed: its place in the shard is free again."""
        for load in self._loads.values():
            load.discard(container)

    def close(self) -> None:
        """Let go of every connection. Monitors without containers end by themselves; the others stay."""
        for link in self._monitors.values():
            link.close()
        self._launcher.close()
        self._process.stop()
