"""The same endpoints as older versions have them. Of these answers Corten may not show more than Docker either."""

from __future__ import annotations

from tests.conformance.ask import RUN, Request, created

VERSIONS = ("1.24", "1.30", "1.39", "1.41", "1.43", "1.44", "1.45", "1.47", "1.48", "1.51")
_MOUNTS = [{"Type": "bind", "Source": "/tmp", "Target": "/x", "BindOptions": {"ReadOnlyForceRecursive": True}}]


def _box(version: str) -> list[Request]:
    """A container through one version's eyes."""
    path = f"/v{version}/containers/conf-box"
    body = RUN | {"HostConfig": {"Annotations": {"a": "b"}}, "Healthcheck": {"Test": ["NONE"], "StartInterval": 5_000_000}}
    return [
        ("POST", f"/v{version}/containers/create?name=conf-box&platform=linux/nosuch", body),
        *created(body, ("POST", f"{path}/start", None), ("GET", f"{path}/json", None),
                 ("GET", f'/v{version}/containers/json?filters={{"name":["conf-box"]}}', None),
                 ("POST", f"{path}/wait?condition=foo&t=1", None) if version != "1.24" else ("GET", f"{path}/top", None),
                 ("POST", f"{path}/exec", {"Cmd": ["true"], "ConsoleSize": [1, 2]}), ("GET", f"/v{version}/exec/{{ID}}/json", None),
                 ("POST", f"{path}/stop?signal=nosuch&t=0", None)),
    ]  # fmt: skip


def _image_queries(path: str) -> list[Request]:
    """Parameters that some versions know and some do not."""
    return [
        ("GET", f'{path}/json?filters={{"reference":["busybox:latest"]}}&shared-size=1&manifests=1&digests=1', None), ("GET", f"{path}/json?filter=conf-none", None),
        ("GET", f"{path}/busybox/json?manifests=1", None), ("GET", f"{path}/busybox/json?platform=x", None), ("POST", f"{path}/conf-none/push?tag=1&platform=x", None),
        ("POST", f"{path}/load?platform=x", {}), ("GET", f"{path}/conf-none/get?platform=x", None), ("GET", f"{path}/get?names=conf-none&platform=x", None),
        ("POST", f"{path}/create?fromImage=127.0.0.1:1/x&platform=l!nux", None), ("DELETE", f"{path}/conf-none?platforms=x", None),
    ]  # fmt: skip


def _network(path: str) -> list[Request]:
    return [
        ("POST", f"{path}/create", {"Name": "conf-net", "EnableIPv4": False, "EnableIPv6": True, "CheckDuplicate": True, "IPAM": {"Config": [{"Subnet": "fd00:c0f::/64"}]}}),
        ("GET", f"{path}/conf-net", None), ("GET", f'{path}?filters={{"name":["conf-net"]}}', None), ("GET", f"{path}/conf-net?scope=swarm", None),
        ("POST", f"{path}/conf-net/connect", {"Container": "conf-nosuch", "EndpointConfig": {"MacAddress": "x", "GwPriority": 1}}),
        ("DELETE", f"{path}/conf-net", None), ("POST", f'{path}/prune?filters={{"label":["conf-nosuch"]}}', None),
    ]  # fmt: skip


CASES: dict[str, list[Request]] = {
    **{f"info {version}": [("GET", f"/v{version}/info", None), ("GET", f"/v{version}/version", None)] for version in VERSIONS},
    **{f"images {version}": [("GET", f'/v{version}/images/json?filters={{"reference":["busybox:latest"]}}', None), ("GET", f"/v{version}/images/busybox/json", None),
                             ("GET", f"/v{version}/images/busybox/history?platform=x", None)]
       for version in VERSIONS},
    **{f"image queries {version}": _image_queries(f"/v{version}/images") for version in VERSIONS},
    **{f"network {version}": _network(f"/v{version}/networks") for version in VERSIONS},
    **{f"container {version}": _box(version) for version in VERSIONS},
    "refused before": [
        ("POST", "/v1.47/containers/create", RUN | {"HostConfig": {"Mounts": [{"Type": "image", "Source": "busybox", "Target": "/x"}]}}),
        ("POST", "/v1.44/containers/create", RUN | {"HostConfig": {"Mounts": [{"Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions": {"Subpath": "s"}}]}}),
        ("POST", "/v1.43/containers/create", RUN | {"HostConfig": {"Mounts": _MOUNTS}}),
        ("POST", "/v1.43/containers/create", RUN | {"NetworkingConfig": {"EndpointsConfig": {"conf-a": {}, "conf-a ": {}}}}),
    ],
}  # fmt: skip
