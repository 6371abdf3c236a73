"""How the daemon starts processes: the asyncio side of the launcher and of the monitors. Imported by nobody else.

Owns which monitor serves which container (SHARD each); link.py has the connections.
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

from corten.errors import CortenError, JustEnded, KernelRefused, MonitorSilent
from corten.runtime import messages
from corten.runtime.interpreter import readonly_view
from corten.runtime.link import PATIENCE, Link, Notice

SHARD = 16
Late = asyncio.Future[list[messages.RunningContainer]]


async def _take_back(link: Link, request: messages.ToMonitor) -> None:
    """Its caller has given up: when the monitor comes back and reads the request, what undoes it comes next."""
    undo: messages.ToMonitor
    if isinstance(request, messages.Create | messages.Start | messages.StartOnceReady):
        undo = messages.Discard(0, request.container)
    elif isinstance(request, messages.Freeze) and request.frozen:
        undo = messages.Freeze(0, request.container, frozen=False)
    elif isinstance(request, messages.Exec):
        undo = messages.Signal(0, request.container, 9, request.exec_id)
    else:
        return
    with suppress(CortenError):  # it has died, or its queue is full
        await link.post(undo)


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
        self._launcher = Link(process.sock, messages.decode_from_launcher, lambda _notice: None, self._launcher_lost, pings=False)
        self._on_notice, self._on_monitor_lost = on_notice, on_monitor_lost
        self._monitors: dict[str, Link] = {}
        self._loads: dict[str, set[str]] = {}
        self._cloned: dict[str, Callable[[int], None]] = {}  # who wants to know of a container's pid
        self._terminals: dict[str, int] = {}  # copies, which outlive the monitor that has the container
        self._numbers = itertools.count(1)
        self._spawning: asyncio.Task[str] | None = None
        self._asking: set[asyncio.Future[str]] = set()

    def _launcher_lost(self) -> None:
        raise SystemExit("the launcher has died; containers run on, start cortend again")

    async def run_job(self, entry: str, argument: bytes, fds: Sequence[int] = ()) -> bytes:
        """Run a job in a child of the launcher. Raises the error its Failure stands for."""
        done = await self._launcher.call(messages.RunJob(0, entry, argument), fds)
        return done.result if isinstance(done, messages.Done) else b""

    async def adopt(self) -> tuple[list[messages.RunningContainer], list[Late]]:
        """Connect to the monitors that an earlier daemon has left. Returns what they serve, and who has not said so yet."""
        greetings: dict[str, Late] = {}
        for name in sorted(os.listdir(self._directory)):
            path = os.path.join(self._directory, name)
            if not name.endswith(".sock"):
                continue
            try:
                greetings[path] = self._connect(path)
            except OSError:
                os.unlink(path)  # its monitor died
        if greetings:
            await asyncio.wait(greetings.values(), timeout=PATIENCE)
        for path, greeting in greetings.items():
            self._monitors[path].silent = not greeting.done()
        found = [running for greeting in greetings.values() if greeting.done() for running in greeting.result()]
        return found, [greeting for greeting in greetings.values() if not greeting.done()]

    def _connect(self, path: str) -> Late:
        """What the monitor serves, once it says so; nothing, if it dies before."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        greeting: Late = asyncio.get_running_loop().create_future()

        def notice(message: Notice | messages.Hello | messages.Cloned) -> None:
            if isinstance(message, messages.Cloned):
                if told := self._cloned.get(message.container):
                    told(message.pid)
                return
            if isinstance(message, messages.Hello):
                self._loads[path] = {running.container for running in message.containers}
                greeting.set_result(message.containers)
                return
            if isinstance(message, messages.Exited) and not message.exec_id:
                self._loads[path].discard(message.container)
                self._drop_terminal(message.container)
            self._on_notice(message)

        def lost() -> None:
            self._lost(path)
            if not greeting.done():
                greeting.set_result([])

        self._monitors[path] = Link(sock, messages.decode_from_monitor, notice, lost, pings=True)
        return greeting

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

    def anticipate(self) -> None:
        """A container is about to be created: whether a monitor is there for it is asked now, while its files are written."""
        if not any(len(load) < SHARD and path in self._monitors and self._monitors[path].fresh for path, load in self._loads.items()):
            asking = asyncio.ensure_future(self._monitor_with_room())
            self._asking.add(asking)
            asking.add_done_callback(self._asked)

    def _asked(self, asking: asyncio.Future[str]) -> None:
        """Whoever creates the container asks again, and is told what is wrong."""
        self._asking.discard(asking)
        if not asking.cancelled():
            asking.exception()

    async def _monitor_with_room(self, wanted: type[messages.ToMonitor] = messages.Create) -> str:
        while True:
            for path, load in tuple(self._loads.items()):
                link = self._monitors.get(path)
                if link is None or link.silent or len(load) >= SHARD or not link.knows(wanted):
                    continue
                with suppress(MonitorSilent, KernelRefused):
                    await link.check()
                    return path
            if self._spawning is None or self._spawning.done():
                self._spawning = asyncio.ensure_future(self._spawn())
            await asyncio.shield(self._spawning)

    async def create(self, request: messages.Create, on_cloned: Callable[[int], None] | None = None) -> messages.Created:
        """Set a container up until just before its program. A monitor that turns out to be silent is passed over once.

        `on_cloned` is told the pid as soon as there are namespaces, if the request says so. Whoever asks for that has to do with a sandbox that
        is only begun, so it is for him to pass over a silent monitor: MonitorSilent is raised.
        """
        if on_cloned:
            self._cloned[request.container] = on_cloned
        try:
            return await self._create(request)
        except MonitorSilent:
            if on_cloned:
                raise
            return await self._create(request)
        finally:
            self._cloned.pop(request.container, None)

    async def take_over(self, request: messages.TakeOver, fds: Sequence[int]) -> None:
        """Have another monitor look after a running container. Raises KernelRefused if it cannot, MonitorSilent."""
        path = await self._monitor_with_room(messages.TakeOver)
        self._loads[path].add(request.container)
        try:
            await self._monitors[path].call(request, fds)
        except BaseException:
            self.forget(request.container)
            raise

    async def hold_terminal(self, container: str) -> None:
        """Keep a copy of a started container's terminal: should its monitor be killed, the program must not be hung up on."""
        for path, load in self._loads.items():
            if container in load and self._monitors[path].knows(messages.GiveTerminal):
                fds = (await self._monitors[path].exchange(messages.GiveTerminal(0, container)))[1]
                self._drop_terminal(container)
                self._terminals.update((container, fd) for fd in fds)
                return

    def terminal(self, container: str) -> list[int]:
        """Another copy of it, the caller's; empty if none is held."""
        held = self._terminals.get(container)
        return [] if held is None else [os.dup(held)]

    def _drop_terminal(self, container: str) -> None:
        held = self._terminals.pop(container, None)
        if held is not None:
            os.close(held)

    async def _create(self, request: messages.Create) -> messages.Created:
        path = await self._monitor_with_room()
        link = self._monitors[path]
        self._loads[path].add(request.container)
        try:
            created = await link.call(request)
        except CortenError as error:
            self.forget(request.container)
            if isinstance(error, MonitorSilent):
                await _take_back(link, request)
            raise
        if not isinstance(created, messages.Created):
            raise TypeError(f"monitor answered {created!r} to Create")
        return created

    def serves(self, container: str) -> bool:
        """Whether a monitor has it, set up or running."""
        return any(container in load for load in self._loads.values())

    def holds_starts(self, container: str) -> bool:
        """Whether the monitor that sets the container up takes StartOnceReady."""
        return any(container in load and self._monitors[path].knows(messages.StartOnceReady) for path, load in self._loads.items())

    async def call(self, request: messages.ToMonitor, fds: Sequence[int] = ()) -> bytes:
        """Send any other request to the monitor of its container. Raises MonitorOlder, and MonitorSilent, also if it may be one that has never answered."""
        for path, load in self._loads.items():
            if request.container in load:
                link = self._monitors[path]
                link.check_knows(request)
                try:
                    done = await link.call(request, fds)
                except MonitorSilent:
                    await _take_back(link, request)
                    raise
                return done.result if isinstance(done, messages.Done) else b""
        for path, link in self._monitors.items():
            if path not in self._loads:
                await link.ask()
        raise JustEnded(operation="find", operand=request.container, errno=3, reason="no monitor serves the container")

    def catch_up(self, container: str) -> None:
        """Hear what the container's monitor has said by now."""
        for path, load in tuple(self._loads.items()):
            if container in load:
                self._monitors[path].catch_up()

    async def kept(self, container: str) -> list[int]:
        """Copies of the descriptors that an earlier daemon left with the container's monitor; the caller's."""
        for path, load in self._loads.items():
            if container in load:
                return (await self._monitors[path].exchange(messages.GiveKept(0, container)))[1]
        return []

    def forget(self, container: str) -> None:
        """A start that failed: its place in the shard is free again."""
        for load in self._loads.values():
            load.discard(container)
        self._drop_terminal(container)

    def close(self) -> None:
        """Let go of every connection. Monitors without containers end by themselves; the others stay."""
        for link in self._monitors.values():
            link.close()
        for container in tuple(self._terminals):
            self._drop_terminal(container)
        self._launcher.close()
        self._process.stop()
