"""Container Device Interface specs: what a vendor's file says of its devices. Pure: parse and validate.

Errors name the file's key or line. Source: CNCF container-device-interface SPEC.md 1.0 (kinds, names, containerEdits).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from corten.errors import Invalid
from corten.spec.foreign_json import decode

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?"
_KIND = re.compile(r"([A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?)/([A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)")
_DEVICE = re.compile(_NAME)
HOOK_NAMES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


class _Cdi(msgspec.Struct, frozen=True, rename="camel"):
    """Base: camelCase keys."""


class DeviceNode(_Cdi, frozen=True):
    path: str
    host_path: str = ""
    type: str = ""
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class Mount(_Cdi, frozen=True):
    host_path: str
    container_path: str
    type: str = ""
    options: list[str] | None = None


class Hook(_Cdi, frozen=True):
    hook_name: str
    path: str
    args: list[str] | None = None
    env: list[str] | None = None
    timeout: int | None = None


class ContainerEdits(_Cdi, frozen=True):
    env: list[str] | None = None
    device_nodes: list[DeviceNode] | None = None
    mounts: list[Mount] | None = None
    hooks: list[Hook] | None = None
    additional_gids: list[int] | None = msgspec.field(default=None, name="additionalGids")
    intel_rdt: dict[str, Any] | None = None
    net_devices: list[dict[str, Any]] | None = None


class Device(_Cdi, frozen=True):
    name: str
    container_edits: ContainerEdits
    annotations: dict[str, str] | None = None


class Spec(_Cdi, frozen=True):
    cdi_version: str
    kind: str
    devices: list[Device]
    container_edits: ContainerEdits = ContainerEdits()
    annotations: dict[str, str] | None = None


def parse_spec(data: bytes, *, yaml: bool) -> Spec:
    """Raises Invalid naming key or line."""
    try:
        spec = msgspec.convert(_load_yaml(data), Spec) if yaml else decode(data, Spec)
    except msgspec.DecodeError as error:  # a ValidationError too: its text names the key
        raise Invalid(str(error)) from None
    if not _KIND.fullmatch(spec.kind):
        raise Invalid(f"kind: {spec.kind!r} is not of the form vendor.com/class")
    _check_edits(spec.container_edits, "containerEdits")
    for number, device in enumerate(spec.devices):
        if not _DEVICE.fullmatch(device.name):
            raise Invalid(f"devices[{number}].name: {device.name!r} is not a device name")
        if device.container_edits == ContainerEdits():
            raise Invalid(f"devices[{number}].containerEdits: empty")
        _check_edits(device.container_edits, f"devices[{number}].containerEdits")
    names = [device.name for device in spec.devices]
    for name in names:
        if names.count(name) > 1:
            raise Invalid(f"devices: two of them are named {name!r}")
    return spec


def _load_yaml(data: bytes) -> Any:
    import yaml  # only a vendor's file needs it

    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise Invalid(f"{where}{getattr(error, 'problem', None) or error}") from None


def _check_edits(edits: ContainerEdits, key: str) -> None:
    for number, entry in enumerate(edits.env or []):
        if "=" not in entry or entry.startswith("="):
            raise Invalid(f"{key}.env[{number}]: {entry!r} is not of the form NAME=VALUE")
    for number, node in enumerate(edits.device_nodes or []):
        if not node.path.startswith("/"):
            raise Invalid(f"{key}.deviceNodes[{number}].path: {node.path!r} is not absolute")
        if node.type not in ("", "b", "c", "u", "p"):
            raise Invalid(f"{key}.deviceNodes[{number}].type: {node.type!r} is none of b, c, u, p")
        if set(node.permissions) - set("rwm"):
            raise Invalid(f"{key}.deviceNodes[{number}].permissions: {node.permissions!r} has other letters than r, w, m")
    for number, mount in enumerate(edits.mounts or []):
        if not mount.host_path or not mount.container_path.startswith("/"):
            raise Invalid(f"{key}.mounts[{number}]: hostPath and an absolute containerPath are needed")
    for number, hook in enumerate(edits.hooks or []):
        if hook.hook_name not in HOOK_NAMES:
            raise Invalid(f"{key}.hooks[{number}].hookName: {hook.hook_name!r} is none of {', '.join(HOOK_NAMES)}")
        if not hook.path.startswith("/"):
            raise Invalid(f"{key}.hooks[{number}].path: {hook.path!r} is not absolute")
    if edits.intel_rdt or edits.net_devices:
        raise Invalid(f"{key}: intelRdt and netDevices are not supported by Corten yet")


def split_name(qualified: str) -> tuple[str, str] | None:
    """`vendor.com/class=name` -> (kind, name); None if it is not one."""
    kind, equals, name = qualified.partition("=")
    return (kind, name) if equals and _KIND.fullmatch(kind) and _DEVICE.fullmatch(name) else None
