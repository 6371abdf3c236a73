"""Which namespaces a container may ask for, and what does not go together with them. Pure.

Source: Docker Engine 28.5 (moby runconfig/hostconfig_unix.go, daemon/daemon_unix.go) for the container's own; runc 1.1
(libcontainer/configs/validate) for sysctls, which the engine refuses at creation already, in runc's words.
"""

from __future__ import annotations

from corten.errors import Invalid
from corten.spec.engine import Config, HostConfig

_RESERVED = "dev.corten."  # annotations by which the engine speaks to its runtime
_MODES = (
    ("ipc_mode", "IPC", ("", "none", "private", "shareable", "host")),
    ("pid_mode", "PID", ("", "host")),
    ("uts_mode", "UTS", ("", "host")),
    ("cgroupns_mode", "cgroup namespace", ("", "private", "host")),
)
_IPC_SYSCTLS = frozenset(
    ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced")
)


def check_modes(host: HostConfig) -> None:
    """Raises Invalid. UsernsMode takes any value, as in Docker: without a remapped engine it has no meaning."""
    if host.isolation.lower() not in ("", "default"):
        raise Invalid(f"invalid isolation ({host.isolation}): linux only supports 'default'")
    for field, name, known in _MODES:
        mode = getattr(host, field)
        joins = field in ("ipc_mode", "pid_mode") and mode.startswith("container:")
        if (mode not in known and not joins) or mode == "container:":
            raise Invalid(f"invalid {name} mode: {mode}")
    for key in host.annotations or {}:
        if not key:
            raise Invalid("invalid Annotations: the empty string is not permitted as an annotation key")
        if key.startswith(_RESERVED):
            raise Invalid(f"the annotation {key!r} is the engine's own; use another name")
    for key in host.sysctls or {}:
        _check_sysctl(key, host)


def check_together(config: Config, host: HostConfig) -> None:
    """What of Config does not go with these modes. The network's own conflicts are endpoint_settings.py's."""
    if host.uts_mode == "host" and config.hostname:
        raise Invalid("conflicting options: hostname and the UTS mode")


def _check_sysctl(name: str, host: HostConfig) -> None:
    key = name.replace("/", ".")
    if key in _IPC_SYSCTLS or key.startswith("fs.mqueue."):
        if host.ipc_mode == "host":
            raise Invalid(f'sysctl "{name}" is not allowed in the hosts ipc namespace')
    elif key.startswith("net."):
        if host.network_mode == "host":
            raise Invalid(f'sysctl "{name}" not allowed in host network namespace')
    elif key == "kernel.hostname" and host.uts_mode != "host":
        raise Invalid(f'sysctl "{name}" is not allowed as it conflicts with the OCI "hostname" field')
    elif key != "kernel.domainname" or host.uts_mode == "host":
        raise Invalid(f'sysctl "{name}" is not in a separate kernel namespace')
