"""Additional processes in running containers. Their records live as long as the engine (as in Docker)."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass, replace

import msgspec

from corten.engine import bundle, confinement, names, security_options, states
from corten.engine.containers import Containers
from corten.engine.groups import Groups
from corten.engine.records import ContainerRecord
from corten.errors import (
    AmbiguousPrefix,
    CommandNotStarted,
    Conflict,
    CortenError,
    Invalid,
    KernelRefused,
    NoSuchExec,
    NotRunning,
)
from corten.linux import capabilities
from corten.runtime import messages
from corten.runtime.launch import Launch
from corten.spec import runtime as oci
from corten.spec.engine import ExecConfig, ExecStart

_KEPT_AFTER_EXIT = 512
_PF_EXITING = 0x4
_KILL_PATIENCE = 5.0  # seconds that a killed one gets to be reported


class ExecFailed(CommandNotStarted):
    """Docker's prefix differs from that of a failed start."""

    template = "OCI runtime exec failed: exec failed: unable to start container process: {reason}"


@dataclass(frozen=True)
class ExecRecord:
    id: str
    container: str
    config: ExecConfig
    running: bool = False
    exit_code: int | None = None
    pid: int = 0
    started: bool = False
    tools: tuple[str, ...] = ()  # another image's layers, topmost first, as its root


@dataclass(frozen=True)
class Captured:
    """`exit_code` is None if it had to be killed; `cut`: it said more."""

    exit_code: int | None
    output: bytes
    cut: bool


async def _collect(sock: socket.socket, limit: int) -> tuple[bytes, bool]:
    """Read to the end, so that the writer is never held up; keep the beginning."""
    sock.setblocking(False)
    kept = bytearray()
    cut = False
    while data := await asyncio.get_running_loop().sock_recv(sock, 1 << 16):
        cut = cut or len(kept) + len(data) > limit
        kept += data[: limit - len(kept)]
    return bytes(kept), cut


def _alive(pid: int) -> bool:
    """Whether the process runs and is not about to end: its flags (proc(5)) have PF_EXITING from its first step of that on."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return not int(file.read().rsplit(")", 1)[1].split()[6]) & _PF_EXITING
    except (FileNotFoundError, ProcessLookupError):
        return False


def _words(config: ExecConfig) -> str:
    """As Docker puts a command into an event: a program without arguments has a space behind it."""
    command = config.cmd or [""]
    return f"{command[0]} {' '.join(command[1:])}"


class Execs:
    def __init__(self, containers: Containers, launch: Launch, groups: Groups) -> None:
        self._containers, self._launch, self._groups = containers, launch, groups
        self._records: dict[str, ExecRecord] = {}
        self._awaited: dict[str, asyncio.Future[int]] = {}
        self._capabilities = tuple(capabilities.names_of(capabilities.bounding_set()))

    def find(self, exec_id: str) -> ExecRecord:
        """Raises NoSuchExec."""
        record = self._records.get(exec_id)
        if record is None:
            found = [other for other in self._records.values() if exec_id and other.id.startswith(exec_id)]
            if len(found) > 1:
                raise AmbiguousPrefix(name=exec_id)
            if not found:
                raise NoSuchExec(name=exec_id)
            record = found[0]
        return record

    def current(self, exec_id: str) -> ExecRecord:
        """As it is now, whatever waits to be heard. Raises NoSuchExec."""
        record = self.find(exec_id)
        if record.running:
            self._launch.catch_up(record.container)
        return self.find(exec_id)

    def of_container(self, container_id: str) -> list[str]:
        return [record.id for record in self._records.values() if record.container == container_id and record.running]

    def create(self, container: ContainerRecord, config: ExecConfig, *, called: str, tools: tuple[str, ...] = ()) -> ExecRecord:
        if not config.cmd:
            raise Invalid("No exec command specified")
        states.check("exec", container, called)
        self._forget_old()
        record = ExecRecord(names.new_id(), container.id, config, tools=tools)
        self._records[record.id] = record
        self._containers.emit(f"exec_create: {_words(config)}", container, execID=record.id)
        return record

    def _forget_old(self) -> None:
        done = [record.id for record in self._records.values() if record.exit_code is not None]
        for exec_id in done[:-_KEPT_AFTER_EXIT]:
            del self._records[exec_id]

    def check_start(self, exec_id: str) -> ExecRecord:
        """Raises what Docker answers if the exec cannot be started (again)."""
        record = self.find(exec_id)
        if record.started:
            text = f"exec command {record.id} has already run" if record.exit_code is not None else f"exec command {record.id} is already running"
            raise Conflict(text)
        states.check("exec", self._containers.find(record.container))
        return record

    async def start(self, record: ExecRecord, request: ExecStart, client: int | None, streams: messages.Streams,
                    detach_keys: bytes, pending: bytes) -> None:  # fmt: skip
        """Start it; `client` is the connection to hand over, still the caller's to close. Raises ExecFailed."""
        container = self._containers.find(record.container)
        size = request.console_size or record.config.console_size
        process = self._process(container, record.config, size)
        self._records[record.id] = replace(record, started=True, running=True)
        message = messages.Exec(
            0, container.id, record.id, msgspec.json.encode(process), record.config.user or container.config.user,
            container.host_config.group_add or [], streams, detach_keys, pending, list(record.tools),
        )  # fmt: skip
        self._containers.emit(f"exec_start: {_words(record.config)}", container, execID=record.id)
        try:
            result = await self._launch.call(message, () if client is None else (client,))
        except CommandNotStarted as error:
            self._finish(record.id, error.program_exit_code)
            raise ExecFailed(str(error.operands["reason"]), error.program_exit_code) from None
        except CortenError as error:
            self._finish(record.id, 126)
            if isinstance(error, KernelRefused) and error.operation == "look up user":
                raise Invalid(error.reason) from None
            if isinstance(error, KernelRefused) and not _alive(container.state.pid):
                raise NotRunning(id=container.id) from None  # it has ended in between, and the exec with it
            raise
        current = self._records[record.id]
        self._records[record.id] = replace(current, pid=int(result))

    async def capture(self, container: ContainerRecord, config: ExecConfig, *, timeout: float, limit: int) -> Captured:
        """Run a command to its end, or kill it after `timeout` seconds; keep the first `limit` bytes of what it says."""
        record = self.create(container, config, called=container.id)
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._awaited[record.id] = ended
        ours, theirs = socket.socketpair()
        reading = asyncio.ensure_future(_collect(ours, limit))
        try:
            with theirs:
                await self.start(record, ExecStart(), theirs.fileno(), messages.Streams(False, True, True, False), b"", b"")
            await asyncio.wait((ended,), timeout=timeout)
            in_time = ended.done()
            if not in_time:
                with suppress(KernelRefused):  # it has just ended by itself
                    await self._launch.call(messages.Signal(0, container.id, 9, record.id))
                await asyncio.wait((ended,), timeout=_KILL_PATIENCE)
            await asyncio.wait((reading,), timeout=_KILL_PATIENCE)
            output, cut = reading.result() if reading.done() else (b"", False)
            return Captured(ended.result() if in_time else None, output, cut)
        finally:
            del self._awaited[record.id]
            reading.cancel()
            await asyncio.wait((reading,))
            ours.close()

    def _process(self, container: ContainerRecord, config: ExecConfig, size: list[int] | None) -> oci.Process:
        settings = container.host_config
        privileged = config.privileged or settings.privileged
        granted = list(self._capabilities) if privileged else security_options.wanted_capabilities(settings, self._capabilities)
        entries = {entry.partition("=")[0]: entry for entry in bundle.environment(container) if "=" in entry}
        if config.tty:
            entries.setdefault("TERM", "TERM=xterm")
        entries |= {entry.partition("=")[0]: entry for entry in config.env or [] if "=" in entry}
        limits = [oci.Rlimit(f"RLIMIT_{limit.name.upper()}", limit.soft, limit.hard) for limit in settings.ulimits or []]
        return oci.Process(
            args=list(config.cmd or []), cwd=config.working_dir or container.config.working_dir or "/", terminal=config.tty,
            console_size=oci.Box(size[0], size[1]) if config.tty and size and all(size[:2]) else None,
            env=list(entries.values()), capabilities=bundle.process_capabilities(granted), rlimits=limits or None,
            no_new_privileges=security_options.no_new_privileges(settings), apparmor_profile=confinement.profile(settings),
        )  # fmt: skip

    def on_exit(self, notice: messages.Exited) -> None:
        record = self._records.get(notice.exec_id)
        if record:
            self._finish(record.id, notice.exit_code)
            container = self._containers.current(record.container)
            if container:
                self._containers.emit("exec_die", container, execID=record.id, exitCode=str(notice.exit_code))

    def container_ended(self, container_id: str) -> None:
        """Execs die with their container; its monitor may have had no time to say so."""
        for record in tuple(self._records.values()):
            if record.container == container_id and record.running:
                self._finish(record.id, 137)

    def monitor_lost(self, container_id: str) -> None:
        """Nobody could tell how they end: they are killed."""
        record = self._containers.current(container_id)
        for found in self._records.values():
            if record and found.container == container_id and found.running and found.pid and self._groups.has(record, found.pid):
                with suppress(ProcessLookupError):
                    os.kill(found.pid, signal.SIGKILL)
        self.container_ended(container_id)

    def _finish(self, exec_id: str, exit_code: int) -> None:
        awaited = self._awaited.get(exec_id)
        if awaited and not awaited.done():
            awaited.set_result(exit_code)
        self._records[exec_id] = replace(self._records[exec_id], running=False, exit_code=exit_code, started=True)

    async def resize(self, record: ExecRecord, height: int, width: int) -> None:
        if not record.running:
            raise Invalid("exec process is not started")
        await self._launch.call(messages.Resize(0, record.container, record.id, height, width))
