"""What this engine and its host are: the facts behind /version and /info."""

from __future__ import annotations

import os
import platform
import re
import threading
import uuid
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from corten import __version__
from corten.engine import confinement, states
from corten.engine.containers import Containers
from corten.engine.events import Events
from corten.engine.images import ImageService
from corten.engine.networks import drivers
from corten.engine.runtimes import Runtimes
from corten.engine.volumes import Volumes
from corten.linux.cgroup_abilities import Abilities
from corten.linux.host import (
    filesystem,
    forwards_ipv4,
    has_seccomp,
    memory_total,
    os_release,
)
from corten.registry.hosts import RegistryHosts
from corten.spec.log_options import DRIVERS
from corten.spec.platform import this_platform
from corten.spec.timestamps import now_ns, rfc3339_nano
from corten.store.database import Database
from corten.store.layout import Layout

API_VERSION, MIN_API_VERSION = "1.51", "1.24"
# The Docker release whose contract is kept: clients compare it with their own.
SERVER_VERSION = "28.5.2"


# What Docker warns of, by the ability that is missing (moby daemon/info_unix.go); the last two cannot be had on version 2.
_LACKS = (
    ("memory_limit", "No memory limit support"), ("swap_limit", "No swap limit support"), ("cpu_quota", "No cpu cfs quota support"),
    ("cpu_quota", "No cpu cfs period support"), ("cpu_shares", "No cpu shares support"), ("cpuset", "No cpuset support"),
)  # fmt: skip
_LACKS_V1 = (("kernel_memory_tcp", "No kernel memory TCP limit support"), ("oom_control", "No oom kill disable support"))


@dataclass(frozen=True)
class Configured:
    """What of the engine's settings shows in /info."""

    debug: bool
    hosts: tuple[str, ...]
    encrypted: bool
    clients_verified: bool
    log_driver: str
    cdi_spec_dirs: tuple[str, ...] = ()


def _warnings(abilities: Abilities, configured: Configured) -> list[str]:
    rows = _LACKS + (_LACKS_V1 if abilities.version == 1 else ())
    found = [f"WARNING: {text}" for name, text in rows if not getattr(abilities, name)]
    if not forwards_ipv4():
        found.append("WARNING: IPv4 forwarding is disabled")
    for host in configured.hosts:
        if host.startswith("tcp://") and not configured.clients_verified:
            scheme, lack = ("https", "without TLS client verification") if configured.encrypted else ("http", "without encryption")
            address = host.removeprefix("tcp://")
            found.append(f"WARNING: API is accessible on {scheme}://{address} {lack}. Access to the API is equivalent to root access on the host.")
    return found


def _proxy(name: str) -> str:
    """A proxy of the environment, its credentials masked."""
    value = os.environ.get(name, "") or os.environ.get(name.lower(), "")
    return re.sub(r"://[^/@]+@", "://xxxxx:xxxxx@", value)


class System:
    def __init__(self, layout: Layout, configured: Configured, database: Database, containers: Containers, images: ImageService,
                 volumes: Volumes, events: Events, runtimes: Runtimes, hosts: RegistryHosts, able: Abilities) -> None:  # fmt: skip
        self._layout, self._configured, self._containers, self._images = layout, configured, containers, images
        self._volumes, self._events, self._runtimes, self._hosts, self._able = volumes, events, runtimes, hosts, able
        self.id = database.setting("engine-id") or str(uuid.uuid4())
        database.put_setting("engine-id", self.id)

    def version(self) -> dict[str, Any]:
        details = {
            "ApiVersion": API_VERSION, "Arch": this_platform().architecture, "BuildTime": "", "Experimental": "false",
            "GitCommit": "", "GoVersion": "", "KernelVersion": os.uname().release, "MinAPIVersion": MIN_API_VERSION, "Os": "linux",
        }  # fmt: skip
        return {
            "Platform": {"Name": f"Corten {__version__}"},
            "Components": [
                {"Name": "Engine", "Version": SERVER_VERSION, "Details": details},
                {"Name": "corten", "Version": __version__, "Details": {"Python": platform.python_version()}},
            ],
            "Version": SERVER_VERSION, "ApiVersion": API_VERSION, "MinAPIVersion": MIN_API_VERSION, "GitCommit": "", "GoVersion": "",
            "Os": "linux", "Arch": this_platform().architecture, "KernelVersion": os.uname().release, "BuildTime": "",
        }  # fmt: skip

    def info(self) -> dict[str, Any]:
        return self._counts() | self._drivers() | self._abilities() | self._host() | {
            "ID": self.id, "Debug": self._configured.debug, "NFd": len(os.listdir("/proc/self/fd")), "NGoroutines": threading.active_count(),
            "SystemTime": rfc3339_nano(now_ns()), "NEventsListener": self._events.listeners, "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": {
                "IndexConfigs": {name: self._index(name) for name in ("docker.io", *self._hosts.insecure) if "/" not in name},
                "InsecureRegistryCIDRs": self._hosts.networks, "Mirrors": self._hosts.mirrors_of("docker.io") or None,
            },
            "GenericResources": None, "DockerRootDir": self._layout.root, "HttpProxy": _proxy("HTTP_PROXY"), "HttpsProxy": _proxy("HTTPS_PROXY"),
            "NoProxy": os.environ.get("NO_PROXY", "") or os.environ.get("no_proxy", ""), "Labels": [], "ExperimentalBuild": False,
            "ServerVersion": SERVER_VERSION,
            "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False, "Error": "", "RemoteManagers": None},
            "LiveRestoreEnabled": True, "Isolation": "", "InitBinary": "docker-init", "ContainerdCommit": {"ID": ""},
            "RuncCommit": {"ID": __version__}, "InitCommit": {"ID": __version__},
        }  # fmt: skip

    def _index(self, name: str) -> dict[str, Any]:
        official = name == "docker.io"
        return {"Mirrors": self._hosts.mirrors_of(name), "Name": name, "Official": official, "Secure": official}

    def _counts(self) -> dict[str, Any]:
        statuses = [record.state.status for record in self._containers.all()]
        running = sum(states.is_up(record) for record in self._containers.all())
        paused = statuses.count("paused")
        return {
            "Containers": len(statuses), "ContainersRunning": running - paused, "ContainersPaused": paused,
            "ContainersStopped": len(statuses) - running, "Images": len(self._images.all()),
        }  # fmt: skip

    def _drivers(self) -> dict[str, Any]:
        return {
            "Driver": "overlay2",
            "DriverStatus": [["Backing Filesystem", filesystem(self._layout.root)], ["Supports d_type", "true"], ["Using metacopy", "false"],
                             ["Native Overlay Diff", "true"], ["userxattr", "false"]],
            "Plugins": {"Volume": self._volumes.drivers(), "Network": drivers(), "Authorization": None, "Log": list(DRIVERS)},
            "LoggingDriver": self._configured.log_driver, "CgroupDriver": "cgroupfs",
            "Runtimes": self._runtimes.view(_features()), "DefaultRuntime": self._runtimes.default, "FirewallBackend": {"Driver": "nftables"},
            "CDISpecDirs": list(self._configured.cdi_spec_dirs),
        }  # fmt: skip

    def _abilities(self) -> dict[str, Any]:
        can = self._able
        security = [*(["name=apparmor"] if confinement.supported() else []), *(["name=seccomp,profile=builtin"] if has_seccomp() else []),
                    *(["name=cgroupns"] if can.version == 2 else [])]  # fmt: skip
        return {
            "CgroupVersion": str(can.version), "MemoryLimit": can.memory_limit, "SwapLimit": can.swap_limit, "KernelMemoryTCP": can.kernel_memory_tcp,
            "CpuCfsPeriod": can.cpu_quota, "CpuCfsQuota": can.cpu_quota, "CPUShares": can.cpu_shares, "CPUSet": can.cpuset,
            "PidsLimit": can.pids_limit, "OomKillDisable": can.oom_control, "IPv4Forwarding": forwards_ipv4(), "SecurityOptions": security,
            "Warnings": _warnings(can, self._configured) or None,
        }  # fmt: skip

    @staticmethod
    def _host() -> dict[str, Any]:
        release, kernel = os_release(), os.uname()
        return {
            "KernelVersion": kernel.release, "OperatingSystem": release.get("PRETTY_NAME", "Linux"), "OSVersion": release.get("VERSION_ID", ""),
            "OSType": "linux", "Architecture": kernel.machine, "NCPU": len(os.sched_getaffinity(0)), "MemTotal": memory_total(), "Name": kernel.nodename,
        }  # fmt: skip


@cache
def _features() -> str:
    from corten.runtime.oci_queries import features  # the OCI command line's; only for this

    return msgspec.json.encode(features()).decode()
