"""The questions. Each case is a list of requests; `{ID}` stands for the id that the case's create answered.

Needs the image busybox in the engine, and names of its own (conf-*), which it removes.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from tests.conformance.shape import shape, text

Request = tuple[str, str, Any]  # method, path with query, JSON body or None
RUN = {"Image": "busybox", "Cmd": ["sleep", "600"]}


def _created(body: dict, *requests: Request) -> list[Request]:
    return [("POST", "/containers/create?name=conf-box", body), *requests, ("DELETE", "/containers/conf-box?force=1", None)]


CASES: dict[str, list[Request]] = {
    "ping": [("GET", "/_ping", None), ("HEAD", "/_ping", None), ("GET", "/v1.24/_ping", None)],
    "versions": [("GET", "/v1.99/info", None), ("GET", "/nosuchpage", None), ("GET", "/v1.40/version", None), ("GET", "/info", None)],
    "create refused": [
        ("POST", "/containers/create", {"Image": "nosuch"}),
        ("POST", "/containers/create", {"Image": "nosuch:tag"}),
        ("POST", "/containers/create", {"Image": 5}),
        ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Memory": "x"}}),
        ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Memory": 1}}),
        ("POST", "/containers/create", {}),
        ("POST", "/containers/create?name=-bad", {"Image": "busybox"}),
        ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "x"}]}}}),
        ("POST", "/containers/create", {"Image": "BAD"}),
    ],
    "name in use": _created(RUN, ("POST", "/containers/create?name=conf-box", RUN)),
    "created": _created(RUN | {"ExposedPorts": {"80/tcp": {}}}, ("GET", "/containers/conf-box/json", None), ("POST", "/containers/conf-box/kill", None),
                        ("POST", "/containers/conf-box/pause", None), ("GET", "/containers/conf-box/top", None),
                        ("POST", "/containers/conf-box/resize?h=1&w=1", None), ("POST", "/containers/conf-box/exec", {"Cmd": ["true"]}),
                        ("POST", "/containers/conf-box/stop", None)),
    "running": _created(
        RUN | {"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": ""}]}}},
        ("POST", "/containers/conf-box/start", None), ("POST", "/containers/conf-box/start", None), ("GET", "/containers/conf-box/json", None),
        ("GET", '/containers/json?filters={"name":["conf-box"]}', None), ("GET", "/containers/conf-box/top", None),
        ("GET", "/containers/conf-box/stats?stream=0&one-shot=1", None), ("POST", "/containers/conf-box/kill?signal=FOO", None),
        ("POST", "/containers/conf-box/resize?h=x&w=1", None), ("DELETE", "/containers/conf-box", None), ("DELETE", "/images/busybox", None),
        ("POST", "/containers/conf-box/wait?condition=foo", None), ("GET", "/containers/conf-box/logs", None),
        ("GET", "/containers/conf-box/archive?path=/nosuch", None), ("GET", "/containers/conf-box/archive", None),
        ("POST", "/containers/conf-box/rename", None), ("POST", "/containers/conf-box/rename?name=conf-box", None),
        ("POST", "/containers/conf-box/stop?t=x", None), ("POST", "/containers/conf-box/stop?t=0", None),
        ("POST", "/containers/conf-box/stop?t=0", None), ("GET", "/containers/conf-box/json", None), ("POST", "/containers/conf-box/wait", None),
    ),
    "paused": _created(RUN, ("POST", "/containers/conf-box/start", None), ("POST", "/containers/conf-box/pause", None),
                       ("POST", "/containers/conf-box/pause", None), ("POST", "/containers/conf-box/start", None),
                       ("POST", "/containers/conf-box/exec", {"Cmd": ["true"]}), ("GET", "/containers/conf-box/json", None),
                       ("POST", "/containers/conf-box/unpause", None), ("POST", "/containers/conf-box/unpause", None)),
    "rename in use": [("POST", "/containers/create?name=conf-other", RUN), *_created(RUN, ("POST", "/containers/conf-box/rename?name=conf-other", None)),
                      ("DELETE", "/containers/conf-other", None)],
    "program not found": _created({"Image": "busybox", "Cmd": ["nosuchcmd"]}, ("POST", "/containers/conf-box/start", None), ("GET", "/containers/conf-box/json", None)),
    "program not executable": _created({"Image": "busybox", "Cmd": ["/etc/passwd"]}, ("POST", "/containers/conf-box/start", None), ("GET", "/containers/conf-box/json", None)),
    "program missing": _created({"Image": "busybox", "Cmd": ["/nope"]}, ("POST", "/containers/conf-box/start", None)),
    "unknown user": _created({"Image": "busybox", "Cmd": ["true"], "User": "nosuch"}, ("POST", "/containers/conf-box/start", None), ("GET", "/containers/conf-box/json", None)),
    "exec": _created(RUN, ("POST", "/containers/conf-box/start", None), ("POST", "/containers/conf-box/exec", {"Cmd": []}),
                     ("POST", "/containers/conf-box/exec", {"Cmd": ["sh", "-c", "exit 3"], "AttachStdout": True}), ("GET", "/exec/{ID}/json", None),
                     ("POST", "/exec/{ID}/start", {"Detach": True}), ("POST", "/exec/nosuch/start", {})),
    "not found": [("GET", "/containers/zz/json", None), ("GET", "/exec/zz/json", None), ("GET", "/images/zz/json", None), ("DELETE", "/images/zz", None),
                  ("GET", "/networks/zz", None), ("DELETE", "/containers/zz", None), ("POST", "/containers/zz/start", None),
                  ("POST", "/containers/zz/exec", {"Cmd": ["true"]}), ("GET", "/images/zz/history", None)],
    "filters": [("GET", "/containers/json?filters=x", None), ("GET", '/containers/json?filters={"foo":["x"]}', None),
                ("GET", '/images/json?filters={"foo":["x"]}', None)],
    "images": [("GET", "/images/json", None), ("GET", "/images/busybox/json", None), ("GET", "/images/busybox/history", None),
               ("POST", "/images/busybox/tag?repo=conf-tag&tag=1", None), ("POST", "/images/busybox/tag?repo=BAD", None),
               ("DELETE", "/images/conf-tag:1", None), ("POST", "/images/create?fromImage=BAD", None)],
    "networks": [("GET", '/networks?filters={"driver":["bridge"]}', None), ("GET", "/networks/bridge", None), ("GET", "/networks/none", None), ("GET", "/networks/host", None)],
}  # fmt: skip


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
            decoded = json.loads(raw)
            if isinstance(decoded, dict) and isinstance(decoded.get("Id"), str):
                identifier = decoded["Id"]
            if isinstance(decoded, dict) and set(decoded) == {"message"}:
                answer["message"] = text(decoded["message"])
            else:
                answer["shape"] = shape(decoded)
        answers.append(answer)
    return answers
