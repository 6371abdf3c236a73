"""Restart policies, waits and removal: what is refused, and the texts."""

from __future__ import annotations

from tests.conformance.ask import RUN, Request, created

LOOPS = {"Image": "busybox", "Cmd": ["sh", "-c", "sleep 0.2; exit 3"], "HostConfig": {"RestartPolicy": {"Name": "always"}}}


def _policy(**policy: object) -> Request:
    return ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"RestartPolicy": policy}})


_EXIT: Request = ("POST", "/containers/conf-box/wait?condition=next-exit", None)
_HEALTH = RUN | {"Healthcheck": {"Test": ["CMD-SHELL", "echo said; exit 1"], "Interval": 200000000, "Retries": 1}}


def _bad_check(**settings: object) -> Request:
    return ("POST", "/containers/create", RUN | {"Healthcheck": {"Test": ["CMD", "true"], **settings}})


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
    # After five exits the delay is long enough to be asked about.
    "restarting": created(
        LOOPS, ("POST", "/containers/conf-box/start", None), *[_EXIT] * 5, ("GET", "/containers/conf-box/json", None), ("POST", "/containers/conf-box/start", None),
        ("POST", "/containers/conf-box/pause", None), ("GET", "/containers/conf-box/top", None),
        ("POST", "/containers/conf-box/exec", {"Cmd": ["true"]}), ("DELETE", "/containers/conf-box", None), ("POST", "/containers/conf-box/update", {}),
        ("POST", "/containers/conf-box/kill", None), ("POST", "/containers/conf-box/stop", None), ("POST", "/containers/conf-box/kill", None),
    ),
    "checks refused": [_bad_check(Interval=5), _bad_check(Timeout=5), _bad_check(Retries=-1), _bad_check(StartPeriod=5), _bad_check(StartInterval=5)],
    "health": created(_HEALTH, ("GET", "/containers/conf-box/json", None), ("POST", "/containers/conf-box/start", None), ("GET", "/containers/conf-box/stats?stream=0", None),
                       ("GET", "/containers/conf-box/json", None), ("GET", '/containers/json?filters={"health":["unhealthy"],"name":["conf-box"]}', None),
                       ("GET", '/containers/json?filters={"health":["bogus"]}', None)),
    "no health": created(RUN | {"Healthcheck": {"Test": ["NONE"]}}, ("POST", "/containers/conf-box/start", None), ("GET", "/containers/conf-box/json", None)),
}  # fmt: skip
