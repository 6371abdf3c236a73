"""Putting a case's requests to an engine over its socket. `{ID}` in a path stands for the id that the last creation answered."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from tests.conformance.shape import shape, text

Request = tuple[str, str, Any]  # method, path with query, JSON body or None
RUN = {"Image": "busybox", "Cmd": ["sleep", "600"]}


def created(body: dict, *requests: Request) -> list[Request]:
    """The requests around a container `conf-box` made from `body`."""
    return [("POST", "/containers/create?name=conf-box", body), *requests, ("DELETE", "/containers/conf-box?force=1", None)]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def ask(socket_path: str, requests: list[Request]) -> list[dict[str, Any]]:
    """What the engine answers: status, and error text or shape of the body."""
    answers: list[dict[str, Any]] = []
    identifier = ""
    for method, path, body in requests:
        connection = _Connection(socket_path)
        data = None if body is None else json.dumps(body)
        target = path.replace("{ID}", identifier).replace('"', "%22").replace("{", "%7B").replace("}", "%7D")
        connection.request(method, target, data, {"Content-Type": "application/json"} if data else {})
        response = connection.getresponse()
        raw = response.read()
        connection.close()
        answer: dict[str, Any] = {"request": f"{method} {path}", "status": response.status}
        kind = response.headers.get_content_type()
        if kind == "application/json" and raw.strip():
            decoded = json.loads(raw.splitlines()[-1])  # of a stream of messages the last one
            if isinstance(decoded, dict) and isinstance(decoded.get("Id"), str):
                identifier = decoded["Id"]
            if isinstance(decoded, dict) and set(decoded) == {"message"}:
                answer["message"] = text(decoded["message"])
            else:
                answer["shape"] = shape(decoded)
        answers.append(answer)
    return answers
