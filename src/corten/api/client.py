"""A small synchronous client of the API over a UNIX socket, and starting an engine where none answers.

Used by the CLI and by tests. Light: http.client from the standard library, nothing of the engine.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import msgspec

from corten.errors import CortenError, Unavailable

DEFAULT_SOCKET = "/run/corten/corten.sock"
_START_PATIENCE = 60.0  # a loaded machine takes its time; an engine that ends is seen at once
_CHUNK = 1 << 16


class Readable(Protocol):
    """A body: what is sent is read piece by piece."""

    def read(self, size: int = -1, /) -> bytes: ...


class ApiError(CortenError):
    """What the engine answered."""

    def __init__(self, http_status: int, text: str) -> None:
        super().__init__(text)
        self.http_status = http_status


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", blocksize=_CHUNK)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


class Client:
    """One engine by its socket. Every call may raise ApiError, or Unavailable if nobody answers."""

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path

    def answers(self) -> bool:
        try:
            self.get("/_ping")
        except (Unavailable, ApiError):
            return False
        return True

    def open(self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None,
             headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:  # fmt: skip
        """The response, its body not yet read. `body`: bytes or a file go as they are, anything else as JSON."""
        connection = _UnixConnection(self.socket_path)
        sent = {"Connection": "close", **(headers or {})}  # the socket is the response's, and closes with it
        data: Any = body
        if body is not None and not isinstance(body, bytes) and not hasattr(body, "read"):
            data = msgspec.json.encode(body)
            sent["Content-Type"] = "application/json"
        target = quote(path) + ("?" + urlencode(query, doseq=True) if query else "")
        try:
            with suppress(BrokenPipeError):  # an engine that refuses has answered before it has read everything
                connection.request(method, target, data, sent)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unavailable(f"Cannot connect to the Corten engine at unix://{self.socket_path}: {error}. Is cortend running?") from None
        except BaseException:  # a body that could not be read: the engine sees that it is cut off
            connection.close()
            raise
        if response.status >= 400:
            with response:
                raise ApiError(response.status, _message(response.read()))
        return response

    def call(self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """The decoded JSON answer, or the text if it is none."""
        with self.open(method, path, query=query, body=body) as response:
            data = response.read()
        if response.headers.get_content_type() == "application/json" and data.strip():
            return msgspec.json.decode(data)
        return data.decode()

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, query=query)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        return self.call("POST", path, query=query, body=body)

    def delete(self, path: str, **query: Any) -> Any:
        return self.call("DELETE", path, query=query)

    def messages(self, path: str, *, body: Readable | None = None, headers: Mapping[str, str] | None = None,
                 **query: Any) -> Generator[dict[str, Any], None, None]:  # fmt: skip
        """A stream of JSON messages (pull, push, load). An error in the stream is raised."""
        with self.open("POST", path, query=query, body=body, headers=headers) as response:
            for line in response:
                message = msgspec.json.decode(line) if line.strip() else {}
                if "error" in message:
                    raise ApiError(500, message["error"])
                if message:
                    yield message

    def hijack(self, path: str, body: Any = None, **query: Any) -> socket.socket:
        """Upgrade to a raw stream and return its socket."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.socket_path)
        data = b"" if body is None else msgspec.json.encode(body)
        target = quote(path) + ("?" + urlencode(query, doseq=True) if query else "")
        head = f"POST {target} HTTP/1.1\r\nHost: corten\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        sock.sendall(head.encode() + data)
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = sock.recv(1)  # not one byte of the stream behind the head
            if not piece:
                break
            answer += piece
        status = int(answer.split()[1]) if answer else 500
        if status >= 400:
            text = sock.recv(_CHUNK)
            sock.close()
            raise ApiError(status, _message(text))
        return sock


def _message(data: bytes) -> str:
    try:
        return str(msgspec.json.decode(data)["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return data.decode("utf-8", "replace").strip() or "the engine gave no reason"


def demultiplex(read: Any) -> Iterator[tuple[int, bytes]]:
    """Frames of a multiplexed stream: (stream number, data). `read(n)` returns up to n bytes, empty at the end."""

    def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = read(count - len(data))
            if not piece:
                return b""
            data += piece
        return data

    while header := exactly(8):
        yield header[0], exactly(int.from_bytes(header[4:], "big"))


def own_engine(data_root: str) -> tuple[str, list[str]]:
    """(socket, cortend's arguments) of an engine with a folder of its own. The socket's path stays short."""
    root = os.path.abspath(data_root)
    exec_root = "/run/corten-" + hashlib.sha256(root.encode()).hexdigest()[:8]
    return f"{exec_root}/corten.sock", ["--data-root", root, "--exec-root", exec_root]


def start_engine(socket_path: str, arguments: list[str]) -> None:
    """Start cortend in the background and wait until it answers. Raises Unavailable with the end of its log."""
    import subprocess  # not for every command

    folder = os.path.dirname(socket_path)
    os.makedirs(folder, mode=0o711, exist_ok=True)
    log_path = f"{folder}/cortend.log"
    with open(log_path, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "corten.api.daemon", "-H", f"unix://{socket_path}", "--pidfile", f"{folder}/cortend.pid", *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    client = Client(socket_path)
    end = time.monotonic() + _START_PATIENCE
    while time.monotonic() < end:
        if client.answers():
            return
        if process.poll() is not None:
            break
        time.sleep(0.02)
    with open(log_path, encoding="utf-8", errors="replace") as log_file:
        tail = "".join(log_file.readlines()[-5:])
    raise Unavailable(f"the engine did not start (its log is {log_path}):\n{tail}")


def stop_engine(socket_path: str) -> None:
    """End the engine that start_engine() started, and wait for that. Containers run on."""
    import signal

    with open(f"{os.path.dirname(socket_path)}/cortend.pid", encoding="utf-8") as file:
        pid = int(file.read())
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + _START_PATIENCE
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        try:
            os.waitpid(pid, os.WNOHANG)  # if it is our own child, or it stays a zombie
        except ChildProcessError:
            time.sleep(0.01)
        time.sleep(0.005)
