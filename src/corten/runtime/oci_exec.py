"""exec of the OCI runtime command line: one more process in a running container."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import msgspec

from corten.errors import Conflict, Invalid
from corten.runtime import sandbox
from corten.runtime.oci_lifecycle import Warn, send_console, wait_for, write_pid_file
from corten.runtime.oci_state import OciStates, group_of
from corten.runtime.seccomp_cache import filter_for
from corten.spec.runtime import Process, RuntimeConfig, User, parse_process


@dataclass(frozen=True)
class ExecOptions:
    process: str = ""
    command: list[str] = field(default_factory=list)
    cwd: str = ""
    env: list[str] = field(default_factory=list)
    tty: bool = False
    user: str = ""
    additional_gids: list[int] = field(default_factory=list)
    capabilities: list[str] = field(default_factory=list)
    no_new_privileges: bool = False
    detach: bool = False
    pid_file: str = ""
    console_socket: str = ""
    preserve_fds: int = 0
    ignore_paused: bool = False


def _process(options: ExecOptions, config: RuntimeConfig) -> Process:
    """The process file, or the container's own process changed by the options."""
    if options.process:
        with open(options.process, "rb") as file:
            try:
                return parse_process(file.read())
            except msgspec.DecodeError as error:
                raise Invalid(f"{options.process}: {error}") from None
    if not options.command:
        raise Invalid("process args cannot be empty")
    base = config.process or Process(args=[], cwd="/")
    changes: dict[str, object] = {"args": options.command, "terminal": options.tty, "env": [*(base.env or []), *options.env]}
    if options.cwd:
        changes["cwd"] = options.cwd
    if options.user:
        uid, _, gid = options.user.partition(":")
        if not uid.isdigit() or (gid and not gid.isdigit()):
            raise Invalid(f"--user {options.user!r}: want UID[:GID] in numbers")
        changes["user"] = User(int(uid), int(gid or 0), additional_gids=options.additional_gids or None)
    if options.no_new_privileges:
        changes["no_new_privileges"] = True
    if options.capabilities and base.capabilities:
        sets = ("bounding", "effective", "permitted")
        added = {name: [*(getattr(base.capabilities, name) or []), *options.capabilities] for name in sets}
        changes["capabilities"] = msgspec.structs.replace(base.capabilities, **added)
    return msgspec.structs.replace(base, **changes)


def exec_process(states: OciStates, container_id: str, options: ExecOptions, warn: Warn) -> int:
    """The exit code; 0 with `detach`."""
    state = states.load(container_id)
    status = states.status(state)
    if status == "stopped" or (status == "paused" and not options.ignore_paused):
        raise Conflict(f"cannot exec in a {status} container")
    config = states.config(container_id)
    process = _process(options, config)
    section = config.linux.seccomp if config.linux else None
    child = sandbox.spawn_exec(
        state.pid, process, None, (), group_of(state), filter_for(bytes(section)) if section else None, None,
        preserve_fds=options.preserve_fds,
    )  # fmt: skip
    try:
        ready, master = sandbox.await_ready(child)
        for warning in ready.warnings:
            warn(warning)
        if options.console_socket:
            send_console(options.console_socket, master)
            master = -1
        sandbox.proceed(child.channel)
        message, _ = sandbox.receive(child.channel)
        if message is not None:
            raise sandbox.error_from(message)
    except BaseException:
        os.waitpid(child.pid, 0)
        raise
    write_pid_file(options.pid_file, child.pid)
    return 0 if options.detach else wait_for(child, master)
