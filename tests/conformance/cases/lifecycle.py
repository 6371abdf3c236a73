"""Restart policies, waits and removal: what is refused, and the texts."""

from __future__ import annotations

from tests.conformance.ask import RUN, Request, created

LOOPS = {"Image": "busybox", "Cmd": ["sh", "-c", "sleep 0.2; exit 3"], "HostConfig": {"RestartPolicy": {"Name": "always"}}}


def _policy(**policy: object) -> Request:
    return ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"RestartPolicy": policy}})


CASES: dict[str, list[Request]] = {
    "policies refused": [
        _policy(Name="nope"), _policy(Name="always", MaximumRetryCount=2), _policy(Name="no", MaximumRetryCount=-1),
        _policy(Name="on-failure", MaximumRetryCount=-1),
        ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}}),
    ],
    "restart fails": created({"Image": "busybox", "Cmd": ["nosuchcmd"]}, ("POST", "/containers/conf-box/restart", None), ("POST", "/containers/conf-box/wait", None),
                              ("GET", "/containers/conf-box/json", None)),
    "bad signals": created(RUN, ("POST", "/containers/conf-box/start", None), ("POST", "/containers/conf-box/stop?signal=FOO", None),
                            ("POST", "/containers/conf-box/restart?signal=FOO", None)),
    "remove paused": created(RUN, ("POST", "/containers/conf-box/start", None), ("POST", "/containers/conf-box/pause", None), ("DELETE", "/containers/conf-box", None),
                              ("POST", "/containers/conf-box/attach?stream=0", None)),
    "remove a link": created(RUN, ("DELETE", "/containers/conf-box?link=1", None), ("DELETE", "/containers/conf-nosuch?link=1", None)),
    "policy shown": created(LOOPS | {"Cmd": ["sleep", "600"]}, ("POST", "/containers/conf-box/start", None), ("GET", "/containers/conf-box/json", None),
                             ("POST", "/containers/conf-box/restart?t=0", None), ("POST", "/containers/conf-box/stop?t=0", None), ("POST", "/containers/conf-box/wait", None)),
}  # fmt: skip
