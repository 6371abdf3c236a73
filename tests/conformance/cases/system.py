"""The engine itself: ping, versions, info, events, disk usage, and what no endpoint answers."""

from __future__ import annotations

from tests.conformance.ask import RUN, Request, created

CASES: dict[str, list[Request]] = {
    "ping": [("GET", "/_ping", None), ("HEAD", "/_ping", None), ("GET", "/v1.24/_ping", None)],
    "versions": [("GET", "/v1.99/info", None), ("GET", "/nosuchpage", None), ("GET", "/v1.40/version", None), ("GET", "/info", None),
                 ("GET", "/v1.23/info", None), ("GET", "/v1/info", None), ("GET", "/v1.24x/info", None), ("GET", "/v2.0/info", None)],
    "methods": [("PUT", "/info", None), ("HEAD", "/info", None), ("OPTIONS", "/info", None), ("OPTIONS", "/nosuchpage", None), ("POST", "/containers/json", None),
                ("DELETE", "/containers/json", None), ("GET", "/info/", None), ("GET", "//info", None), ("GET", "/containers//json", None),
                ("GET", "/containers/a/b/json", None)],
    "queries": [("GET", "/containers/json?all=%zz", None), ("GET", "/containers/json?a;b", None), ("GET", "/containers/json?all=no&all=1", None),
                ("GET", "/containers/json?limit=x", None), ("GET", "/containers/json?limit=-1", None),
                ("GET", '/containers/json?filters={"id":{"x":false}}', None), ("GET", '/containers/json?filters={"id":"x"}', None),
                ("GET", "/containers/json?filters=[]", None)],
    "bodies": [("POST", "/containers/create", None), ("POST", "/containers/create", []), ("POST", "/volumes/create", [])],
    "credentials": [("POST", "/auth", {"serveraddress": "127.0.0.1:1"}), ("POST", "/auth", []), ("POST", "/auth", {"username": 5})],
    "events": [("GET", "/events?since=5&until=4", None), ("GET", '/events?since=0&until=1&filters={"nosuch":["x"]}', None), ("GET", "/events?since=x", None),
               ("GET", "/events?since=1&until=2&filters=x", None)],
    "disk usage": created(
        RUN, ("GET", "/system/df", None), ("GET", "/system/df?type=foo", None), ("GET", "/system/df?type=container&type=build-cache", None),
        ("GET", "/system/df?type=volume", None), ("GET", "/system/df?type=image", None)),
    "no swarm": [(method, path, {} if method == "POST" else None) for method, path in (
        ("GET", "/swarm"), ("POST", "/swarm/leave"), ("POST", "/swarm/update?version=1"), ("GET", "/nodes"), ("GET", "/nodes/x"), ("GET", "/services"),
        ("POST", "/services/create"), ("GET", "/services/x/logs?stdout=1"), ("GET", "/tasks"), ("GET", "/secrets"), ("DELETE", "/configs/x"), ("GET", "/nodes?filters=x"))],
    "no plugins": [("GET", "/plugins", None), ("GET", "/plugins/x/json", None), ("DELETE", "/plugins/x", None), ("POST", "/plugins/x/disable", None)],
    "prefixes": [("GET", "/containers//json", None), ("GET", "/containers/%20/json", None)],
}  # fmt: skip
