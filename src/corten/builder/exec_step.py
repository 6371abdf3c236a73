"""RUN as a step: a container of the built-in runtime over a snapshot, with no record in the engine; what it changed becomes the layer."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import msgspec

from corten.builder import ingredients, stubs
from corten.builder.agent_socket import forwarded
from corten.builder.cache_mounts import CacheMounts
from corten.builder.file_step import put_into
from corten.builder.graph import Bind, Cache, Exec, Secret, Ssh, Tmpfs
from corten.builder.hosting import Private, StepHost, StepSettings
from corten.builder.in_flight import ended
from corten.builder.ingredients import Ingredients
from corten.builder.results import MadeLayer, Result
from corten.builder.step_mounts import Bound, bind_mount
from corten.builder.workshop import Workshop
from corten.errors import CortenError, Invalid, KernelRefused
from corten.runtime import messages
from corten.runtime.launch import Launch
from corten.spec.runtime import Mount

_STREAMS = {1: "stdout", 2: "stderr"}
_HEAD = struct.Struct(">BxxxI")
_CHUNK = 1 << 16
_LET_GO = 10.0  # seconds that a killed step gets to be taken down
HOSTNAME = "buildkitsandbox"  # BuildKit's: a name of the host's own would end up in layers
Output = Callable[[str, bytes], None]


class StepFailed(Invalid):
    """Docker's text; `code` is what the classic front puts into errorDetail."""

    template = "The command '{command}' returned a non-zero code: {code}"


class NoSuchSecret(Invalid):
    template = "secret {id}: not found: the build was given none of that id"


@dataclass(frozen=True)
class ExecWork:
    """An Exec vertex with its inputs; `bound` are its bind mounts looked up."""

    op: Exec
    base: Result
    bound: Sequence[Bound]
    time: int
    network: str


class ExecSteps:
    """Runs steps. `on_exit` and `on_lost` are told what the monitors say of containers that may be steps."""

    def __init__(self, workshop: Workshop, launch: Launch, host: StepHost, cache_mounts: CacheMounts) -> None:
        self._workshop, self._launch, self._host, self._cache_mounts = workshop, launch, host, cache_mounts
        self._ends: dict[str, asyncio.Future[int]] = {}

    def on_exit(self, notice: messages.Exited) -> bool:
        """Whether it was a step that ended."""
        end = self._ends.get(notice.container)
        if end and not end.done():
            end.set_result(notice.exit_code)
        return end is not None

    def on_lost(self, container_ids: Sequence[str]) -> None:
        for step in container_ids:
            end = self._ends.get(step)
            if end and not end.done():
                end.set_exception(CortenError("the process that watched over the step has died; build again"))

    async def make(self, work: ExecWork, private: Private, started: Callable[[str], None], output: Output) -> MadeLayer:
        """Run the step and keep what it changed. Raises StepFailed, and what the kernel or a network refuses; nothing is left then."""
        workshop = self._workshop
        async with workshop.snapshot() as step:
            folders = workshop.folders(work.base.chain)
            os.mkdir(workshop.layout.run(step), 0o700)
            async with self._mounts(step, work, private) as (mounts, secret_env):
                stub = workshop.scratch(step, "stubs")
                targets = [(mount.destination, _is_folder(mount)) for mount in mounts]
                await asyncio.to_thread(stubs.fill, stub, folders, targets)
                env = [*work.op.env, *work.op.proxies, *secret_env]
                settings = StepSettings(step, work.op, work.network, HOSTNAME, env, mounts, workshop.root(step))
                started(step)
                code = await self._run(settings, [stub, *folders], output)
            if code:
                raise StepFailed(command=" ".join(work.op.args), code=code)
            return await workshop.seal(step, folders, work.time)

    # --- the sandbox
    async def _run(self, settings: StepSettings, below: Sequence[str], output: Output) -> int:
        """The program's exit code."""
        step, run_dir = settings.id, self._workshop.layout.run(settings.id)
        end = self._ends[step] = asyncio.get_running_loop().create_future()
        started = False
        try:
            config = self._host.prepare(settings)
            with open(f"{run_dir}/config.json", "wb") as file:
                file.write(msgspec.json.encode(config))
            quiet = messages.LogSettings("none")
            created = await self._launch.create(
                messages.Create(0, step, run_dir, run_dir, self._workshop.mounts(step, below), quiet, open_stdin=False, stdin_once=False)
            )
            started = True
            async with self._listening(step, output):
                await self._host.attach(step, f"/proc/{created.pid}/ns/net")
                await self._launch.call(messages.Start(0, step))
                code: int = await asyncio.shield(end)  # a cancelled step has still to end
                return code
        finally:
            taking_down = asyncio.ensure_future(self._take_down(step, end, started=started))
            await ended(taking_down)  # the folders are removed next, and the monitor writes the step's end into one of them
            taking_down.result()

    @asynccontextmanager
    async def _listening(self, step: str, output: Output) -> AsyncIterator[None]:
        """The step's output goes to `output` until there is no more."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        streams = messages.Streams(stdin=False, stdout=True, stderr=True, framed=True)
        try:
            await self._launch.call(messages.Attach(0, step, streams, b"", b""), (theirs.fileno(),))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        reading = asyncio.ensure_future(_read_frames(ours, output))
        try:
            yield
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            ours.close()

    async def _take_down(self, step: str, end: asyncio.Future[int], *, started: bool) -> None:
        if started and not end.done():
            with suppress(KernelRefused):  # its monitor has gone
                await self._launch.call(messages.Discard(0, step))
                await asyncio.wait((end,), timeout=_LET_GO)
        self._launch.forget(step)
        self._host.release(step)
        del self._ends[step]
        if end.done() and not end.cancelled():
            end.exception()

    # --- its mounts
    @asynccontextmanager
    async def _mounts(self, step: str, work: ExecWork, private: Private) -> AsyncIterator[tuple[list[Mount], list[str]]]:
        """(mounts, variables) that RUN --mount asks for."""
        mounts: list[Mount] = []
        env: list[str] = []
        bound = {bound.target: bound for bound in work.bound}
        async with AsyncExitStack() as stack:
            for number, mount in enumerate(work.op.mounts):
                if isinstance(mount, Bind):
                    folder = self._workshop.scratch(step, f"bind-{number}")
                    mounts.append(await asyncio.to_thread(bind_mount, bound[mount.target], folder, readonly=mount.readonly))
                elif isinstance(mount, Cache):
                    seed = partial(self._seed, bound[mount.target]) if mount.target in bound else None
                    path = await stack.enter_async_context(self._cache_mounts.use(mount, seed))
                    mounts.append(Mount(mount.target, "bind", path, ["rbind", "rprivate", "ro" if mount.readonly else "rw"]))
                elif isinstance(mount, Tmpfs):
                    size = [f"size={mount.size}"] if mount.size else []
                    mounts.append(Mount(mount.target, "tmpfs", "tmpfs", ["nosuid", "nodev", "mode=1777", *size]))
                elif isinstance(mount, Secret):
                    self._secret(step, number, mount, private, mounts, env)
                else:
                    await self._agent(step, number, mount, private, stack, mounts, env)
            yield mounts, env

    async def _seed(self, bound: Bound, folder: str) -> None:
        """What a cache mount begins with."""
        await put_into(folder, await asyncio.to_thread(bound.source_of_all), self._workshop)

    def _secret(self, step: str, number: int, mount: Secret, private: Private, mounts: list[Mount], env: list[str]) -> None:
        """Its file lies in the run folder, which is memory, and goes with the step."""
        data = private.secrets.get(mount.id)
        if data is None:
            if mount.required:
                raise NoSuchSecret(id=mount.id)
            return
        if mount.env:
            env.append(f"{mount.env}={data.decode('utf-8', 'surrogateescape')}")
        if mount.target:
            path = f"{self._workshop.layout.run(step)}/secret-{number}"
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(data)
                os.fchown(file.fileno(), mount.uid, mount.gid)
                os.fchmod(file.fileno(), mount.mode)
            mounts.append(Mount(mount.target, "bind", path, ["bind", "ro", "rprivate"]))

    async def _agent(self, step: str, number: int, mount: Ssh, private: Private, stack: AsyncExitStack, mounts: list[Mount], env: list[str]) -> None:
        if mount.id not in private.agents and not mount.required:
            return
        agent, folder = private.agent(mount.id), self._workshop.layout.run(step)
        path = await stack.enter_async_context(forwarded(agent, folder, f"agent-{number}", mount.mode, (mount.uid, mount.gid)))
        mounts.append(Mount(mount.target, "bind", path, ["bind", "rprivate"]))
        if not any(entry.startswith("SSH_AUTH_SOCK=") for entry in env):
            env.append(f"SSH_AUTH_SOCK={mount.target}")


def _is_folder(mount: Mount) -> bool:
    return mount.type != "bind" or os.path.isdir(mount.source)


async def _read_frames(sock: socket.socket, output: Output) -> None:
    """Docker's frames, to the end of the stream."""
    loop, buffer = asyncio.get_running_loop(), bytearray()
    while data := await loop.sock_recv(sock, _CHUNK):
        buffer += data
        at = 0
        while len(buffer) - at >= _HEAD.size:
            stream, size = _HEAD.unpack_from(buffer, at)
            if len(buffer) - at - _HEAD.size < size:
                break
            at += _HEAD.size
            output(_STREAMS.get(stream, "stderr"), bytes(buffer[at : at + size]))
            at += size
        del buffer[:at]


def ingredients_of(work: ExecWork) -> Ingredients:
    return ingredients.of_exec(work.op, work.base.chain, work.time, [(bound.target, bound.digest) for bound in work.bound])
