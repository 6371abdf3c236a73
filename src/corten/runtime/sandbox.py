"""The parent's half of making a process: cgroup, clone, id maps, and the channel to the child.

Used by the monitor and by the OCI command line alike. What the child does then is init.py's.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from corten.errors import CommandNotStarted, KernelRefused
from corten.linux import cgroup_settings, descriptors
from corten.linux import syscalls as sys
from corten.linux.cgroup import Cgroup, Layout
from corten.linux.cgroup_versions import open_cgroup
from corten.runtime import messages
from corten.runtime.init import ChildSpec, run_child
from corten.runtime.operations import JoinNamespaces, Operation
from corten.runtime.plan import DEFAULT_DEVICE_RULES, confine, make_plan
from corten.runtime.seccomp_cache import filter_for
from corten.spec.runtime import IdMapping, Linux, Mount, Process, RuntimeConfig

USER_ANNOTATION = "dev.corten.user"
GROUPS_ANNOTATION = "dev.corten.groups"
REAPER_ANNOTATION = "dev.corten.init"
_EXEC_NAMESPACES = (
    ("user", sys.CLONE_NEWUSER), ("cgroup", sys.CLONE_NEWCGROUP), ("ipc", sys.CLONE_NEWIPC), ("uts", sys.CLONE_NEWUTS),
    ("net", sys.CLONE_NEWNET), ("mnt", sys.CLONE_NEWNS),
)  # fmt: skip


@dataclass(frozen=True)
class Child:
    """A cloned process. The caller owns `pidfd` and `channel`, and reaps `pid`."""

    pid: int
    pidfd: int
    channel: socket.socket


def prepare_cgroup(config: RuntimeConfig, layout: Layout) -> Cgroup | None:
    """Make the container's group and write its limits; None if the config names no group. Removes it on failure."""
    linux = config.linux or Linux()
    if not linux.cgroups_path:
        return None
    group = open_cgroup(linux.cgroups_path, layout)
    group.create()
    try:
        if linux.resources:
            settings = cgroup_settings.settings_for(linux.resources, unified=layout.unified)
            rules = linux.resources.devices
            group.apply(settings, None if rules is None else [*rules, *DEFAULT_DEVICE_RULES])
    except OSError:
        group.remove()
        raise
    return group


def spawn_container(config: RuntimeConfig, rootfs: str, root_mounts: tuple[Mount, ...], layout: Layout,
                    group: Cgroup | None, stdio: tuple[int, int, int] | None, *, cache_dir: str = "",
                    listener: socket.socket | None = None, preserve_fds: int = 0,
                    create_container_hooks: Callable[[], None] | None = None,
                    before_exec: Callable[[], None] | None = None) -> Child:  # fmt: skip
    """Clone the container's init. It performs its plan, announces Ready, and waits for Proceed."""
    plan = make_plan(config, rootfs, root_mounts, layout)
    linux = config.linux or Linux()
    annotations = config.annotations or {}
    new_user_namespace = bool(plan.clone_flags & sys.CLONE_NEWUSER)
    self_entering = group is not None and not layout.unified and not new_user_namespace
    spec = ChildSpec(
        process=config.process,
        operations=plan.operations,
        user=annotations.get(USER_ANNOTATION),
        groups=tuple(name for name in annotations.get(GROUPS_ANNOTATION, "").split(",") if name),
        seccomp=filter_for(bytes(linux.seccomp), cache_dir) if linux.seccomp else None,
        stdio=stdio,
        make_cwd=True,
        terminal_here=False,
        preserve_fds=preserve_fds,
        reaper=annotations.get(REAPER_ANNOTATION, ""),
        enter_cgroup=group.enter if group and self_entering else None,
        wait_for_maps=new_user_namespace,
        create_container_hooks=create_container_hooks,
        before_exec=before_exec,
    )
    child = _clone(spec, plan.clone_flags, plan.pid_namespace, group.descriptor() if group else -1, listener)
    if new_user_namespace:
        if group and not layout.unified:
            _move_into(group, child.pid, layout)
        _write_maps(child.pid, linux)
        descriptors.send_packet(child.channel, messages.encode(messages.Proceed()))
    return child


def _move_into(group: Cgroup, pid: int, layout: Layout) -> None:
    """Move another process: for a child that its user namespace keeps from moving itself."""
    for mount in layout.v1.values():
        with open(f"{mount}{group.path}/cgroup.procs", "w", encoding="utf-8") as file:
            file.write(str(pid))


def spawn_exec(target_pid: int, process: Process, user: str | None, groups: tuple[str, ...], group: Cgroup | None,
               seccomp: tuple[bytes, int] | None, stdio: tuple[int, int, int] | None, *,
               preserve_fds: int = 0, tools: tuple[str, ...] = (), scratch: str = "") -> Child:  # fmt: skip
    """Clone one more process into the namespaces of a running container's init; with `tools`, these layers are its root."""
    joins: list[tuple[str, int]] = []
    for kind, flag in _EXEC_NAMESPACES:
        path = f"/proc/{target_pid}/ns/{kind}"
        if os.stat(path).st_ino != os.stat(f"/proc/self/ns/{kind}").st_ino:
            joins.append((path, flag))
    group_fd = group.descriptor(beside=target_pid) if group else -1
    join: Operation = JoinNamespaces(tuple(joins))
    if tools:
        from corten.runtime.tool_root import LayTools  # rare: no monitor carries it before it is used

        join = LayTools(tools, scratch, tuple(joins))
    spec = ChildSpec(
        process=process, operations=(*confine(process), join), user=user, groups=groups, seccomp=seccomp, stdio=stdio,
        make_cwd=False, terminal_here=True, preserve_fds=preserve_fds, enter_cgroup=group.enter if group and group_fd < 0 else None,
    )  # fmt: skip
    return _clone(spec, 0, f"/proc/{target_pid}/ns/pid", group_fd, None)


def _clone(spec: ChildSpec, flags: int, pid_namespace: str, group_fd: int, listener: socket.socket | None) -> Child:
    """Closes `group_fd`, the version 2 group to be born in (-1: the child enters its groups by itself)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if pid_namespace else -1
    try:
        if pid_namespace:
            _set_pid_namespace(pid_namespace)
        pid, pidfd = sys.clone3(flags, cgroup=group_fd)
        if pid == 0:
            run_child(spec, theirs, listener)
    finally:
        if pid_namespace:
            sys.setns(home, sys.CLONE_NEWPID)
            os.close(home)
        if group_fd >= 0:
            os.close(group_fd)
    theirs.close()
    return Child(pid, pidfd, ours)


def _set_pid_namespace(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sys.setns(fd, sys.CLONE_NEWPID)
    finally:
        os.close(fd)


def _map_text(mappings: list[IdMapping] | None) -> str:
    return "".join(f"{row.containerID} {row.hostID} {row.size}\n" for row in mappings or [])


def _write_maps(pid: int, linux: Linux) -> None:
    for name, mappings in (("uid_map", linux.uid_mappings), ("gid_map", linux.gid_mappings)):
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, _map_text(mappings).encode())  # the kernel takes a map in one write only
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"/proc/{pid}/{name}") from None
        finally:
            os.close(fd)


def receive(channel: socket.socket) -> tuple[messages.FromChild | None, list[int]]:
    """Next message of a child, with its descriptors; None when the channel closed: the program runs, or the child died."""
    try:
        data, fds = descriptors.receive_packet(channel)
    except ConnectionResetError:  # killed before it has read all that it was told: an end like any other
        data, fds = b"", []
    return (messages.decode_from_child(data) if data else None), fds


def await_ready(child: Child, run_hooks: Callable[[], None] | None = None) -> tuple[messages.Ready, int]:
    """Block until the child is set up. Returns Ready and the PTY's controlling side or -1. Raises what failed."""
    message, fds = receive(child.channel)
    if isinstance(message, messages.HooksDue):
        if run_hooks:
            run_hooks()
        proceed(child.channel)
        message, fds = receive(child.channel)
    if isinstance(message, messages.Ready):
        return message, fds[0] if fds else -1
    raise error_from(message)


def proceed(channel: socket.socket) -> None:
    """Tell the child to go on. One that has been killed is told nothing: the end of its channel is what the caller reads next."""
    with suppress(BrokenPipeError, ConnectionResetError):
        descriptors.send_packet(channel, messages.encode(messages.Proceed()))


def error_from(message: messages.FromChild | None) -> KernelRefused | CommandNotStarted:
    """The exception that a child's Failure stands for; None is a child that died without a word."""
    if isinstance(message, messages.Failure):
        if message.exit_code:
            return CommandNotStarted(message.text, message.exit_code)
        return KernelRefused(operation=message.operation, operand=message.operand, errno=message.errno, reason=message.text)
    return KernelRefused(operation="start", operand="container", errno=0, reason="the child died before it was ready")

