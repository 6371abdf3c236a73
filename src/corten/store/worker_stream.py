"""Reading what a worker writes, and writing what it reads: its descriptor is one end of a socket pair, whose other end is here."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import IO, TypeVar, cast

_CHUNK = 1 << 18
T = TypeVar("T")


async def read_from_worker(run: Callable[[int], Awaitable[bytes]]) -> AsyncGenerator[bytes, None]:
    """`run` starts the worker with the descriptor that it writes to. Raises the worker's error after what it wrote.

    Close it (contextlib.aclosing): the worker of one that is left alone waits until it is found as garbage.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    work = asyncio.ensure_future(run(theirs.fileno()))
    await asyncio.sleep(0)  # the call holds the descriptor once it has begun
    theirs.close()
    try:
        while data := await asyncio.get_running_loop().sock_recv(ours, _CHUNK):
            yield data
        await work
    finally:
        ours.close()
        await asyncio.wait((work,))  # a client that leaves early ends the worker with a broken pipe
        if not work.cancelled():
            work.exception()


async def write_to_worker(run: Callable[[int], Awaitable[bytes]], data: AsyncIterator[bytes]) -> bytes:
    """`run` starts the worker with the descriptor that it reads from. Returns its result, raises its error."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    work = asyncio.ensure_future(run(theirs.fileno()))
    await asyncio.sleep(0)
    theirs.close()
    loop = asyncio.get_running_loop()
    try:
        async for piece in data:
            await loop.sock_sendall(ours, piece)
        ours.shutdown(socket.SHUT_WR)
    except OSError:
        await asyncio.sleep(0)  # the worker stopped reading: its own error says why
    finally:
        ours.close()
        result = await work
    return result


async def read_in_thread(data: AsyncIterator[bytes], read: Callable[[IO[bytes]], T]) -> T:
    """`read` gets a file with what arrives, in a thread; its result or its error. `data` is taken to its end, also if `read` needs no more."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def work() -> T:
        with theirs, theirs.makefile("rb", buffering=_CHUNK) as source:
            return read(cast("IO[bytes]", source))

    reading, wanted = asyncio.ensure_future(asyncio.to_thread(work)), True
    try:
        async for piece in data:
            try:
                if wanted:
                    await asyncio.get_running_loop().sock_sendall(ours, piece)
            except (BrokenPipeError, ConnectionResetError):  # `read` has ended
                wanted = False
    finally:
        ours.close()
        await asyncio.wait((reading,))
        reading.exception()
    return await reading
