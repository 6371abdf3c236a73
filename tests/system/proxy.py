"""A TCP proxy on loopback that counts what goes through and cuts connections: a network that fails at a chosen moment."""

from __future__ import annotations

import select
import socket
import threading


class CuttingProxy:
    """Forwards to `target`. `cut_after` bytes in either direction, the next `cuts` connections break."""

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.cut_after, self.cuts = 0, 0
        self.passed = 0
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self, *, after: int, times: int) -> None:
        self.cut_after, self.cuts = after, times

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._open |= {near, far}
            thread = threading.Thread(target=self._forward, args=(near, far))
            self._threads.append(thread)
            thread.start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        passed = 0
        try:
            while True:
                ready, _, _ = select.select([near, far], [], [], 60)
                if not ready:
                    return
                for end in ready:
                    data = end.recv(1 << 16)
                    if not data:
                        return
                    (far if end is near else near).sendall(data)
                    passed += len(data)
                    self.passed += len(data)
                if self.cuts and passed >= self.cut_after:
                    self.cuts -= 1
                    return
        except OSError:
            return
        finally:
            for end in (near, far):
                end.close()
                self._open.discard(end)

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in tuple(self._open):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join(10)
