"""Checking a create request before anything is stored: what is wrong on every host is refused, with its key. Pure.

What only this host can judge is admission.py's.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from corten.engine.cdi import check_requests
from corten.engine.devices import check_rules
from corten.engine.health import check_settings
from corten.engine.modes import check_modes
from corten.engine.resources import check_resources
from corten.engine.restarts import check_policy
from corten.engine.security_options import check_security
from corten.errors import Invalid
from corten.spec.engine import Config, HostConfig
from corten.spec.go_values import parse_size
from corten.spec.signals import parse_signal

_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)


def check_host_config(host: HostConfig) -> None:
    """Raises UnsupportedOption or Invalid, naming the key."""
    check_policy(host.restart_policy)
    if host.auto_remove and host.restart_policy.name not in ("", "no"):
        raise Invalid("can't create 'AutoRemove' container with restart policy")
    check_resources(host)
    check_modes(host)
    check_security(host)
    check_rules(host)
    check_requests(host.device_requests)
    _check_sizes(host)
    layer_size(host)
    _check_names(host)
    for text in (host.port_bindings or {}):
        parse_port(text)
    for bindings in (host.port_bindings or {}).values():
        for binding in bindings or []:
            _check_binding(binding.host_ip, binding.host_port)


def _check_sizes(host: HostConfig) -> None:
    if host.shm_size < 0:
        raise Invalid("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise Invalid(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")


def _check_names(host: HostConfig) -> None:
    for text in host.extra_hosts or []:
        name, _, address = text.partition(":")
        if not name or not address:
            raise Invalid(f'bad format for add-host: "{text}"')
        if address != "host-gateway" and not _is_address(address):
            raise Invalid(f'invalid IP address in add-host: "{address}"')
    for address in host.dns or []:
        if not _is_address(address):
            raise Invalid(f'bad nameserver address {address}: ParseAddr("{address}"): unable to parse IP')


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


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


def layer_size(host: HostConfig) -> int:
    """How large the writable layer may grow, in bytes; 0 for no limit. Raises Invalid."""
    for key in host.storage_opt or {}:
        if key.lower() != "size":
            raise Invalid(f"Unknown option {key}")
    return next((parse_size(value, unit=1024) for value in (host.storage_opt or {}).values()), 0)


def check_config(config: Config) -> None:
    if config.stop_signal:
        parse_signal(config.stop_signal)
    for port in config.exposed_ports or {}:
        match = _PORT.fullmatch(port)
        if not match:
            raise Invalid(f"invalid port specification: {port!r}")
    check_settings(config)
    if config.working_dir and not config.working_dir.startswith("/"):
        raise Invalid(f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path")
    for entry in config.env or []:
        if entry.startswith("=") or not entry:
            raise Invalid(f"invalid environment variable: {entry}")
