"""One connection of the daemon to its launcher or to a monitor: requests, replies paired by serial, and whether anybody is there.

A monitor that is stopped or stuck must not hold up a caller for ever: who has waited for a while asks with a Ping, and gives
up when that stays unanswered. A monitor that is only slow with one request answers pings in between.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Callable, Sequence

import msgspec

from corten.errors import (
    CommandNotStarted,
    CortenError,
    JustEnded,
    KernelRefused,
    MonitorOlder,
    MonitorSilent,
    MountNotMade,
    OtherCommandNotStarted,
    OtherRuntimeRefused,
)
from corten.linux import descriptors
from corten.runtime import messages

PATIENCE = 3.0  # seconds without a reply after which a caller asks, and again as long for the answer
_KNOWN_SILENT = 1.0  # seconds that one gets that has not answered before
_FRESH = 1.0  # seconds for which a sign of life counts
Notice = messages.Exited | messages.Detached
Reply = messages.Done | messages.Created


# operation that failed -> the error that it is, where it is one of its own
_KINDS: dict[str, type[KernelRefused]] = {"find": JustEnded, "MountInto": MountNotMade}


def error_for(failure: messages.Failure) -> CortenError:
    if failure.operation == messages.OTHER_RUNTIME:
        return OtherCommandNotStarted(failure.text, failure.exit_code) if failure.exit_code else OtherRuntimeRefused(reason=failure.text)
    if failure.exit_code:
        return CommandNotStarted(failure.text, failure.exit_code)
    kind = _KINDS.get(failure.operation, KernelRefused)
    return kind(
        operation=failure.operation, operand=failure.operand, errno=failure.errno, reason=failure.text
    )


class Link:
    """`pings`: the other side answers them at any time (a monitor; the launcher's jobs may take as long as they like)."""

    def __init__(self, sock: socket.socket, decode: Callable[[bytes], messages.FromMonitor],
                 on_notice: Callable[[Notice | messages.Hello | messages.Cloned], None], on_lost: Callable[[], None], *, pings: bool) -> None:  # fmt: skip
        sock.setblocking(False)
        self._sock, self._decode, self._pings = sock, decode, pings
        self._on_notice, self._on_lost = on_notice, on_lost
        self._serials = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._descriptors: dict[int, list[int]] = {}  # that came with the reply to a serial
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._ping: asyncio.Future[Reply] | None = None
        self.silent = False
        self.pid = 0
        self._knows: frozenset[str] = frozenset()  # which of messages.ADDED
        self._loop.add_reader(sock.fileno(), self._readable)

    def catch_up(self) -> None:
        """Take everything that has been said by now. A monitor says that a process has ended before it closes its clients' connections:
        who has seen his end must not be told that it still runs.
        """
        while self._sock.fileno() >= 0 and self._readable():
            continue

    def _readable(self) -> bool:
        """Take one message, if there is one."""
        try:
            data, fds = descriptors.receive_packet(self._sock)
        except BlockingIOError:
            return False
        except OSError:
            data, fds = b"", []
        if not data:
            self.close()
            self._on_lost()
            return False
        self._heard, self.silent = self._loop.time(), False
        message = self._decode(data)
        if fds and isinstance(message, messages.Done) and message.serial in self._waiting:
            self._descriptors[message.serial] = fds
        else:
            descriptors.close_all(fds)
        self._take(message)
        return True

    def _take(self, message: messages.FromMonitor) -> None:
        if isinstance(message, messages.Hello):
            self.pid, self._knows = message.pid, frozenset(message.knows)
        if isinstance(message, messages.Exited | messages.Detached | messages.Hello | messages.Cloned):
            self._on_notice(message)
            return
        future = self._waiting.pop(message.serial, None)
        if future and not future.done():
            if isinstance(message, messages.Failure):
                future.set_exception(error_for(message))
            else:
                future.set_result(message)

    def knows(self, kind: type[messages.ToMonitor]) -> bool:
        """Whether the other side is of a release that has such a request."""
        return kind not in messages.ADDED or kind.__name__ in self._knows

    def check_knows(self, message: messages.ToMonitor) -> None:
        """Raises MonitorOlder if it is not."""
        if not self.knows(type(message)):
            raise MonitorOlder(pid=self.pid, container=message.container)

    async def call(self, message: messages.ToMonitor | messages.ToLauncher, fds: Sequence[int] = ()) -> Reply:
        """The reply. Raises what a Failure stands for, KernelRefused if the other side has gone, MonitorSilent if it does not answer."""
        reply, received = await self.exchange(message, fds)
        descriptors.close_all(received)
        return reply

    async def exchange(self, message: messages.ToMonitor | messages.ToLauncher, fds: Sequence[int] = ()) -> tuple[Reply, list[int]]:
        """As `call`, with the descriptors that came along: the caller's from here on."""
        if self.silent:
            await self.ask()
        serial, future = await self._post(message, fds)
        try:
            while not future.done():
                await asyncio.wait((future,), timeout=PATIENCE if self._pings else None)
                if not future.done():
                    await self.ask()
            return future.result(), self._descriptors.pop(serial, [])
        finally:
            self._waiting.pop(serial, None)
            descriptors.close_all(self._descriptors.pop(serial, []))
            if future.done() and not future.cancelled():
                future.exception()  # a caller that is cancelled in this moment does not look at it any more

    async def _post(self, message: messages.ToMonitor | messages.ToLauncher, fds: Sequence[int] = ()) -> tuple[int, asyncio.Future[Reply]]:
        serial = next(self._serials)
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[serial] = future
        packet = messages.encode(msgspec.structs.replace(message, serial=serial))
        held = [os.dup(fd) for fd in fds]  # the caller may close its own at once, also while this has to wait
        try:
            await self._send(packet, held, type(message).__name__)
        except BaseException:
            self._waiting.pop(serial, None)
            raise
        finally:
            for fd in held:
                os.close(fd)
        return serial, future

    async def _send(self, packet: bytes, fds: Sequence[int], what: str) -> None:
        end = self._loop.time() + 2 * PATIENCE
        while True:
            try:
                descriptors.send_packet(self._sock, packet, fds)
                return
            except BlockingIOError:  # its queue is full: it does not read
                if self._pings and self._loop.time() > end:
                    raise self._give_up() from None
                await asyncio.sleep(0.001)
            except OSError as error:
                raise KernelRefused(operation="send", operand=what, errno=error.errno or 0, reason="the other process has gone") from None

    async def post(self, message: messages.ToMonitor) -> None:
        """Send without waiting for the reply: for a silent one, to be done when it comes back."""
        serial, _ = await self._post(message)
        self._waiting.pop(serial, None)

    async def ask(self) -> None:
        """Whether it is there. One question at a time is enough for all who want to know. Raises MonitorSilent."""
        if self._ping is None or self._ping.done():
            _, self._ping = await self._post(messages.Ping(0))
        await asyncio.wait((self._ping,), timeout=_KNOWN_SILENT if self.silent else PATIENCE)
        if not self._ping.done():
            raise self._give_up()
        self._ping.result()

    @property
    def fresh(self) -> bool:
        """It has just been heard of."""
        return not self.silent and self._loop.time() - self._heard <= _FRESH

    async def check(self) -> None:
        """Ask, unless it has just been heard of. Raises MonitorSilent."""
        if not self.fresh:
            await self.ask()

    def _give_up(self) -> MonitorSilent:
        self.silent = True
        return MonitorSilent(pid=self.pid)

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
        lost = KernelRefused(operation="wait", operand="reply", errno=0, reason="the other process has gone")
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(lost)
                future.exception()  # whoever still waits gets it; nobody may be left to
        self._waiting.clear()
