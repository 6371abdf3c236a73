"""Records and images as the API shows them: Docker's keys, in Docker's shapes (Engine 28.5, API 1.51). Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from corten.engine import states
from corten.engine.execs import ExecRecord
from corten.engine.records import ContainerRecord, EndpointRecord, Health, MountRecord, VolumeRecord
from corten.engine.usage import ContainerUsage
from corten.spec.engine import Config, HostConfig
from corten.spec.image import RunConfig
from corten.spec.reference import parse_reference
from corten.spec.security import MASKED_PATHS, READONLY_PATHS
from corten.spec.timestamps import ZERO, parse_rfc3339, rfc3339_nano
from corten.store.images import Image
from corten.store.layout import Layout

_SECOND = 1_000_000_000
# Keys that Docker leaves out when they are empty.
_CONFIG_OMITTED = ("Healthcheck", "ArgsEscaped", "NetworkDisabled", "MacAddress", "StopSignal", "StopTimeout", "Shell", "ExposedPorts")
_HOST_OMITTED = ("Annotations", "StorageOpt", "Tmpfs", "Sysctls", "Init", "Mounts")


def _trim(shown: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in shown.items() if value or key not in keys}


def config_view(config: Config) -> dict[str, Any]:
    shown = _trim(msgspec.to_builtins(config), _CONFIG_OMITTED)
    shown["Labels"] = shown["Labels"] or {}
    return shown


def _config_of(record: ContainerRecord) -> dict[str, Any]:
    """The MAC address of the main network was the container's own once, and is shown there still."""
    mode, first = record.host_config.network_mode, next(iter(record.endpoints), None)
    mac = first.settings.mac_address if first and mode not in ("host", "none") else ""
    return config_view(record.config) | ({"MacAddress": mac} if mac else {})


def host_config_view(host: HostConfig, cgroupns: str) -> dict[str, Any]:
    shown = _trim(msgspec.to_builtins(host), _HOST_OMITTED)
    shown["CgroupnsMode"] = shown["CgroupnsMode"] or cgroupns
    if shown["MaskedPaths"] is None:
        shown["MaskedPaths"] = None if host.privileged else list(MASKED_PATHS)
    if shown["ReadonlyPaths"] is None:
        shown["ReadonlyPaths"] = None if host.privileged else list(READONLY_PATHS)
    if shown["OomKillDisable"] is None:
        shown["OomKillDisable"] = False
    shown["LogConfig"]["Config"] = shown["LogConfig"]["Config"] or {}
    return shown


def state_view(record: ContainerRecord) -> dict[str, Any]:
    state = record.state
    health = {"Health": health_view(state.health)} if state.health else {}
    return {
        "Status": state.status, "Running": states.is_up(record), "Paused": states.is_paused(record), "Restarting": states.is_restarting(record),
        "OOMKilled": state.oom_killed, "Dead": state.status == "dead", "Pid": state.pid, "ExitCode": state.exit_code,
        "Error": state.error, "StartedAt": state.started_at, "FinishedAt": state.finished_at, **health,
    }  # fmt: skip


def health_view(health: Health) -> dict[str, Any]:
    """`LastRestart` is Corten's own: why the container was restarted for being unhealthy."""
    log = [{"Start": probe.start, "End": probe.end, "ExitCode": probe.exit_code, "Output": probe.output} for probe in health.log]
    shown: dict[str, Any] = {"Status": health.status, "FailingStreak": health.failing_streak, "Log": log}
    if health.restarted_at:
        shown["LastRestart"] = {"At": health.restarted_at, "Reason": health.reason, "InARow": health.restarts}
    return shown


def _address_view(endpoint: EndpointRecord) -> dict[str, Any]:
    ip, _, prefix = endpoint.address.partition("/")
    ip6, _, prefix6 = endpoint.address6.partition("/")
    return {
        "EndpointID": endpoint.id, "Gateway": endpoint.gateway, "IPAddress": ip, "IPPrefixLen": int(prefix or 0),
        "IPv6Gateway": endpoint.gateway6, "GlobalIPv6Address": ip6, "GlobalIPv6PrefixLen": int(prefix6 or 0),
    }  # fmt: skip


def _endpoint_view(endpoint: EndpointRecord, names: list[str] | None = None) -> dict[str, Any]:
    asked = endpoint.settings
    return {
        "IPAMConfig": None if asked.ipam is None else msgspec.to_builtins(asked.ipam), "Links": asked.links, "Aliases": asked.aliases,
        "MacAddress": endpoint.mac or asked.mac_address, "DriverOpts": asked.driver_opts, "GwPriority": asked.gw_priority,
        "NetworkID": endpoint.network_id, **_address_view(endpoint), "DNSNames": names,
    }  # fmt: skip


def _networks_view(record: ContainerRecord, *, named: bool = False) -> dict[str, Any]:
    return {endpoint.network: _endpoint_view(endpoint, record.names_on(endpoint) if named else None) for endpoint in record.endpoints}


def ports_view(record: ContainerRecord) -> dict[str, Any]:
    if not states.is_running(record):
        return {}
    found: dict[str, Any] = {}
    for port in record.config.exposed_ports or {}:
        found[port if "/" in port else f"{port}/tcp"] = None
    for published in record.ports:
        key = f"{published.container_port}/{published.protocol}"
        found[key] = [*(found.get(key) or []), {"HostIp": published.host_ip, "HostPort": str(published.host_port)}]
    return found


def _network_settings(record: ContainerRecord) -> dict[str, Any]:
    running = states.is_running(record)
    default = next((endpoint for endpoint in record.endpoints if endpoint.network == "bridge"), EndpointRecord("bridge"))
    return {
        "Bridge": "", "SandboxID": record.id if running else "", "SandboxKey": f"/proc/{record.state.pid}/ns/net" if running else "",
        "Ports": ports_view(record), "HairpinMode": False, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None, "SecondaryIPv6Addresses": None,
        **_address_view(default), "MacAddress": default.mac, "Networks": _networks_view(record, named=True),
    }  # fmt: skip


def mounts_view(record: ContainerRecord, mountpoint: Callable[[str], str]) -> list[dict[str, Any]]:
    """`mountpoint` tells where the volume of a name is. Docker lists no mounts of `--tmpfs` here."""
    return [_mount_view(mount, mountpoint) for mount in record.mounts]


def _mount_view(mount: MountRecord, mountpoint: Callable[[str], str]) -> dict[str, Any]:
    source = mountpoint(mount.name) if mount.type == "volume" else mount.source
    return {
        "Type": mount.type, **({"Name": mount.name} if mount.name else {}), "Source": source, "Destination": mount.destination,
        **({"Driver": mount.driver} if mount.driver else {}), "Mode": mount.mode, "RW": mount.rw, "Propagation": mount.propagation,
    }  # fmt: skip


def graph_driver(layout: Layout, container_id: str, lower: list[str]) -> dict[str, Any]:
    base = layout.container(container_id)
    return {"Name": "overlay2", "Data": {
        "ID": container_id, "LowerDir": ":".join(lower), "MergedDir": f"{base}/rootfs", "UpperDir": f"{base}/upper", "WorkDir": f"{base}/work",
    }}  # fmt: skip


def inspect(record: ContainerRecord, layout: Layout, lower: list[str], exec_ids: list[str], cgroupns: str,
            mountpoint: Callable[[str], str]) -> dict[str, Any]:  # fmt: skip
    folder = layout.container(record.id)
    argv = record.argv
    return {
        "Id": record.id, "Created": record.created, "Path": argv[0], "Args": argv[1:], "State": state_view(record),
        "Image": record.image, "ResolvConfPath": f"{folder}/resolv.conf", "HostnamePath": f"{folder}/hostname",
        "HostsPath": f"{folder}/hosts", "LogPath": layout.log(record.id) if record.host_config.log_config.type == "json-file" else "",
        "Name": f"/{record.name}", "RestartCount": record.restarts.count, "Driver": "overlay2", "Platform": "linux",
        "MountLabel": "", "ProcessLabel": "", "AppArmorProfile": "", "ExecIDs": exec_ids or None,
        "HostConfig": host_config_view(record.host_config, cgroupns), "GraphDriver": graph_driver(layout, record.id, lower),
        "Mounts": mounts_view(record, mountpoint), "Config": _config_of(record), "NetworkSettings": _network_settings(record),
    }  # fmt: skip


def list_item(record: ContainerRecord, image_name: str, now: int, mountpoint: Callable[[str], str]) -> dict[str, Any]:
    mode = record.host_config.network_mode
    return {
        "Id": record.id, "Names": [f"/{record.name}"], "Image": image_name, "ImageID": record.image,
        "Command": shown_command(record.argv), "Created": parse_rfc3339(record.created) // _SECOND,
        "Ports": list_ports(record), "Labels": record.config.labels or {}, "State": record.state.status,
        "Status": status_text(record, now),
        "HostConfig": {"NetworkMode": mode, **({"Annotations": record.host_config.annotations} if record.host_config.annotations else {})},
        "NetworkSettings": {"Networks": _networks_view(record)}, "Mounts": mounts_view(record, mountpoint),
    }  # fmt: skip


def shown_command(argv: list[str]) -> str:
    """Arguments with a space stand in quotes, the program's name never."""
    return " ".join([argv[0], *(f"'{word}'" if " " in word else word for word in argv[1:])])


def list_ports(record: ContainerRecord) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for key, bindings in ports_view(record).items():
        text, _, protocol = key.partition("/")
        number = int(text.partition("-")[0])
        if bindings is None:
            found.append({"PrivatePort": number, "Type": protocol})
        for binding in bindings or []:
            found.append({"IP": binding["HostIp"], "PrivatePort": number, "PublicPort": int(binding["HostPort"]), "Type": protocol})
    return found


def human_duration(seconds: int) -> str:
    """As Docker words it (go-units HumanDuration)."""
    minutes, hours = seconds // 60, round(seconds / 3600)
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 14:
        return f"{hours // 24} days"
    if hours < 24 * 60:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def _remark(record: ContainerRecord) -> str:
    if states.is_paused(record):
        return " (Paused)"
    if record.state.health is None:
        return ""
    status = record.state.health.status
    return f" ({'health: ' if status == 'starting' else ''}{status})"


def status_text(record: ContainerRecord, now: int) -> str:
    state = record.state
    if states.is_running(record):
        since = human_duration((now - parse_rfc3339(state.started_at)) // _SECOND)
        return f"Up {since}" + _remark(record)
    if state.status in ("exited", "restarting"):
        return f"{state.status.capitalize()} ({state.exit_code}) {human_duration((now - parse_rfc3339(state.finished_at)) // _SECOND)} ago"
    return {"created": "Created", "removing": "Removal In Progress", "dead": "Dead"}[state.status]


def container_sizes(usage: ContainerUsage) -> dict[str, int]:
    """Docker leaves out what is empty."""
    return ({"SizeRw": usage.writable} if usage.writable else {}) | {"SizeRootFs": usage.whole}


# --- volumes
def volume_view(record: VolumeRecord, mountpoint: str, scope: str) -> dict[str, Any]:
    return {
        "CreatedAt": record.created, "Driver": record.driver, "Labels": record.labels, "Mountpoint": mountpoint,
        "Name": record.name, "Options": record.options, "Scope": scope,
    }  # fmt: skip


# --- images
def _familiar(references: tuple[str, ...]) -> list[str]:
    return [parse_reference(reference).familiar for reference in references]


def run_config_view(config: RunConfig) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(config)
    always = {"Cmd": None, "Entrypoint": None, "Env": None, "Labels": None, "OnBuild": None, "User": "", "Volumes": None, "WorkingDir": ""}
    return always | shown


def image_view(image: Image, size: int, lower: list[str]) -> dict[str, Any]:
    config = image.config
    history = config.history or []
    return {
        "Id": image.id, "RepoTags": _familiar(image.tags), "RepoDigests": _familiar(image.digests), "Parent": image.parent,
        "Comment": config.comment or (history[-1].comment if history else ""), "Created": config.created or ZERO,
        "DockerVersion": config.docker_version, "Author": config.author, "Architecture": config.architecture,
        **({"Variant": config.variant} if config.variant else {}), "Os": config.os, "Size": size,
        "GraphDriver": {"Name": "overlay2", "Data": {**({"LowerDir": ":".join(lower[1:])} if lower[1:] else {}), "UpperDir": lower[0] if lower else "", "MergedDir": "", "WorkDir": ""}},
        "RootFS": {"Type": "layers", "Layers": list(config.rootfs.diff_ids)},
        "Metadata": {"LastTagTime": rfc3339_nano(image.tagged) if image.tagged else ZERO}, "Config": run_config_view(config.run),
    }  # fmt: skip


def image_item(image: Image, size: int, containers: int) -> dict[str, Any]:
    return {
        "Containers": containers, "Created": created_seconds(image), "Id": image.id, "Labels": image.config.run.labels,
        "ParentId": image.parent, "RepoDigests": _familiar(image.digests), "RepoTags": _familiar(image.tags),
        "SharedSize": -1, "Size": size,
    }  # fmt: skip


def created_seconds(image: Image) -> int:
    return parse_rfc3339(image.config.created) // _SECOND if image.config.created else 0


def history_view(image: Image, sizes: list[int], ancestors: Sequence[Image]) -> list[dict[str, Any]]:
    """Newest first. The newest row has the image's id, the next ones those of the images that it was made from here."""
    rows: list[dict[str, Any]] = []
    left = list(sizes)
    for entry in image.config.history or []:
        size = 0 if entry.empty_layer or not left else left.pop(0)
        created = parse_rfc3339(entry.created) // _SECOND if entry.created else 0
        rows.append({"Comment": entry.comment, "Created": created, "CreatedBy": entry.created_by, "Id": "<missing>", "Size": size, "Tags": None})
    rows.reverse()
    for row, known in zip(rows, (image, *ancestors), strict=False):
        row |= {"Id": known.id, "Tags": _familiar(known.tags) or None}
    return rows


# --- execs
def exec_view(record: ExecRecord) -> dict[str, Any]:
    config = record.config
    command = config.cmd or [""]
    process: dict[str, Any] = {"tty": config.tty, "entrypoint": command[0], "arguments": command[1:], "privileged": config.privileged}
    if config.user:
        process["user"] = config.user
    return {
        "ID": record.id, "Running": record.running, "ExitCode": record.exit_code, "ProcessConfig": process,
        "OpenStdin": config.attach_stdin, "OpenStderr": config.attach_stderr, "OpenStdout": config.attach_stdout,
        "CanRemove": False, "ContainerID": record.container, "DetachKeys": config.detach_keys, "Pid": record.pid,
    }  # fmt: skip
