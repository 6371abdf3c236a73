"""Volumes."""

from __future__ import annotations

from tests.conformance.ask import Request

V = "conf-volume"
CASES: dict[str, list[Request]] = {
    "volume": [
        ("POST", "/volumes/create", {"Name": V, "Labels": {"a": "b"}}), ("POST", "/volumes/create", {"Name": V, "Driver": "local"}), ("GET", f"/volumes/{V}", None),
        ("GET", f'/volumes?filters={{"name":["^{V}$"],"driver":["local"],"label":["a=b"],"dangling":["true"]}}', None),
        ("GET", f'/volumes?filters={{"name":{{"{V}":true}},"dangling":["0"]}}', None), ("GET", '/volumes?filters={"name":["[("]}', None),
        ("GET", f'/volumes?filters={{"label":["a=c"],"name":["{V}"]}}', None), ("GET", '/volumes?filters={"driver":["nosuch"]}', None),
        ("DELETE", f"/volumes/{V}", None), ("GET", f"/volumes/{V}", None), ("DELETE", f"/volumes/{V}", None), ("DELETE", f"/volumes/{V}?force=1", None),
    ],
    "volume without labels": [("POST", "/volumes/create", {"Name": V}), ("DELETE", f"/volumes/{V}?force=true", None)],
    "volume names": [("POST", "/volumes/create", {"Name": name}) for name in ("a", "ab/c", "-ab", ".ab", "a b", "/tmp/x", "ä")],
    "volume options": [
        ("POST", "/volumes/create", {"Name": V, "DriverOpts": options})
        for options in ({"foo": "bar"}, {"type": "tmpfs"}, {"device": "/x"}, {"o": "ro"}, {"size": "abc"}, {"type": "cifs", "device": "//host:445/share", "o": ""})
    ],
    "volume filters": [
        ("GET", '/volumes?filters={"nosuch":["a"]}', None), ("GET", '/volumes?filters={"dangling":["abc"]}', None),
        ("GET", "/volumes?filters=abc", None), ("POST", '/volumes/prune?filters={"nosuch":["1"]}', None), ("POST", '/volumes/prune?filters={"all":["x"]}', None),
        ("POST", '/volumes/prune?filters={"label":["conf-nosuch"]}', None),
    ],
    "volume of a cluster": [("POST", "/volumes/create", {"ClusterVolumeSpec": {}})],
    "volume update": [("PUT", f"/volumes/{V}?version=1", {})],
    "volume prune": [
        ("POST", "/volumes/create", {"Labels": {"conf": "x"}}), ("POST", "/volumes/create", {"Name": V, "Labels": {"conf": "x"}}),
        ("POST", '/volumes/prune?filters={"label":["conf=x"]}', None), ("POST", '/volumes/prune?filters={"label":["conf=x"],"label!":["conf"],"all":["1"]}', None),
        ("GET", f"/volumes/{V}", None), ("POST", '/volumes/prune?filters={"label":["conf=x"],"all":["true"]}', None), ("GET", f"/volumes/{V}", None),
    ],
}  # fmt: skip
