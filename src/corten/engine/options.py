"""Checking a create request before anything is stored: refused keys, ports, binds. Pure.

A key that Docker honours and Corten does not yet is refused (UNSUPPORTED), never ignored; see docs/compat.md.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

import msgspec

from corten.engine.health import check_settings
from corten.engine.resources import check_resources
from corten.engine.restarts import check_policy
from corten.errors import Invalid, UnsupportedOption
from corten.spec.engine import Config, HostConfig
from corten.spec.signals import parse_signal

# HostConfig key -> values that mean "not asked for"
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "cgroup": ("",),
    "isolation": ("", "default"),
    "device_requests": (None, []),
    "cpu_realtime_period": (0,),
    "cpu_realtime_runtime": (0,),
    "userns_mode": ("", "host"),
    "cpu_count": (0,),
    "cpu_percent": (0,),
    "io_maximum_iops": (0,),
    "io_maximum_bandwidth": (0,),
}
_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)


def api_name(field: str) -> str:
    """HostConfig's attribute under its JSON key."""
    return next(info.encode_name for info in msgspec.structs.fields(HostConfig) if info.name == field)


def check_host_config(host: HostConfig) -> None:
    """Raises UnsupportedOption or Invalid, naming the key."""
    for field, neutral in _UNSUPPORTED.items():
        if getattr(host, field) not in neutral:
            raise UnsupportedOption(key=f"HostConfig.{api_name(field)}")
    check_policy(host.restart_policy)
    if host.auto_remove and host.restart_policy.name not in ("", "no"):
        raise Invalid("can't create 'AutoRemove' container with restart policy")
    _check_modes(host)
    check_resources(host)
    _check_sizes(host)
    _check_security(host)
    layer_size(host)
    for text in (host.port_bindings or {}):
        parse_port(text)
    for bindings in (host.port_bindings or {}).values():
        for binding in bindings or []:
            _check_binding(binding.host_ip, binding.host_port)


_RESERVED = "dev.corten."  # annotations by which the engine speaks to its runtime
_MODES = (
    ("ipc_mode", "IPC", ("", "none", "private", "shareable", "host")),
    ("pid_mode", "PID", ("", "host")),
    ("uts_mode", "UTS", ("", "host")),
    ("cgroupns_mode", "cgroup namespace", ("", "private", "host")),
)


def _check_modes(host: HostConfig) -> None:
    for field, name, known in _MODES:
        mode = getattr(host, field)
        joins = field in ("ipc_mode", "pid_mode") and mode.startswith("container:")
        if mode not in known and not joins:
            raise Invalid(f"invalid {name} mode: {mode}")
    for key in host.annotations or {}:
        if key.startswith(_RESERVED):
            raise Invalid(f"the annotation {key!r} is the engine's own; use another name")


def _check_sizes(host: HostConfig) -> None:
    if host.shm_size < 0:
        raise Invalid("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise Invalid(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")


def security_options(host: HostConfig) -> list[tuple[str, str]]:
    """(key, value) of each, split at the first `=` or `:`; a bare key has an empty value."""
    found = []
    for option in host.security_opt or []:
        key, _, value = re.sub(r"^([\w-]+)[:=]", "\\1\0", option).partition("\0")
        found.append((key, value))
    return found


def _check_security(host: HostConfig) -> None:
    for key, value in security_options(host):
        if key == "no-new-privileges" and value in ("", "true", "false"):
            continue
        if key == "seccomp" or (key == "systempaths" and value == "unconfined"):
            continue
        if key == "apparmor" and value:
            continue  # whether the host has it is confinement.py's to ask
        if key == "label":
            if value == "disable":
                continue
            raise UnsupportedOption(key=f"HostConfig.SecurityOpt {key}")
        raise Invalid(f"invalid --security-opt 2: {key!r}")


def _check_binding(host_ip: str, host_port: str) -> None:
    if host_port and not re.fullmatch(r"\d+(-\d+)?", host_port):
        raise Invalid(f'invalid port specification: "{host_port}"')
    if host_port and any(int(part) > 65535 for part in host_port.split("-")):
        raise Invalid(f'invalid port specification: "{host_port}"')
    if host_ip:
        try:
            ip_address(host_ip)
        except ValueError:
            raise Invalid(f"invalid IP address: {host_ip}") from None


def parse_port(text: str) -> tuple[int, str]:
    """`80/tcp` -> (80, "tcp"). Raises Invalid naming the port."""
    match = _PORT.fullmatch(text)
    if not match or match.group(2):
        raise Invalid(f"invalid port specification: {text!r}" if not match else f"invalid port range {text!r}")
    number, protocol = int(match.group(1)), (match.group(3) or "tcp").lower()
    if number > 65535:
        raise Invalid(f"invalid port specification: {text!r}")
    return number, protocol


def parse_size(text: str) -> int:
    """`20m`, `1.5g`, `512` (bytes). Powers of 1024. Raises Invalid."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise Invalid(f"invalid size: '{text}'")
    return int(float(match.group(1)) * 1024 ** " kmgt".index(match.group(2).lower() or " "))


def layer_size(host: HostConfig) -> int:
    """How large the writable layer may grow, in bytes; 0 for no limit. Raises Invalid."""
    for key in host.storage_opt or {}:
        if key.lower() != "size":
            raise Invalid(f"Unknown option {key}")
    return next((parse_size(value) for value in (host.storage_opt or {}).values()), 0)


def check_config(config: Config) -> None:
    if config.stop_signal:
        parse_signal(config.stop_signal)
    for port in config.exposed_ports or {}:
        match = _PORT.fullmatch(port)
        if not match:
            raise Invalid(f"invalid port specification: {port!r}")
    check_settings(config)
    if config.network_disabled:
        raise UnsupportedOption(key="Config.NetworkDisabled (use NetworkMode none)")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise Invalid(f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path")
    for entry in config.env or []:
        if entry.startswith("=") or not entry:
            raise Invalid(f"invalid environment variable: {entry}")
