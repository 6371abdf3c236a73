"""One `POST /build` and what comes back: its progress to a view, its results to whoever fetches them. An interrupt cancels the build in the engine."""

from __future__ import annotations

import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from io import BytesIO
from typing import IO, Any

import msgspec

from corten.api.client import ApiError, Client
from corten.cli.build_view.view import Shown, shown
from corten.errors import CortenError, Unavailable
from corten.spec.build_status import CANCELED, PROGRESS, BuildStatus, StatusEntry, StatusVertex
from corten.spec.digest import digest_of
from corten.spec.timestamps import now_ns, rfc3339_nano

QUIET = ("quiet", "none")
_CONTEXT = "[internal] load build context"


class Interrupted(CortenError):
    cli_exit_code = 130  # as of what SIGINT has ended
    template = "the build was cancelled"


class Upload:
    """A body that says how far it is. `sent` is set when the engine has it."""

    def __init__(self, body: IO[bytes], view: Shown, sent: threading.Event) -> None:
        self._body, self._view, self._sent = body, view, sent
        self._size, self._began = 0, now_ns()
        self._vertex = StatusVertex(digest_of(_CONTEXT.encode()), (), _CONTEXT, rfc3339_nano(self._began))
        self._tell()

    def read(self, size: int = -1) -> bytes:
        data = self._body.read(size)
        self._size += len(data)
        if not data:
            self._sent.set()
        self._tell()
        return data

    def close(self) -> None:
        """The engine has answered: it reads no further."""
        if not self._sent.is_set():
            stopped = msgspec.structs.replace(self._vertex, completed=rfc3339_nano(now_ns()), error=CANCELED)
            self._view.take(BuildStatus((stopped,)))

    def _tell(self) -> None:
        now = rfc3339_nano(now_ns())
        end = now if self._sent.is_set() else ""
        entry = StatusEntry("transferring context:", self._vertex.digest, self._size, now, 0, self._vertex.started, end)
        self._view.take(BuildStatus((msgspec.structs.replace(self._vertex, completed=end),), (entry,) if self._size else ()))


Take = Callable[[dict[str, Any], Callable[[int], None]], None]  # an `aux` message, and who hears how many bytes are sent because of it


class Contents:
    """Of folders the engine asks for contents while it builds: how far they are is told of the vertex that it has begun for that."""

    def __init__(self, view: Shown) -> None:
        self._view, self._vertex, self._size, self._began = view, "", 0, ""

    def take(self, status: BuildStatus) -> None:
        for vertex in status.vertexes:
            if vertex.started and not vertex.completed:
                self._vertex, self._size, self._began = vertex.digest, 0, vertex.started
            elif vertex.digest == self._vertex and self._size:
                self._tell(vertex.completed)
        self._view.take(status)

    def sent(self, size: int) -> None:
        self._size += size
        self._tell("")

    def _tell(self, completed: str) -> None:
        entry = StatusEntry("transferring context:", self._vertex, self._size, completed or rfc3339_nano(now_ns()), 0, self._began, completed)
        self._view.take(BuildStatus((), (entry,)))


def build_quietly(client: Client, body: IO[bytes] | None, query: Mapping[str, Any], headers: Mapping[str, str], take: Take) -> str:
    """The image's id, which the engine says last; nothing else is said unless it fails. `take` is told of every `aux` message; what it raises ends the build."""
    said = ""
    with closing(client.messages("/build", body=body, headers=headers, **{**query, "q": 1})) as messages:
        for message in messages:
            if "aux" in message:
                take(message["aux"], lambda _size: None)
            said += message.get("stream", "")
    return _whole(said.strip())


def build_shown(client: Client, body: IO[bytes] | None, query: Mapping[str, Any], headers: Mapping[str, str], take: Take, mode: str) -> str:
    """The image's id; it is shown in the `mode` how it is made. What is to be read at the end is printed then."""
    view, key, sent = shown(mode), secrets.token_hex(16), threading.Event()
    image, last, contents = "", list[str](), Contents(view)
    with _cancelling(client, key, sent), view.kept_fresh():
        upload = Upload(body, view, sent) if body else None
        if upload is None:
            sent.set()
        messages = client.messages("/build", body=upload, headers=headers, **query, progress=1, buildid=key)
        with closing(upload or BytesIO()), closing(messages):
            for message in messages:
                if message.get("id") == PROGRESS:
                    contents.take(msgspec.convert(message["aux"], BuildStatus))
                elif "aux" in message:
                    image = message["aux"].get("ID", image)
                    take(message["aux"], contents.sent)
                elif "stream" in message:
                    last.append(message["stream"])
    if mode != "rawjson":
        print("".join(last), end="", file=sys.stderr)
    return _whole(image)


def _whole(image: str) -> str:
    if not image:
        raise Unavailable("the engine has ended the build without a result: its log says why")
    return image


@contextmanager
def _cancelling(client: Client, key: str, sent: threading.Event) -> Iterator[None]:
    """While the block lasts, the first SIGINT asks the engine to end the build, which then says how that went; the second one ends this program.

    Before everything is `sent` there is no build yet: closing the connection is enough. Raises Interrupted.
    """
    asked = False

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal asked
        if asked or not sent.is_set():
            raise KeyboardInterrupt
        asked = True
        threading.Thread(target=_cancel, args=(client, key), daemon=True).start()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except ApiError:
        if not asked:
            raise
        raise Interrupted from None
    except KeyboardInterrupt:
        raise Interrupted from None
    finally:
        signal.signal(signal.SIGINT, before)


def _cancel(client: Client, key: str) -> None:
    try:
        client.post("/build/cancel", id=key)
    except CortenError as error:
        print(f"corten: the build could not be cancelled: {error.message}", file=sys.stderr)
