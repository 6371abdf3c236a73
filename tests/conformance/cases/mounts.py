"""What containers mount: what is accepted, how it is shown, and the texts for what is wrong."""

from __future__ import annotations

from typing import Any

from tests.conformance.ask import Request, created

IMAGE = {"Image": "busybox", "Cmd": ["true"]}


def refused(*hosts: dict[str, Any]) -> list[Request]:
    """Creations that an engine refuses; one that it does not is removed again."""
    return [("POST", "/containers/create", {**IMAGE, "HostConfig": host}) for host in hosts]


def binds(*texts: str) -> list[Request]:
    return refused(*({"Binds": [text]} for text in texts))


def mounts(*specs: dict[str, Any]) -> list[Request]:
    return refused(*({"Mounts": [spec]} for spec in specs))


BIND = {"Type": "bind", "Source": "/tmp", "Target": "/x"}
VOLUME = {"Type": "volume", "Source": "conf-volume", "Target": "/x"}
NAMED = {**IMAGE, "HostConfig": {"Binds": ["conf-volume:/data"]}}
INSPECT: Request = ("GET", "/containers/conf-box/json", None)
CASES: dict[str, list[Request]] = {
    "bad binds": binds("", ":/x", "/a:/b:ro:x", "/a:/b:xyz", "/a:ro", "/a:/", "/a:b", "a:b", "vola:/b:rshared", "/a:/b:nocopy", "vola:/b:ro,rw", "/a:/b:cached,delegated", "/", "a:/.."),
    "bad names of volumes in binds": binds("a:/b", "../x:/y"),
    "duplicate mounts": refused(
        {"Binds": ["/tmp:/b", "/var:/b"]}, {"Binds": ["/tmp:/b"], "Tmpfs": {"/b": ""}}, {"Binds": ["/tmp:/b"], "Mounts": [{"Type": "tmpfs", "Target": "/b/"}]},
        {"Mounts": [{"Type": "tmpfs", "Target": "/b"}, {"Type": "tmpfs", "Target": "/b"}]},
    ),
    "bad tmpfs targets": refused({"Tmpfs": {"b": ""}}, {"Tmpfs": {"/": ""}}),
    "bad bind mounts": mounts(
        {"Type": "bind", "Target": "/x"}, {"Type": "bind", "Source": "/tmp"}, {**BIND, "Source": "tmp"}, {**BIND, "Source": "/no/such"}, {**BIND, "Target": "x"}, {**BIND, "Target": "/"},
        {**BIND, "BindOptions": {"Propagation": "abc"}}, {**BIND, "VolumeOptions": {}}, {**BIND, "ImageOptions": {}}, {**BIND, "TmpfsOptions": {}},
    ),
    "bad volume mounts": mounts(
        {"Type": "volume", "Target": "/x", "ReadOnly": True}, {"Type": "volume", "Target": "/x", "VolumeOptions": {"Subpath": "a"}}, {**VOLUME, "VolumeOptions": {"Subpath": "../a"}},
        {**VOLUME, "VolumeOptions": {"Subpath": "/a"}}, {**VOLUME, "BindOptions": {}}, {**VOLUME, "ImageOptions": {}}, {**VOLUME, "Source": "/tmp"},
    ),
    "bad tmpfs mounts": mounts(
        {"Type": "tmpfs", "Target": "/x", "Source": "a"}, {"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [["bad"]]}},
        {"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [["a", "b", "c"]]}}, {"Type": "tmpfs", "Target": "/x", "BindOptions": {}},
    ),
    "bad image mounts": mounts(
        {"Type": "image", "Target": "/x"}, {"Type": "image", "Source": "conf-nosuch", "Target": "/x"}, {"Type": "image", "Source": "busybox", "Target": "/x", "ImageOptions": {"Subpath": "/a"}},
    ),
    "bad mount types": mounts(*({"Type": kind, "Source": "/tmp", "Target": "/x"} for kind in ("cluster", "npipe", "", "nosuch"))),
    "bad volumes-from": refused(*({"VolumesFrom": [text]} for text in ("", "conf-nosuch", "conf-nosuch:xx", "conf-nosuch:nocopy", "conf-nosuch:rslave", ":ro"))),
    "mounts that cannot be started": [
        request
        for spec in ({**BIND, "BindOptions": {"ReadOnlyNonRecursive": True}}, {**BIND, "BindOptions": {"ReadOnlyForceRecursive": True}},
                     {**BIND, "ReadOnly": True, "BindOptions": {"ReadOnlyForceRecursive": True, "ReadOnlyNonRecursive": True}})
        for request in created({**IMAGE, "HostConfig": {"Mounts": [spec]}}, ("POST", "/containers/conf-box/start", None))
    ] + created({**IMAGE, "HostConfig": {"Tmpfs": {"/x": "nosuch=1"}}}, ("POST", "/containers/conf-box/start", None)),
    "mounts shown": created(
        {**IMAGE, "Volumes": {"/v": {}}, "HostConfig": {"Binds": ["/tmp:/b:ro"], "Tmpfs": {"/t": "size=1m"}}}, INSPECT,
        ("GET", '/containers/json?all=1&filters={"volume":["/b"],"name":["conf-box"]}', None),
    ),
    "volume in use": [
        ("POST", "/volumes/create", {"Name": "conf-volume"}), *created(NAMED, INSPECT, ("DELETE", "/volumes/conf-volume", None), ("DELETE", "/volumes/conf-volume?force=1", None),
        ("GET", '/volumes?filters={"dangling":["false"],"name":["conf-volume"]}', None), ("GET", '/containers/json?all=1&filters={"volume":["conf-volume"]}', None)),
        ("DELETE", "/volumes/conf-volume", None),
    ],
    "image mounted": created({**IMAGE, "HostConfig": {"Mounts": [{"Type": "image", "Source": "busybox", "Target": "/img"}]}}, INSPECT),
}  # fmt: skip
