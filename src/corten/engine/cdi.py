"""CDI devices: which the host's spec files describe, which a request means, and what they change in a container's config.

Reads the files when a container that asks for one starts, so that a new file needs no restart. Source: CNCF
container-device-interface SPEC.md; Docker Engine 28.5 (moby daemon/cdi.go, daemon/devices.go) for texts. `--gpus`, which Docker
gives to nvidia-container-runtime, means the devices of the kind nvidia.com/gpu, or of the one kind of class gpu that there is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from corten.errors import Invalid
from corten.runtime.sandbox import GROUPS_ANNOTATION
from corten.spec import cdi
from corten.spec import runtime as oci
from corten.spec.engine import DeviceRequest

DEFAULT_FOLDERS = ("/etc/cdi", "/var/run/cdi")
_GPU = "nvidia.com/gpu"
_CLASS = "org.mobyproject.buildkit.device.class"  # an annotation


@dataclass(frozen=True)
class Found:
    """What the folders hold: qualified name -> (spec, device) and the faults of files and names, each a sentence."""

    devices: dict[str, tuple[cdi.Spec, cdi.Device]]
    faults: tuple[str, ...]


def look(folders: Sequence[str]) -> Found:
    """Of two devices of one name the later folder's holds; within a folder, neither."""
    devices: dict[str, tuple[cdi.Spec, cdi.Device]] = {}
    faults: list[str] = []
    for folder in folders:
        here: dict[str, tuple[cdi.Spec, cdi.Device]] = {}
        double: set[str] = set()
        for path in _files(folder):
            try:
                with open(path, "rb") as file:
                    spec = cdi.parse_spec(file.read(), yaml=not path.endswith(".json"))
            except (OSError, Invalid) as error:
                faults.append(f"{path}: {error.strerror if isinstance(error, OSError) else error.message}")
                continue
            for device in spec.devices:
                name = f"{spec.kind}={device.name}"
                if name in here:
                    double.add(name)
                    faults.append(f"{path}: device {name} is in another file of the folder too")
                here[name] = (spec, device)
        devices |= {name: row for name, row in here.items() if name not in double}
        for name in double:
            devices.pop(name, None)
    return Found(devices, tuple(faults))


def _files(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [os.path.join(folder, name) for name in names if name.endswith((".json", ".yaml", ".yml"))]


def check_requests(requests: list[DeviceRequest] | None) -> None:
    """What is wrong whatever the host has. Raises Invalid with Docker's texts."""
    for request in requests or []:
        if request.driver == "cdi":
            if request.count:
                raise Invalid("unexpected count in CDI device request")
            if request.options:
                raise Invalid("unexpected options in CDI device request")
        elif request.driver not in ("", "nvidia") or not _means_gpus(request):
            raise Invalid(f'could not select device driver "{request.driver}" with capabilities: {_go_list(request.capabilities)}')


def _means_gpus(request: DeviceRequest) -> bool:
    return any("gpu" in row for row in request.capabilities or [])


def _go_list(rows: list[list[str]] | None) -> str:
    return "[" + " ".join("[" + " ".join(row) + "]" for row in rows or []) + "]"


def wanted(requests: list[DeviceRequest], found: Found) -> list[str]:
    """The qualified names that the requests mean. Raises Invalid."""
    names: list[str] = []
    for request in requests:
        names += request.device_i_ds or [] if request.driver == "cdi" else _gpus(request, found)
    return list(dict.fromkeys(names))


def _gpus(request: DeviceRequest, found: Found) -> list[str]:
    kinds = sorted({name.partition("=")[0] for name in found.devices if name.partition("=")[0].endswith("/gpu")})
    if not kinds:
        faults = f" (CDI: {'; '.join(found.faults)})" if found.faults else ""
        raise Invalid(f'could not select device driver "{request.driver}" with capabilities: {_go_list(request.capabilities)}{faults}')
    if _GPU not in kinds and len(kinds) > 1:
        raise Invalid(f"--gpus: there are GPUs of several kinds ({', '.join(kinds)}); name one with --device KIND=NAME")
    kind = _GPU if _GPU in kinds else kinds[0]
    if request.device_i_ds:
        return [f"{kind}={name}" for name in request.device_i_ds]
    single = sorted(name for name in found.devices if name.startswith(f"{kind}=") and name.partition("=")[2].isdecimal())
    if request.count < 0:
        return [f"{kind}=all"] if f"{kind}=all" in found.devices else single
    if request.count > len(single):
        raise Invalid(f"--gpus: {request.count} asked for, but there are {len(single)} of the kind {kind}")
    return single[: request.count]


def of_build(name: str, found: Found, *, required: bool) -> list[str]:
    """The qualified names that a build step's `--device` means: a device, the first of a kind, all of a kind (`=*`), or those of a class.

    None if there is none and it is not `required`. Raises Invalid. Source: BuildKit's solver/llbsolver/cdidevices.
    """
    kind, _, device = name.partition("=")
    of_kind = sorted(each for each in found.devices if each.startswith(f"{kind}="))
    meant = of_kind if device == "*" else of_kind[:1] if not device else [each for each in of_kind if each == name]
    meant = meant or sorted(each for each, (spec, one) in found.devices.items() if name == _class_of(spec, one))
    if not meant and required:
        faults = f" (faulty: {'; '.join(found.faults)})" if found.faults else ""
        raise Invalid(f'required device "{name}" is not registered{faults}')
    return meant


def _class_of(spec: cdi.Spec, device: cdi.Device) -> str:
    return {**(spec.annotations or {}), **(device.annotations or {})}.get(_CLASS, "")


def inject(config: oci.RuntimeConfig, names: list[str], found: Found) -> oci.RuntimeConfig:
    """The config with each device's edits, its spec's own first. Raises Invalid for names that nothing describes."""
    missing = [name for name in names if cdi.split_name(name) is None or name not in found.devices]
    if missing:
        faults = f" (faulty: {'; '.join(found.faults)})" if found.faults else ""
        raise Invalid(f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}{faults}")
    edited: list[cdi.ContainerEdits] = []
    for name in names:
        spec, device = found.devices[name]
        if spec.container_edits not in edited:
            edited.append(spec.container_edits)
        edited.append(device.container_edits)
    for edits in edited:
        config = _apply(config, edits)
    return config


def _apply(config: oci.RuntimeConfig, edits: cdi.ContainerEdits) -> oci.RuntimeConfig:
    process, linux = config.process or oci.Process([], "/"), config.linux or oci.Linux()
    resources = linux.resources or oci.Resources()
    nodes = [_node(node) for node in edits.device_nodes or []]
    paths = {device.path for device, _ in nodes}
    mounts = [oci.Mount(mount.container_path, mount.type or "bind", mount.host_path, mount.options or ["rbind"]) for mount in edits.mounts or []]
    taken = {mount.destination for mount in mounts}
    return msgspec.structs.replace(
        config,
        process=msgspec.structs.replace(process, env=_with_env(process.env or [], edits.env or [])),
        mounts=[*(mount for mount in config.mounts or [] if mount.destination not in taken), *mounts],
        hooks=_with_hooks(config.hooks or oci.Hooks(), edits.hooks) if edits.hooks else config.hooks,
        annotations=_with_groups(config.annotations or {}, edits.additional_gids or []),
        linux=msgspec.structs.replace(
            linux,
            devices=[*(device for device in linux.devices or [] if device.path not in paths), *(device for device, _ in nodes)],
            resources=msgspec.structs.replace(resources, devices=[*(resources.devices or []), *(rule for _, rule in nodes)]),
        ),
    )


def _with_env(env: list[str], added: list[str]) -> list[str]:
    return list({entry.partition("=")[0]: entry for entry in (*env, *added)}.values())


def _with_groups(annotations: dict[str, str], gids: list[int]) -> dict[str, str]:
    groups = [name for name in annotations.get(GROUPS_ANNOTATION, "").split(",") if name] + [str(gid) for gid in gids if gid]
    return annotations | ({GROUPS_ANNOTATION: ",".join(groups)} if groups else {})


def _with_hooks(hooks: oci.Hooks, added: list[cdi.Hook]) -> oci.Hooks:
    fields = {"prestart": "prestart", "createRuntime": "create_runtime", "createContainer": "create_container",
              "startContainer": "start_container", "poststart": "poststart", "poststop": "poststop"}  # fmt: skip
    for hook in added:
        field = fields[hook.hook_name]
        made = oci.Hook(hook.path, hook.args, hook.env, hook.timeout)
        hooks = msgspec.structs.replace(hooks, **{field: [*(getattr(hooks, field) or []), made]})
    return hooks


def _node(node: cdi.DeviceNode) -> tuple[oci.Device, oci.DeviceRule]:
    """What the spec leaves out is read from the host's own node. Raises Invalid."""
    kind, major, minor = node.type, node.major, node.minor
    if not kind or major is None or minor is None:
        path = node.host_path or node.path
        try:
            status = os.stat(path)
        except OSError as error:
            raise Invalid(f"CDI device injection failed: failed to stat CDI host device {path!r}: {(error.strerror or '').lower()}") from None
        kind = kind or ("b" if stat.S_ISBLK(status.st_mode) else "c")
        major = os.major(status.st_rdev) if major is None else major
        minor = os.minor(status.st_rdev) if minor is None else minor
    device = oci.Device(node.path, kind, major, minor, node.file_mode, node.uid or 0, node.gid or 0)
    return device, oci.DeviceRule(True, node.permissions or "rwm", "c" if kind == "u" else kind, major, minor)
