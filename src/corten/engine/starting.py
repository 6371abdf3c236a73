"""Start: lease, bundle, sandbox, network, clients, program; every step that fails undoes what it did."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import shutil
import signal
from contextlib import suppress

import msgspec

from corten.engine import health, states
from corten.engine.attaching import Attaching
from corten.engine.containers import Containers, replace_state
from corten.engine.endpoints import Endpoints
from corten.engine.mounting import Mounting
from corten.engine.preparing import Preparing
from corten.engine.probing import Probing
from corten.engine.records import ContainerRecord, Restarts
from corten.engine.removal import Removal
from corten.errors import CommandNotStarted, CortenError, Invalid, KernelRefused, MonitorSilent, UnknownUserName
from corten.runtime import messages
from corten.runtime.launch import Launch
from corten.spec.timestamps import now_ns, rfc3339_nano
from corten.store.layout import Layout

# Operations that do what the client says, value and all: when the kernel refuses, the value is wrong.
_AS_ASKED = {"WriteSysctl": "cannot set sysctl", "SetHostname": "sethostname", "SetDomainname": "setdomainname", "SetRlimit": "error setting rlimit"}
_log = logging.getLogger("corten.engine")


class Starting:
    def __init__(self, containers: Containers, endpoints: Endpoints, layout: Layout, launch: Launch,
                 mounting: Mounting, preparing: Preparing, attaching: Attaching, removal: Removal,
                 probing: Probing) -> None:  # fmt: skip
        self._containers, self._endpoints, self._layout, self._launch = containers, endpoints, layout, launch
        self._mounting, self._preparing, self._attaching, self._removal = mounting, preparing, attaching, removal
        self._probing = probing

    async def start(self, record: ContainerRecord) -> None:
        """For a client. Raises NotModified if it runs, CommandNotStarted if its program cannot be executed."""
        async with self._containers.lock(record.id):
            record = self._containers.find(record.id)
            states.check("start", record)
            if record.restarts != Restarts():
                record = self._containers.save(msgspec.structs.replace(record, restarts=Restarts()))
            await self._start_or_undo(record)

    async def again(self, record: ContainerRecord) -> None:
        """For its restart policy: `record` is how it ended. Does nothing if anything has happened to it since."""
        async with self._containers.lock(record.id):
            current = self._containers.current(record.id)
            if current and (current.state.status, current.state.finished_at) == (record.state.status, record.state.finished_at):
                await self._start_or_undo(current)

    async def _start_or_undo(self, record: ContainerRecord) -> None:
        try:
            await self._start(record)
        except CortenError as error:
            raise await self._start_failed(record, error) from None
        except OSError as error:
            refused = KernelRefused(operation="start", operand=str(error.filename or record.name), errno=error.errno or 0, reason=error.strerror or str(error))
            raise await self._start_failed(record, refused) from None

    async def _start(self, record: ContainerRecord) -> None:
        self._launch.anticipate()
        record = self._containers.save(self._endpoints.lease(record))  # in one go: nobody else is given the same
        run_dir = self._layout.run(record.id)
        try:
            config = self._preparing.write_bundle(record, await self._mounting.mount(record))
            shutil.rmtree(run_dir, ignore_errors=True)
            os.mkdir(run_dir, 0o700)
            pid, started_at = await self._run(record, await self._preparing.create_message(record, run_dir, config))
        except BaseException:
            self._launch.forget(record.id)
            await self._mounting.unmount(record)
            self._endpoints.give_back(record)
            self._containers.save(self._containers.find(record.id).without_leases())
            shutil.rmtree(run_dir, ignore_errors=True)
            raise
        current = self._containers.find(record.id)
        state = replace_state(current, status="running", pid=pid, exit_code=0, error="", oom_killed=False,
                              started_at=started_at, health=health.begin(current.state.health) if health.check_of(current.config) else None)  # fmt: skip
        record = self._containers.save(msgspec.structs.replace(state, endpoints=record.endpoints, ports=record.ports))
        self._containers.emit("start", record)
        self._probing.watch(record)

    async def _run(self, record: ContainerRecord, request: messages.Create) -> tuple[int, str]:
        """As `_try`. A monitor that falls silent before the sandbox is made is passed over once, with all that it has made of it."""
        try:
            return await self._try(record, request)
        except MonitorSilent:
            if self._launch.serves(record.id):  # the sandbox was made, and its program may run
                raise
        shutil.rmtree(request.run_dir)  # by its being another one the silent monitor knows that the container is not its own any more
        os.mkdir(request.run_dir, 0o700)
        return await self._try(record, request)

    async def _try(self, record: ContainerRecord, request: messages.Create) -> tuple[int, str]:
        """Make the sandbox and execute the program in it: its pid, and when that was asked for.

        Meanwhile come the rules of its network, and its links while its mounts are still being made. With them there, the program may be asked for:
        the monitor holds that until the sandbox is whole. (Not with a terminal, which clients are shown only then.)
        """
        cloned: asyncio.Future[_Sandbox] = asyncio.get_running_loop().create_future()

        def told(pid: int) -> None:
            if not cloned.done():
                with suppress(ProcessLookupError):  # it has died: that is told next
                    cloned.set_result(_Sandbox(pid))

        creating = asyncio.ensure_future(self._launch.create(request, told))
        executing: asyncio.Future[str] | None = None
        try:
            await asyncio.sleep(0)  # it is sent
            self._endpoints.prepare(record)
            await asyncio.wait((cloned, creating), return_when=asyncio.FIRST_COMPLETED)
            pid = cloned.result().pid if cloned.done() else (await creating).pid  # another runtime's: known when all is made
            await self._endpoints.attach(record, f"/proc/{pid}/ns/net")
            if cloned.done() and not creating.done() and not record.config.tty and self._launch.holds_starts(record.id):
                executing = asyncio.ensure_future(self._execute(record, messages.StartOnceReady(0, record.id)))
            created = await creating
            self._mounting.settle(record)
            for warning in created.warnings:
                _log.warning("container %s: %s", record.name, warning)
            self._endpoints.announce(record)
            started_at = await (executing or self._execute(record, messages.Start(0, record.id)))
            if record.config.tty:
                await self._launch.hold_terminal(record.id)
        except BaseException:
            await asyncio.wait((creating, executing) if executing else (creating,))
            if executing and not executing.cancelled():
                executing.exception()  # as the sandbox's, which is told below, or what is on its way
            if not creating.cancelled() and (failed := creating.exception()):
                if isinstance(failed, MonitorSilent) and cloned.done():
                    self._put_out(record, cloned.result())
                raise failed from None  # and so there was nothing to attach to
            with suppress(KernelRefused):  # its monitor has undone it already, or has gone
                await self._launch.call(messages.Discard(0, record.id))
            raise
        finally:
            if cloned.done():
                cloned.result().close()
        return created.pid, started_at

    def _put_out(self, record: ContainerRecord, sandbox: _Sandbox) -> None:
        """What a silent monitor has made: it must not go on to the program when the monitor wakes, and the next one's links have the same names."""
        namespace = sandbox.network()
        sandbox.kill()
        try:
            self._endpoints.detach(record, namespace)
        finally:
            if namespace >= 0:
                os.close(namespace)

    async def _execute(self, record: ContainerRecord, start: messages.Start | messages.StartOnceReady) -> str:
        """With its clients attached. When it was asked for."""
        await self._attaching.hand_over(record)
        asked_at = rfc3339_nano(now_ns())
        await self._launch.call(start)
        return asked_at

    async def _start_failed(self, record: ContainerRecord, error: CortenError) -> CortenError:
        if isinstance(error, KernelRefused) and error.operation == "look up user":
            error = UnknownUserName(error.reason)
        elif isinstance(error, KernelRefused) and error.operation in _AS_ASKED:
            error = Invalid(f"{_AS_ASKED[error.operation]}: {error.operand}: {error.reason.lower()}")
        code = error.program_exit_code if isinstance(error, CommandNotStarted) else 128
        self._attaching.drop(record.id)
        status = "exited" if states.is_restarting(record) else record.state.status
        record = self._containers.save_state(record.id, status=status, exit_code=code, error=error.message)
        await self._removal.after_failed_start(record)
        return error


class _Sandbox:
    """A container's first process before its program, held by a pidfd: its number may be another one's by the time that it is used."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError if it has ended."""
        self.pid, self._pidfd = pid, os.pidfd_open(pid)

    def network(self) -> int:
        """A descriptor of its network namespace, the caller's; -1 if it has ended."""
        try:
            fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        if ended.poll(0):  # then the number may have been another one's already
            os.close(fd)
            return -1
        return fd

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        os.close(self._pidfd)
