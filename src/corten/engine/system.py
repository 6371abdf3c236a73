"""What this engine and its host are: the facts behind /version and /info."""

from __future__ import annotations

import os
import platform
import uuid
from typing import Any

from corten import __version__
from corten.engine import states
from corten.engine.containers import Containers
from corten.engine.images import ImageService
from corten.linux.cgroup import host_layout
from corten.spec.platform import this_platform
from corten.spec.timestamps import now_ns, rfc3339_nano
from corten.store.database import Database
from corten.store.layout import Layout

API_VERSION, MIN_API_VERSION = "1.51", "1.24"
# The Docker release whose contract is kept: clients compare it with their own.
SERVER_VERSION = "28.5.2"


def _os_release() -> dict[str, str]:
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            rows = (line.strip().partition("=") for line in file if "=" in line)
            return {key: value.strip('"') for key, _, value in rows}
    except FileNotFoundError:
        return {}


def _memory_total() -> int:
    with open("/proc/meminfo", encoding="utf-8") as file:
        return int(file.readline().split()[1]) * 1024


class System:
    def __init__(self, layout: Layout, database: Database, containers: Containers, images: ImageService) -> None:
        self._layout, self._containers, self._images = layout, containers, images
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
        statuses = [record.state.status for record in self._containers.all()]
        running = sum(states.is_up(record) for record in self._containers.all())
        paused = statuses.count("paused")
        cgroups = host_layout()
        release = _os_release()
        v1 = cgroups.v1
        has_memory = "memory" in v1 or cgroups.unified
        has_cpu = "cpu" in v1 or cgroups.unified
        return {
            "ID": self.id, "Containers": len(statuses), "ContainersRunning": running - paused, "ContainersPaused": paused,
            "ContainersStopped": len(statuses) - running, "Images": len(self._images.all()), "Driver": "overlay2",
            "DriverStatus": [["Supports d_type", "true"], ["Native Overlay Diff", "true"], ["userxattr", "false"]],
            "Plugins": {"Volume": [], "Network": ["bridge", "host", "null"], "Authorization": None, "Log": ["json-file", "none"]},
            "MemoryLimit": has_memory, "SwapLimit": cgroups.unified or os.path.exists(v1.get("memory", "") + "/memory.memsw.limit_in_bytes"),
            "KernelMemoryTCP": False, "CpuCfsPeriod": has_cpu, "CpuCfsQuota": has_cpu, "CPUShares": has_cpu,
            "CPUSet": "cpuset" in v1 or cgroups.unified, "PidsLimit": "pids" in v1 or cgroups.unified, "IPv4Forwarding": True,
            "Debug": False, "NFd": len(os.listdir("/proc/self/fd")), "OomKillDisable": "memory" in v1, "NGoroutines": 0,
            "SystemTime": rfc3339_nano(now_ns()), "LoggingDriver": "json-file", "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2" if cgroups.unified else "1", "NEventsListener": 0, "KernelVersion": os.uname().release,
            "OperatingSystem": release.get("PRETTY_NAME", "Linux"), "OSVersion": release.get("VERSION_ID", ""), "OSType": "linux",
            "Architecture": platform.machine(), "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": {
                "IndexConfigs": {"docker.io": {"Mirrors": [], "Name": "docker.io", "Official": True, "Secure": True}},
                "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"], "Mirrors": None,
            },
            "NCPU": os.cpu_count() or 1, "MemTotal": _memory_total(), "GenericResources": None, "DockerRootDir": self._layout.root,
            "HttpProxy": "", "HttpsProxy": "", "NoProxy": "", "Name": os.uname().nodename, "Labels": [], "ExperimentalBuild": False,
            "ServerVersion": SERVER_VERSION, "Runtimes": {"corten": {"path": "corten-runtime"}}, "DefaultRuntime": "corten",
            "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False, "Error": "", "RemoteManagers": None},
            "LiveRestoreEnabled": True, "Isolation": "", "InitBinary": "docker-init", "ContainerdCommit": {"ID": ""},
            "RuncCommit": {"ID": ""}, "InitCommit": {"ID": ""}, "SecurityOptions": ["name=seccomp,profile=builtin"],
            "FirewallBackend": {"Driver": "nftables"}, "CDISpecDirs": [], "Warnings": None,
        }  # fmt: skip
