"""The name service of the containers on user-defined networks: opened with a start or a connect, ended with the container.

Its sockets are held by the container's monitor too: a question that is asked while no engine is there waits in the socket, and the next engine
answers it.
"""

from __future__ import annotations

import os
import socket

from corten.engine.containers import Containers
from corten.engine.name_directory import NameDirectory
from corten.engine.records import ContainerRecord
from corten.linux.namespaces import network_namespace
from corten.network.apply import Kernel
from corten.network.plan import RESOLVER, make_resolver_table
from corten.network.resolver import Resolver
from corten.runtime import messages
from corten.runtime.launch import Launch


class NameService:
    def __init__(self, kernel: Kernel, containers: Containers, launch: Launch) -> None:
        self._kernel, self._containers, self._launch = kernel, containers, launch
        self._directory = NameDirectory(containers)
        self._resolver = Resolver(self._directory, self._upstream_socket)

    def serves(self, container_id: str) -> bool:
        return self._resolver.serves(container_id)

    async def open(self, record: ContainerRecord, namespace: int, *, fresh: bool = True) -> None:
        """Serve at 127.0.0.11 inside a namespace (descriptor). Raises OSError, KernelRefused."""
        datagram, stream = self._kernel.open_resolver(namespace, str(RESOLVER), make_resolver_table, fresh=fresh)
        try:
            await self._launch.call(messages.Keep(0, record.id), (datagram.fileno(), stream.fileno()))
        except BaseException:
            datagram.close()
            stream.close()
            raise
        if self._containers.current(record.id) is None:
            self._directory.admit(record)
        await self._resolver.serve(record.id, datagram, stream)

    async def restore(self, record: ContainerRecord, namespace: int) -> None:
        """Go on where an earlier engine has left. Raises OSError, KernelRefused."""
        fds = await self._launch.kept(record.id)
        if len(fds) == 2:
            await self._resolver.serve(record.id, socket.socket(fileno=fds[0]), socket.socket(fileno=fds[1]))
            return
        for fd in fds:
            os.close(fd)
        await self.open(record, namespace, fresh=False)

    def close(self, container_id: str) -> None:
        """Idempotent."""
        self._resolver.forget(container_id)
        self._directory.dismiss(container_id)

    def close_all(self) -> None:
        self._resolver.close()

    def _upstream_socket(self, container_id: str, family: int, kind: int) -> socket.socket:
        """The host's servers are asked from the host, a container's own (--dns) from where it is."""
        record = self._containers.current(container_id)
        if record is None or not record.host_config.dns or not record.state.pid:
            return socket.socket(family, kind | socket.SOCK_CLOEXEC)
        fd = os.open(f"/proc/{record.state.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with network_namespace(fd):
                return socket.socket(family, kind | socket.SOCK_CLOEXEC)
        finally:
            os.close(fd)
