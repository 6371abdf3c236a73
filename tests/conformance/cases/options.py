"""Create options: many keys at once and what inspect shows of them, warnings, refusals."""

from __future__ import annotations

from typing import Any

from tests.conformance.ask import RUN, Request, created


def _refused(host: dict[str, Any], **config: Any) -> Request:
    return ("POST", "/containers/create?name=conf-refused", RUN | config | {"HostConfig": host})


_MANY = {
    "Memory": 67108864, "MemoryReservation": 33554432, "CpuShares": 512, "NanoCpus": 500000000, "CpusetCpus": "0", "PidsLimit": 50,
    "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}], "CapAdd": ["NET_ADMIN"], "CapDrop": ["MKNOD"], "SecurityOpt": ["no-new-privileges"],
    "Sysctls": {"net.ipv4.ip_default_ttl": "99"}, "Tmpfs": {"/t": "size=1m"}, "ShmSize": 1048576, "ReadonlyRootfs": True, "IpcMode": "shareable",
    "GroupAdd": ["audio"], "Annotations": {"a": "b"}, "ExtraHosts": ["far:10.0.0.1"], "Dns": ["9.9.9.9"], "DnsOptions": ["ndots:1"],
    "DnsSearch": ["x.test"], "OomScoreAdj": 100, "CpuCount": 2, "CgroupnsMode": "private", "ConsoleSize": [10, 20], "Devices": [
        {"PathOnHost": "/dev/null", "PathInContainer": "/dev/mine", "CgroupPermissions": "rw"}], "DeviceCgroupRules": ["c 1:3 rwm"],
}  # fmt: skip

CASES: dict[str, list[Request]] = {
    "many options": created(
        RUN | {"HostConfig": _MANY, "Hostname": "h", "Domainname": "d", "User": "0:0", "WorkingDir": "/a/../b", "Env": ["A=b"], "Labels": {"x": "y"},
               "StopSignal": "SIGQUIT", "StopTimeout": 3, "OnBuild": ["RUN x"], "Shell": ["/bin/x"]},
        ("GET", "/containers/conf-box/json", None), ("POST", "/containers/conf-box/start", None), ("GET", "/containers/conf-box/json", None),
    ),
    "options warned about": created(RUN | {"HostConfig": {"CpuPercent": 5, "OomKillDisable": True}}, ("GET", "/containers/conf-box/json", None)),
    "privileged": created(RUN | {"HostConfig": {"Privileged": True, "PidMode": "host"}}, ("GET", "/containers/conf-box/json", None)),
    "options refused": [
        _refused({"Isolation": "hyperv"}), _refused({"IOMaximumIOps": 5}), _refused({"IOMaximumBandwidth": 5}), _refused({"CpuShares": -1}),
        _refused({"CpuRealtimePeriod": 1000, "CpuRealtimeRuntime": 100000}), _refused({"IpcMode": "foo"}), _refused({"PidMode": "container:"}),
        _refused({"PidMode": "container:zz"}), _refused({"UTSMode": "private"}), _refused({"CgroupnsMode": "foo"}), _refused({"CapAdd": ["NOPE"]}),
        _refused({"Annotations": {"": "x"}}), _refused({"ExtraHosts": ["foo"]}), _refused({"ExtraHosts": ["foo:bar"]}), _refused({"Runtime": "nosuch"}),
        _refused({"ShmSize": -1}), _refused({"Tmpfs": {"x": ""}}), _refused({"NanoCpus": 999000000000}), _refused({"CpusetCpus": "99"}),
        _refused({"UTSMode": "host"}, Hostname="x"), _refused({}, WorkingDir="x"), _refused({}, Env=["=x"]), _refused({}, StopSignal="x"),
        ("GET", '/containers/json?filters={"publish":["1:2"]}', None), ("GET", '/containers/json?filters={"is-task":["false"],"expose":["80/tcp"]}', None),
    ],
}  # fmt: skip
