"""OCI config -> the namespaces to make and the operations to perform. Pure: no system call is made here.

`render()` prints a plan, one operation a line; tests compare that text.
Source: OCI runtime-spec config.md, config-linux.md ("Namespaces", "Default Devices", "Default Filesystems").
"""

from __future__ import annotations

from dataclasses import dataclass

from corten.linux import mounts
from corten.linux import syscalls as sys
from corten.linux.cgroup import Layout
from corten.runtime import operations as op
from corten.spec.runtime import DeviceRule, Linux, Mount, Process, RuntimeConfig

NAMESPACE_FLAGS = {
    "user": sys.CLONE_NEWUSER,
    "mount": sys.CLONE_NEWNS,
    "pid": sys.CLONE_NEWPID,
    "network": sys.CLONE_NEWNET,
    "ipc": sys.CLONE_NEWIPC,
    "uts": sys.CLONE_NEWUTS,
    "cgroup": sys.CLONE_NEWCGROUP,
    "time": sys.CLONE_NEWTIME,
}
DEFAULT_DEVICES = (
    ("/dev/null", 1, 3), ("/dev/zero", 1, 5), ("/dev/full", 1, 7),
    ("/dev/random", 1, 8), ("/dev/urandom", 1, 9), ("/dev/tty", 5, 0),
)  # fmt: skip
# Every container may make any node and use these (runc's AllowedDevices): appended to what the config says.
DEFAULT_DEVICE_RULES = tuple(
    DeviceRule(True, access, kind, major, minor)
    for kind, major, minor, access in (
        ("c", None, None, "m"), ("b", None, None, "m"), ("c", 1, 3, "rwm"), ("c", 1, 5, "rwm"), ("c", 1, 7, "rwm"),
        ("c", 5, 0, "rwm"), ("c", 5, 1, "rwm"), ("c", 5, 2, "rwm"), ("c", 1, 8, "rwm"), ("c", 1, 9, "rwm"),
        ("c", 136, None, "rwm"), ("c", 10, 200, "rwm"),
    )
)  # fmt: skip
DEFAULT_SYMLINKS = (
    ("/proc/self/fd", "/dev/fd"), ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"), ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What the parent does (`clone_flags`, `pid_namespace` to enter first) and what the child then performs."""

    clone_flags: int
    pid_namespace: str
    user_namespace: bool
    operations: tuple[op.Operation, ...]

    def render(self) -> str:
        head = f"clone {self.clone_flags:#x}" + (f" into {self.pid_namespace}" if self.pid_namespace else "")
        return "\n".join([head, *(str(operation) for operation in self.operations)])


def make_plan(config: RuntimeConfig, rootfs: str, root_mounts: tuple[Mount, ...], layout: Layout) -> Plan:
    """`rootfs` is the absolute path of the root folder; `root_mounts` what is to be mounted on it."""
    linux = config.linux or Linux()
    wanted = {namespace.type: namespace.path for namespace in linux.namespaces or []}
    clone_flags = 0
    joins: list[tuple[str, int]] = []
    for kind, flag in NAMESPACE_FLAGS.items():
        path = wanted.get(kind)
        if path is None or (kind == "pid" and path):
            continue
        if path:
            joins.append((path, flag))
        elif kind not in ("cgroup", "time"):
            clone_flags |= flag
    steps: list[op.Operation] = [op.JoinNamespaces(tuple(joins))] if joins else []
    steps += _late_namespaces(wanted, linux)
    own_mounts = "mount" in wanted
    if own_mounts:
        steps += _file_systems(config, linux, rootfs, root_mounts, layout, wanted)
    else:
        steps += [*confine(config.process), op.ChrootOnly(rootfs)]
    steps += _identity(config, wanted)
    steps += [op.WriteSysctl(key, value) for key, value in sorted((linux.sysctl or {}).items())]
    if own_mounts:
        steps += [op.MakeReadonly(path) for path in linux.readonly_paths or []]
        steps += [op.Mask(path) for path in linux.masked_paths or []]
        if config.root and config.root.readonly:
            steps += [op.MakeFolder(config.process.cwd)] if config.process else []
            steps.append(op.MakeRootReadonly())
    return Plan(clone_flags, wanted.get("pid", ""), "user" in wanted, tuple(steps))


def confine(process: Process | None) -> list[op.Operation]:
    """Late, so that no hook of the runtime's own is executed under the container's profile."""
    return [op.ConfineExec(process.apparmor_profile)] if process and process.apparmor_profile else []


def _late_namespaces(wanted: dict[str, str], linux: Linux) -> list[op.Operation]:
    steps: list[op.Operation] = []
    if wanted.get("cgroup") == "":
        steps.append(op.Unshare(sys.CLONE_NEWCGROUP))  # after the child has entered its group: that becomes the root
    if wanted.get("time") == "":
        steps.append(op.Unshare(sys.CLONE_NEWTIME))
        offsets = tuple((clock, offset.secs, offset.nanosecs) for clock, offset in (linux.time_offsets or {}).items())
        if offsets:
            steps.append(op.SetTimeOffsets(offsets))
    return steps


def _file_systems(config: RuntimeConfig, linux: Linux, rootfs: str, root_mounts: tuple[Mount, ...], layout: Layout,
                  wanted: dict[str, str]) -> list[op.Operation]:  # fmt: skip
    propagation = mounts.PROPAGATION.get(linux.rootfs_propagation or "rslave", sys.MS_SLAVE) | sys.MS_REC
    steps: list[op.Operation] = [op.TakeShared(mount) for mount in config.mounts or [] if is_shared_bind(mount)]
    steps += [op.SetPropagation(propagation), op.MountRoot(rootfs, root_mounts)]
    for mount in config.mounts or []:
        if mount.type == "cgroup":
            steps += _cgroup_mounts(mount, layout, linux.cgroups_path, private="cgroup" in wanted)
        else:
            steps.append(op.MountInto(mount))
    in_user_namespace = "user" in wanted
    steps += [op.MakeDevice(path, "c", major, minor, 0o666, 0, 0, in_user_namespace) for path, major, minor in DEFAULT_DEVICES]
    steps += [
        op.MakeDevice(
            device.path, device.type, device.major, device.minor,
            0o666 if device.file_mode is None else device.file_mode & 0o7777, device.uid, device.gid, in_user_namespace,
        )
        for device in linux.devices or []
        if device.path not in {path for path, _, _ in DEFAULT_DEVICES}
    ]  # fmt: skip
    steps += [op.MakeSymlink(target, path) for target, path in DEFAULT_SYMLINKS]
    if config.process and config.process.terminal:
        size = config.process.console_size
        steps.append(op.OpenTerminal(size.height if size else 0, size.width if size else 0))
    hooks = config.hooks
    if hooks and (hooks.prestart or hooks.create_runtime or hooks.create_container):
        steps.append(op.AwaitHooks())
    return [*steps, *confine(config.process), op.PivotRoot()]


def is_shared_bind(mount: Mount) -> bool:
    options = mount.options or []
    return bool(mounts.parse_options(options).flags & sys.MS_BIND) and bool({"shared", "rshared"} & set(options))


def _cgroup_mounts(mount: Mount, layout: Layout, group: str, *, private: bool) -> list[op.Operation]:
    """The container's view of its own groups: cgroup2, or a tmpfs with one mount a version 1 hierarchy."""
    flags = [option for option in mount.options or [] if option in mounts.FLAGS]
    if layout.unified:
        return [op.MountInto(Mount(mount.destination, "cgroup2", "cgroup", flags))]
    writable = [flag for flag in flags if flag != "ro"]
    steps: list[op.Operation] = [
        op.MountInto(Mount(mount.destination, "tmpfs", "tmpfs", [*writable, "mode=755"]))
    ]
    by_mount: dict[str, list[str]] = {}
    for controller, mount_point in layout.v1.items():
        by_mount.setdefault(mount_point, []).append(controller)
    for mount_point, controllers in by_mount.items():
        name = mount_point.rsplit("/", 1)[-1]
        target = f"{mount.destination}/{name}"
        if private:
            steps.append(op.MountInto(Mount(target, "cgroup", "cgroup", [*flags, ",".join(controllers)])))
        else:
            steps.append(op.MountInto(Mount(target, "bind", mount_point + group, ["bind", *flags])))
        steps += [op.MakeSymlink(name, f"{mount.destination}/{controller}") for controller in controllers if controller != name]
    if "ro" in flags:
        steps.append(op.RemountReadonly(mount.destination))
    return steps


def _identity(config: RuntimeConfig, wanted: dict[str, str]) -> list[op.Operation]:
    steps: list[op.Operation] = []
    if config.hostname and wanted.get("uts") == "":
        steps.append(op.SetHostname(config.hostname))
    if config.domainname and wanted.get("uts") == "":
        steps.append(op.SetDomainname(config.domainname))
    return steps
