"""state, list, ps, pause, resume, update, features, spec of the OCI runtime command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import msgspec

from corten import __version__
from corten.errors import Conflict, Invalid
from corten.linux import capabilities, cgroup_settings, mounts
from corten.linux.cgroup import Cgroup, host_layout
from corten.runtime.oci_state import OciStates, group_of
from corten.runtime.plan import NAMESPACE_FLAGS
from corten.spec import runtime as oci
from corten.spec.security import DEFAULT_CAPABILITIES, MASKED_PATHS, READONLY_PATHS


def show_state(states: OciStates, container_id: str) -> None:
    print(json.dumps(states.document(states.load(container_id)), indent=2))


def show_list(states: OciStates, *, form: str, quiet: bool) -> None:
    documents = [states.document(state) for state in states.all()]
    if quiet:
        for document in documents:
            print(document["id"])
    elif form == "json":
        print(json.dumps(documents))
    else:
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
        rows += [tuple(str(document[key]) for key in ("id", "pid", "status", "bundle", "created", "owner")) for document in documents]  # type: ignore[misc]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _group(states: OciStates, container_id: str) -> Cgroup:
    group = group_of(states.load(container_id))
    if group is None:
        raise Conflict(f"container {container_id} has no cgroup")
    return group


def show_processes(states: OciStates, container_id: str, *, form: str, arguments: list[str]) -> None:
    pids = _group(states, container_id).pids()
    if form == "json":
        print(json.dumps(sorted(pids)))
        return
    program = shutil.which("ps")
    if program is None:
        raise Invalid("the table needs the host's ps (package procps); `--format json` does not")
    done = subprocess.run([program, *(arguments or ["-ef"])], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    at = lines[0].split().index("PID")
    print("\n".join([lines[0], *(line for line in lines[1:] if line.split()[at] in {str(pid) for pid in pids})]))


def set_frozen(states: OciStates, container_id: str, *, frozen: bool) -> None:
    status, wanted = states.status(states.load(container_id)), "running" if frozen else "paused"
    if status != wanted:
        raise Conflict(f"cannot {'pause' if frozen else 'resume'} a container that is {status}")
    _group(states, container_id).freeze(frozen)


def update(states: OciStates, container_id: str, resources: oci.Resources) -> None:
    """Write new limits into the container's group; what is not named stays."""
    if states.status(states.load(container_id)) == "stopped":
        raise Conflict("container not running")
    layout = host_layout()
    _group(states, container_id).apply(cgroup_settings.settings_for(resources, unified=layout.unified), None)


def parse_resources(path: str) -> oci.Resources:
    """A JSON file, or `-` for standard input."""
    data = sys.stdin.buffer.read() if path == "-" else open(path, "rb").read()  # noqa: SIM115
    try:
        return msgspec.json.decode(data, type=oci.Resources)
    except msgspec.DecodeError as error:
        raise Invalid(f"{path}: {error}") from None


def features() -> dict[str, object]:
    """runtime-spec features.md: what this runtime implements, and nothing else."""
    layout = host_layout()
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": oci.OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": sorted({*mounts.FLAGS, *mounts.PROPAGATION, *mounts.RECURSIVE}),
        "linux": {
            "namespaces": sorted(NAMESPACE_FLAGS),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {"v1": bool(layout.v1), "v2": True, "systemd": False, "systemdUser": False, "rdma": False},
            "seccomp": {
                "enabled": True,
                "actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
                            "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"],
                "operators": ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"],
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": False}},
        },
        "annotations": {"dev.corten.runtime.version": __version__},
    }  # fmt: skip


def default_spec() -> oci.RuntimeConfig:
    """A config to start from: `sh` on a read-only root, isolated."""
    names = list(DEFAULT_CAPABILITIES)
    return oci.RuntimeConfig(
        oci_version=oci.WRITTEN_VERSION,
        process=oci.Process(
            args=["sh"], cwd="/", terminal=True, env=["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            capabilities=oci.Capabilities(names, names, names), rlimits=[oci.Rlimit("RLIMIT_NOFILE", 1024, 1024)], no_new_privileges=True,
        ),
        root=oci.Root("rootfs", readonly=True),
        hostname="corten",
        mounts=[
            oci.Mount("/proc", "proc", "proc"),
            oci.Mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            oci.Mount("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            oci.Mount("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            oci.Mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
            oci.Mount("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
            oci.Mount("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        linux=oci.Linux(
            namespaces=[oci.Namespace(kind) for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            resources=oci.Resources(devices=[oci.DeviceRule(False, "rwm")]),
            masked_paths=list(MASKED_PATHS), readonly_paths=list(READONLY_PATHS),
        ),
    )  # fmt: skip


def write_spec(bundle: str) -> None:
    path = os.path.join(bundle, "config.json")
    if os.path.exists(path):
        raise Conflict(f"file {path} exists: remove it first")
    with open(path, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(default_spec()), indent=2) + b"\n")
