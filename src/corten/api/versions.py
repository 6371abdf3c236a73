"""What older API versions have differently: one table, applied at the border to queries, bodies and answers.

Handlers and services know only the newest version. A row says: before this version, this place of this endpoint is as
`older` makes it. What is not a matter of a value's shape (a head that is sent early, a content type) is a name in `Since`, which
handlers ask for. Must not hold any endpoint's logic.
Source: moby docs/api/version-history.md and api/server/router at v28.5.2; held to the real engine by tests/conformance/cases/versions.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Final

from corten.errors import Invalid

Version = tuple[int, int]
Object = dict[str, Any]
Older = Callable[[Object], Any]


class _Absent(Enum):
    ABSENT = 0


ABSENT: Final = _Absent.ABSENT


class Since:
    """Behaviours by the version that brought them."""

    WAIT_CONDITIONS: Final = (1, 30)  # and the head of `wait` goes out at registration
    NO_FILTER_PARAMETER: Final = (1, 41)  # of the image list: a reference pattern
    MULTIPLEXED_TYPE: Final = (1, 42)  # the content type of framed streams
    ANONYMOUS_PRUNE: Final = (1, 42)  # pruning spares volumes that have a name
    CLUSTER_VOLUMES: Final = (1, 42)
    IMAGE_CREATE_EVENTS: Final = (1, 46)


@dataclass(frozen=True)
class Gate:
    """`place` is query, body or answer; `*` in a path is every item of a list or map. `older` gets the object around the last key."""

    before: Version
    route: str
    place: str
    path: tuple[str, ...]
    older: Older


def _absent(_around: Object) -> Any:
    return ABSENT


def _query(before: Version, route: str, *names: str) -> list[Gate]:
    return [Gate(before, route, "query", (name,), _absent) for name in names]


def _body(before: Version, route: str, path: str, older: Older = _absent) -> list[Gate]:
    return [Gate(before, route, "body", tuple(path.split(".")), older)]


def _answer(before: Version, route: str, path: str, older: Older = _absent) -> list[Gate]:
    return [Gate(before, route, "answer", tuple(path.split(".")), older)]


# --- values that older versions have
def _refused(key: str, text: str) -> Older:
    def older(around: Object) -> Any:
        if around.get(key):
            raise Invalid(text)
        return ABSENT

    return older


def _only_for(mount_type: str, key: str) -> Older:
    """Options that do not fit the mount's type were dropped without a word."""
    return lambda mount: mount[key] if key in mount and mount.get("Type") == mount_type else ABSENT


def _no_image_mount(mount: Object) -> Any:
    if mount.get("Type") == "image":
        raise Invalid('Mount type "Image" needs API v1.48 or newer')
    return mount.get("Type", ABSENT)


def _one_network(networking: Object) -> Any:
    endpoints = networking.get("EndpointsConfig")
    if isinstance(endpoints, dict) and len(endpoints) > 1:
        raise Invalid(f"Container cannot be created with multiple network endpoints: {', '.join(endpoints)}")
    return endpoints


def _without_warning(start: str) -> Older:
    return lambda answer: [warning for warning in answer["Warnings"] or [] if not warning.startswith(start)]


def _names_only(info: Object) -> list[str]:
    """`name=seccomp,profile=builtin` was `seccomp`."""
    return [option.split(",")[0].removeprefix("name=") for option in info["SecurityOptions"] or []]


def _with_short_id(inspected: Object) -> Object:
    """A user-defined network's aliases held the short id and the host's name."""
    for name, endpoint in inspected["Networks"].items():
        if name not in ("bridge", "host", "none", "default") and not name.startswith("container:"):
            names = [*(endpoint["Aliases"] or []), *(endpoint.get("DNSNames") or [])[1:]]
            endpoint["Aliases"] = list(dict.fromkeys(names)) or None
    networks: Object = inspected["Networks"]
    return networks


_LEGACY_CONFIG: Object = {
    "AttachStderr": False, "AttachStdin": False, "AttachStdout": False, "Domainname": "", "Hostname": "", "Image": "",
    "OpenStdin": False, "StdinOnce": False, "Tty": False,
}  # fmt: skip


def _legacy_image_config(image: Object) -> Object:
    return {**_LEGACY_CONFIG, **image["Config"]}


def _empty_config(_image: Object) -> Object:
    """What the image was committed from; nothing for an image that was pulled or loaded."""
    empty: Object = {"Cmd": None, "Entrypoint": None, "Env": None, "Labels": None, "OnBuild": None, "User": "", "Volumes": None, "WorkingDir": ""}
    return {**_LEGACY_CONFIG, **empty}


def _none_digest(image: Object) -> list[str]:
    return image["RepoDigests"] or ([] if image["RepoTags"] else [_NO_DIGEST])


def _none_tag(image: Object) -> list[str]:
    """Runs after the digests have theirs: only an image without any name gets the placeholder."""
    return image["RepoTags"] or (["<none>:<none>"] if image["RepoDigests"] == [_NO_DIGEST] else [])


def _shareable(body: Object) -> Object:
    host = body.get("HostConfig") or {}
    return host | {"IpcMode": host.get("IpcMode") or "shareable"} if isinstance(host, dict) else host


_NO_DIGEST = "<none>@<none>"
_CREATE, _LIST, _INSPECT = "POST /containers/create", "GET /containers/json", "GET /containers/{name}/json"
_INFO, _IMAGES, _IMAGE = "GET /info", "GET /images/json", "GET /images/{name}/json"
_MOUNT = "HostConfig.Mounts.*"

GATES: list[Gate] = [
    # --- containers
    *_body((1, 25), _CREATE, "HostConfig.AutoRemove"),  # the client removed it itself
    *_body((1, 40), _CREATE, f"{_MOUNT}.BindOptions.NonRecursive"),
    *_body((1, 40), _CREATE, "HostConfig", _shareable),
    *_query((1, 41), _CREATE, "platform"),
    *_body((1, 42), _CREATE, f"{_MOUNT}.BindOptions.CreateMountpoint"),
    *_body((1, 42), _CREATE, f"{_MOUNT}.VolumeOptions", _only_for("volume", "VolumeOptions")),
    *_body((1, 42), _CREATE, f"{_MOUNT}.TmpfsOptions", _only_for("tmpfs", "TmpfsOptions")),
    *_body((1, 42), _CREATE, "HostConfig.ConsoleSize"),
    *_body((1, 43), _CREATE, "HostConfig.Annotations"),
    *_body((1, 44), _CREATE, "Healthcheck.StartInterval"),
    *_body((1, 44), _CREATE, f"{_MOUNT}.BindOptions.ReadOnlyForceRecursive",
           _refused("ReadOnlyForceRecursive", "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")),
    *_body((1, 44), _CREATE, "NetworkingConfig.EndpointsConfig", _one_network),
    *_body((1, 44), _CREATE, "NetworkingConfig.EndpointsConfig.*.MacAddress"),
    *_body((1, 45), _CREATE, f"{_MOUNT}.VolumeOptions.Subpath", _refused("Subpath", "VolumeOptions.Subpath needs API v1.45 or newer")),
    *_body((1, 48), _CREATE, "NetworkingConfig.EndpointsConfig.*.GwPriority"),
    *_body((1, 48), _CREATE, f"{_MOUNT}.Type", _no_image_mount),
    *_answer((1, 44), _CREATE, "Warnings", _without_warning("The container-wide MacAddress field is now deprecated")),
    *_answer((1, 48), _CREATE, "Warnings", _without_warning("WARNING: the container-wide volume-driver")),
    *_answer((1, 45), _INSPECT, "NetworkSettings.Networks", _with_short_id),
    *_answer((1, 46), _LIST, "*.HostConfig.Annotations"),
    *_query((1, 41), "GET /containers/{name}/stats", "one-shot"),
    *_query((1, 42), "POST /containers/{name}/stop", "signal"),
    *_query((1, 42), "POST /containers/{name}/restart", "signal"),
    *_query((1, 30), "POST /containers/{name}/wait", "condition"),
    *_body((1, 40), "POST /containers/{name}/update", "PidsLimit"),
    # --- execs
    *_body((1, 42), "POST /containers/{name}/exec", "ConsoleSize"),
    *_body((1, 42), "POST /exec/{id}/start", "ConsoleSize"),
    # --- the engine
    *_answer((1, 25), _INFO, "SecurityOptions", _names_only),
    *_answer((1, 42), _INFO, "KernelMemory", lambda info: info["MemoryLimit"] and info["CgroupVersion"] == "1"),
    *_answer((1, 44), _INFO, "Runtimes.*.status"),
    *_answer((1, 46), _INFO, "Containerd"),
    *_answer((1, 47), _INFO, "RegistryConfig.AllowNondistributableArtifactsCIDRs", lambda _: None),
    *_answer((1, 47), _INFO, "RegistryConfig.AllowNondistributableArtifactsHostnames", lambda _: None),
    *_answer((1, 49), _INFO, "FirewallBackend"),
    *_answer((1, 49), _INFO, "RuncCommit.Expected", lambda commit: commit["ID"]),
    *_answer((1, 49), _INFO, "InitCommit.Expected", lambda commit: commit["ID"]),
    *_answer((1, 50), _INFO, "DiscoveredDevices"),
    *_answer((1, 50), _INFO, "BridgeNfIptables", lambda _: False),
    *_answer((1, 50), _INFO, "BridgeNfIp6tables", lambda _: False),
    *_query((1, 42), "GET /system/df", "type"),
    *_answer((1, 44), "GET /system/df", "Images.*.VirtualSize", lambda image: image["Size"]),
    # --- images
    *_query((1, 42), _IMAGES, "shared-size"),
    *_query((1, 47), _IMAGES, "manifests"),
    *_answer((1, 43), _IMAGES, "*.RepoDigests", _none_digest),
    *_answer((1, 43), _IMAGES, "*.RepoTags", _none_tag),
    *_answer((1, 44), _IMAGES, "*.VirtualSize", lambda image: image["Size"]),
    *_answer((1, 48), _IMAGES, "*.Descriptor"),
    *_answer((1, 51), _IMAGES, "*.Containers", lambda _: -1),
    *_query((1, 48), _IMAGE, "manifests"),
    *_query((1, 49), _IMAGE, "platform"),
    *_answer((1, 44), _IMAGE, "VirtualSize", lambda image: image["Size"]),
    *_answer((1, 45), _IMAGE, "ContainerConfig", _empty_config),
    *_answer((1, 48), _IMAGE, "Descriptor"),
    *_answer((1, 50), _IMAGE, "Config", _legacy_image_config),
    *_query((1, 48), "GET /images/{name}/history", "platform"),
    *_query((1, 50), "DELETE /images/{name}", "platforms"),
    *_query((1, 46), "POST /images/{name}/push", "platform"),
    *_query((1, 48), "POST /images/load", "platform"),
    *_query((1, 48), "GET /images/get", "platform"),
    *_query((1, 48), "GET /images/{name}/get", "platform"),
    *_query((1, 32), "POST /images/create", "platform"),
]  # fmt: skip


@dataclass(frozen=True)
class Differences:
    """What one version of one endpoint has differently."""

    query: frozenset[str]
    body: tuple[Gate, ...]
    answer: tuple[Gate, ...]


@cache
def differences(route: str, version: Version) -> Differences:
    """Pure. Nothing for the newest version, so that the usual request costs one look-up."""
    there = [gate for gate in GATES if gate.route == route and version < gate.before]
    return Differences(
        frozenset(gate.path[0] for gate in there if gate.place == "query"),
        tuple(gate for gate in there if gate.place == "body"),
        tuple(gate for gate in there if gate.place == "answer"),
    )


def apply(gates: Iterable[Gate], value: Any) -> None:
    """Change a decoded body or answer in place. Raises Invalid for what an older version refuses."""
    for gate in gates:
        for around in _objects(value, gate.path[:-1]):
            older = gate.older(around)
            if older is ABSENT:
                around.pop(gate.path[-1], None)
            else:
                around[gate.path[-1]] = older


def _objects(value: Any, path: tuple[str, ...]) -> Iterable[Object]:
    """Every object that the path leads to; what is not there or not an object is passed over."""
    if not path:
        if isinstance(value, dict):
            yield value
    elif path[0] != "*":
        if isinstance(value, dict):
            yield from _objects(value.get(path[0]), path[1:])
    else:
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from _objects(item, path[1:])
