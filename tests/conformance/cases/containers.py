"""Containers from creation to removal, and what is refused on the way."""

from __future__ import annotations

from tests.conformance.ask import RUN, Request, created

CASES: dict[str, list[Request]] = {
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
    "name in use": created(RUN, ("POST", "/containers/create?name=conf-box", RUN)),
    "created": created(RUN | {"ExposedPorts": {"80/tcp": {}}}, ("GET", "/containers/conf-box/json", None), ("POST", "/containers/conf-box/kill", None),
                        ("POST", "/containers/conf-box/pause", None), ("GET", "/containers/conf-box/top", None),
                        ("POST", "/containers/conf-box/resize?h=1&w=1", None), ("POST", "/containers/conf-box/exec", {"Cmd": ["true"]}),
                        ("POST", "/containers/conf-box/stop", None)),
    "running": created(
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
    "paused": created(RUN, ("POST", "/containers/conf-box/start", None), ("POST", "/containers/conf-box/pause", None),
                       ("POST", "/containers/conf-box/pause", None), ("POST", "/containers/conf-box/start", None),
                       ("POST", "/containers/conf-box/exec", {"Cmd": ["true"]}), ("GET", "/containers/conf-box/json", None),
                       ("POST", "/containers/conf-box/unpause", None), ("POST", "/containers/conf-box/unpause", None)),
    "rename in use": [("POST", "/containers/create?name=conf-other", RUN), *created(RUN, ("POST", "/containers/conf-box/rename?name=conf-other", None)),
                      ("DELETE", "/containers/conf-other", None)],
    "program not found": created({"Image": "busybox", "Cmd": ["nosuchcmd"]}, ("POST", "/containers/conf-box/start", None), ("GET", "/containers/conf-box/json", None)),
    "program not executable": created({"Image": "busybox", "Cmd": ["/etc/passwd"]}, ("POST", "/containers/conf-box/start", None), ("GET", "/containers/conf-box/json", None)),
    "program missing": created({"Image": "busybox", "Cmd": ["/nope"]}, ("POST", "/containers/conf-box/start", None)),
    "unknown user": created({"Image": "busybox", "Cmd": ["true"], "User": "nosuch"}, ("POST", "/containers/conf-box/start", None), ("GET", "/containers/conf-box/json", None)),
    "not found": [("GET", "/containers/zz/json", None), ("GET", "/exec/zz/json", None), ("GET", "/images/zz/json", None), ("DELETE", "/images/zz", None),
                  ("GET", "/networks/zz", None), ("DELETE", "/containers/zz", None), ("POST", "/containers/zz/start", None),
                  ("POST", "/containers/zz/exec", {"Cmd": ["true"]}), ("GET", "/images/zz/history", None)],
    "filters": [("GET", "/containers/json?filters=x", None), ("GET", '/containers/json?filters={"foo":["x"]}', None),
                ("GET", '/images/json?filters={"foo":["x"]}', None)],
}  # fmt: skip
