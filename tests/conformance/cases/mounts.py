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


def starts(*hosts: dict[str, Any]) -> list[Request]:
    """Containers that are made and cannot be started."""
    return [request for host in hosts for request in created({**IMAGE, "HostConfig": host}, ("POST", "/containers/conf-box/start", None))]


def volume_starts(*options: dict[str, str]) -> list[Request]:
    """Volumes whose options no kernel takes, found out when they are mounted."""
    return [request for option in options for request in (
        ("POST", "/volumes/create", {"Name": "conf-volume", "DriverOpts": option}), *starts({"Binds": ["conf-volume:/data"]}), ("DELETE", "/volumes/conf-volume", None),
    )]  # fmt: skip


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
    ] + starts({"Tmpfs": {"/x": "nosuch=1"}}),
    "file over folder, folder over file": [*starts(
        {"Binds": ["/etc/hostname:/etc"]}, {"Binds": ["/tmp:/etc/passwd"]}, {"Binds": ["/tmp:/etc/passwd/x"]}, {"Tmpfs": {"/etc/passwd": ""}},
        {"Mounts": [{**BIND, "Source": "/etc/hostname", "Target": "/tmp"}]}, {"Binds": ["conf-volume:/etc/passwd:nocopy"]},
    ), ("DELETE", "/volumes/conf-volume", None)],
    "forbidden targets": starts(
        *({"Binds": [f"/tmp:{target}"]} for target in ("/proc", "/proc/sys", "/proc/1/x", "/proc/nosuch", "/sys/nosuch", "/dev/../proc/1")), {"Tmpfs": {"/proc/x": ""}},
    ),
    "sources that are none": refused({"Binds": ["/etc/hostname/x:/x"]}, {"Mounts": [{**BIND, "Source": "/etc/hostname/x"}]}, {"Binds": ["./x:/x"]}, {"Binds": ["x/y:/x"]})
    + starts({"Binds": ["/etc/hostname/x:/x"]}),
    "subpaths that are none": [
        ("POST", "/volumes/create", {"Name": "conf-volume"}),
        *starts(*({"Mounts": [{**VOLUME, "VolumeOptions": {"Subpath": path}}]} for path in ("nosuch", "a/b", ".", "./x", "a/../b"))),
        ("DELETE", "/volumes/conf-volume", None),
    ],
    "volumes that cannot be mounted": volume_starts(
        {"type": "none", "device": "/no/such", "o": "bind"}, {"type": "nosuch", "device": "x"}, {"type": "tmpfs", "device": "tmpfs", "o": "size=abc"},
        {"type": "tmpfs", "device": "tmpfs", "o": "nosuch"}, {"type": "none", "device": "/etc/hostname", "o": "bind"}, {"type": "ext4", "device": "/dev/nosuch"},
    ),
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
