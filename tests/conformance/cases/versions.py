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


CASES: dict[str, list[Request]] = {
    **{f"info {version}": [("GET", f"/v{version}/info", None), ("GET", f"/v{version}/version", None)] for version in VERSIONS},
    **{f"images {version}": [("GET", f'/v{version}/images/json?filters={{"reference":["busybox:latest"]}}', None), ("GET", f"/v{version}/images/busybox/json", None),
                             ("GET", f"/v{version}/images/busybox/history?platform=x", None)]
       for version in VERSIONS},
    **{f"container {version}": _box(version) for version in VERSIONS},
    "refused before": [
        ("POST", "/v1.47/containers/create", RUN | {"HostConfig": {"Mounts": [{"Type": "image", "Source": "busybox", "Target": "/x"}]}}),
        ("POST", "/v1.44/containers/create", RUN | {"HostConfig": {"Mounts": [{"Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions": {"Subpath": "s"}}]}}),
        ("POST", "/v1.43/containers/create", RUN | {"HostConfig": {"Mounts": _MOUNTS}}),
        ("POST", "/v1.43/containers/create", RUN | {"NetworkingConfig": {"EndpointsConfig": {"conf-a": {}, "conf-a ": {}}}}),
    ],
}  # fmt: skip
