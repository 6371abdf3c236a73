"""A client's ssh agent for a RUN step: a socket of the step's own, with the owner and mode that it asks for, whose connections go on to the agent's.

The agent's own socket stays as it is, and out of the step's reach. Source: ssh-agent(1) for what is forwarded (bytes; nothing is read here).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CHUNK = 1 << 16


@asynccontextmanager
async def forwarded(agent: str, folder: str, name: str, mode: int, owner: tuple[int, int]) -> AsyncIterator[str]:
    """The path of the socket in `folder`; at the end of the block it and its connections are closed. Raises OSError."""
    path = f"{folder}/{name}"
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        connections.add(task)
        try:
            await _join(reader, writer, agent)
        except OSError:
            return  # the agent is gone, or does not take connections: who asked it sees its connection end
        finally:
            writer.close()
            connections.discard(task)

    server = await asyncio.start_unix_server(serve, sock=_bound(folder, name))
    try:
        os.chown(path, *owner, follow_symlinks=False)
        os.chmod(path, mode)
        yield path
    finally:
        server.close()
        for task in tuple(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        os.unlink(path)


def _bound(folder: str, name: str) -> socket.socket:
    """An address has 107 bytes at most; the folder's descriptor makes any path short. Nobody can connect before it has its mode."""
    found = socket.socket(socket.AF_UNIX)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    before = os.umask(0o777)
    try:
        found.bind(f"/proc/self/fd/{fd}/{name}")
    except BaseException:
        found.close()
        raise
    finally:
        os.umask(before)
        os.close(fd)
    return found


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, agent: str) -> None:
    """Both ways, until both have ended. Raises OSError if one side goes."""
    from_agent, to_agent = await asyncio.open_unix_connection(agent)
    pumps = [asyncio.ensure_future(_pump(reader, to_agent)), asyncio.ensure_future(_pump(from_agent, writer))]
    try:
        await asyncio.gather(*pumps)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        to_agent.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK):
        target.write(data)
        await target.drain()
    target.write_eof()
