"""create, start, run, kill, delete of the OCI runtime command line. Source: OCI runtime-spec runtime.md "Operations"."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from corten.errors import Conflict, CortenError, Invalid
from corten.linux import descriptors
from corten.linux.cgroup import host_layout
from corten.runtime import sandbox
from corten.runtime.oci_hooks import run_hooks
from corten.runtime.oci_state import OciState, OciStates, group_of, process_start_time, wait_until_gone
from corten.runtime.terminal import relay_terminal
from corten.spec.runtime import Hooks, Linux, RuntimeConfig, parse_runtime_config
from corten.spec.timestamps import now_ns, rfc3339_nano

Warn = Callable[[str], None]


@dataclass(frozen=True)
class CreateOptions:
    bundle: str = "."
    pid_file: str = ""
    console_socket: str = ""
    preserve_fds: int = 0


def _read_config(bundle: str) -> tuple[bytes, RuntimeConfig]:
    path = os.path.join(bundle, "config.json")
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise Invalid(f"no config.json in the bundle {bundle}: `corten-runtime spec` writes one") from None
    try:
        config = parse_runtime_config(data)
    except msgspec.DecodeError as error:
        raise Invalid(f"{path}: {error}") from None
    if config.process is None or config.root is None:
        raise Invalid(f"{path}: process and root are required")
    return data, config


def _cgroup_path(config: RuntimeConfig, container_id: str) -> str:
    path = config.linux.cgroups_path if config.linux else ""
    if ":" in path:
        raise Invalid(f"cgroupsPath {path!r} is systemd's form; corten-runtime has the cgroupfs manager")
    return "/" + (path or container_id).strip("/")


def send_console(path: str, master: int) -> None:
    """Hand a terminal's controlling side to whoever listens on the console socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(path)
        descriptors.send_packet(sock, b"/dev/ptmx", (master,))
    os.close(master)


def write_pid_file(path: str, pid: int) -> None:
    if path:
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(str(pid))
        os.rename(f"{path}.new", path)


class OciLifecycle:
    def __init__(self, states: OciStates, warn: Warn) -> None:
        self._states, self._warn = states, warn

    def create(self, container_id: str, options: CreateOptions) -> tuple[OciState, sandbox.Child, int]:
        """Returns the state, the child, and the terminal's controlling side or -1. Leaves nothing behind on failure."""
        bundle = os.path.abspath(options.bundle)
        data, config = _read_config(bundle)
        terminal = bool(config.process and config.process.terminal)
        if options.console_socket and not terminal:
            raise Invalid("a console socket is given, but process.terminal is not set")
        config = msgspec.structs.replace(
            config, linux=msgspec.structs.replace(config.linux or Linux(), cgroups_path=_cgroup_path(config, container_id))
        )
        self._states.reserve(container_id)
        try:
            return self._create(container_id, bundle, data, config, options)
        except BaseException:
            self._states.remove(container_id)
            raise

    def _create(self, container_id: str, bundle: str, data: bytes, config: RuntimeConfig,
                options: CreateOptions) -> tuple[OciState, sandbox.Child, int]:  # fmt: skip
        layout = host_layout()
        hooks = config.hooks or Hooks()
        root = config.root.path if config.root else "rootfs"
        document: dict[str, object] = {"ociVersion": config.oci_version, "id": container_id, "status": "creating",
                                       "bundle": bundle, "annotations": config.annotations or {}}  # fmt: skip
        group = sandbox.prepare_cgroup(config, layout)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child: sandbox.Child | None = None
        try:
            with self._states.start_socket(container_id) as address:
                listener.bind(address)
            listener.listen(1)
            child = sandbox.spawn_container(
                config, os.path.join(bundle, root), (), layout, group, None, listener=listener, preserve_fds=options.preserve_fds,
                create_container_hooks=lambda: run_hooks("createContainer", hooks.create_container, document),
                before_exec=lambda: run_hooks("startContainer", hooks.start_container, document | {"status": "created"}),
            )  # fmt: skip
            document["pid"] = child.pid

            def runtime_hooks() -> None:
                run_hooks("prestart", hooks.prestart, document)
                run_hooks("createRuntime", hooks.create_runtime, document)

            ready, master = sandbox.await_ready(child, runtime_hooks)
            for warning in ready.warnings:
                self._warn(warning)
            if options.console_socket:
                send_console(options.console_socket, master)
                master = -1
            state = OciState(container_id, bundle, child.pid, process_start_time(child.pid), rfc3339_nano(now_ns()),
                             config.linux.cgroups_path if config.linux else "", config.annotations or {})  # fmt: skip
            self._states.save(state, data)
            write_pid_file(options.pid_file, child.pid)
        except BaseException:
            if child:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
            if group:
                group.kill()
                group.remove()
            raise
        finally:
            listener.close()
        return state, child, master

    def start(self, container_id: str) -> None:
        """Let the program run. Raises what kept it from being executed."""
        state = self._states.load(container_id)
        status = self._states.status(state)
        if status != "created":
            raise Conflict(f"cannot start a container in the {status} state")
        with self._states.start_socket(container_id) as address, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
            channel.connect(address)
            os.unlink(address)
            sandbox.proceed(channel)
            message, _ = sandbox.receive(channel)
        if message is not None:
            raise sandbox.error_from(message)
        hooks = self._states.config(container_id).hooks or Hooks()
        self._quietly("poststart", hooks, state)

    def run(self, container_id: str, options: CreateOptions, *, detach: bool) -> int:
        """create, start, wait, delete; the program's exit code."""
        state, child, master = self.create(container_id, options)
        try:
            self.start(container_id)
        except BaseException:
            self.delete(container_id, force=True)
            raise
        if detach:
            return 0
        try:
            code = wait_for(child, master)
        finally:
            self.delete(state.id, force=True)
        return code

    def kill(self, container_id: str, number: int, *, everything: bool) -> None:
        state = self._states.load(container_id)
        if self._states.status(state) == "stopped" and not everything:
            raise Conflict("container not running")
        group = group_of(state)
        pids = group.pids() if everything and group else [state.pid]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def delete(self, container_id: str, *, force: bool) -> None:
        try:
            state = self._states.load(container_id)
        except CortenError:
            if force:
                return
            raise
        status = self._states.status(state)
        if status not in ("stopped", "created") and not force:
            raise Conflict(f"cannot delete container {container_id} that is not stopped: {status}")
        group = group_of(state)
        if status != "stopped":
            with suppress(ProcessLookupError):
                os.kill(state.pid, signal.SIGKILL)
            if status == "paused" and group:
                group.freeze(False)
            with suppress(ChildProcessError):
                os.waitpid(state.pid, 0)
            if not wait_until_gone(state):
                raise Conflict(f"container {container_id} survives SIGKILL: process {state.pid}")
        hooks = self._states.config(container_id).hooks or Hooks()
        if group:
            group.kill()
            group.remove()
        self._states.remove(container_id)
        self._quietly("poststop", hooks, state)

    def _quietly(self, kind: str, hooks: Hooks, state: OciState) -> None:
        """Poststart and poststop hooks that fail are reported and nothing else (runtime.md "Lifecycle")."""
        document: dict[str, object] = {"ociVersion": "1.2.0", "id": state.id, "pid": state.pid, "bundle": state.bundle,
                                       "status": "running" if kind == "poststart" else "stopped"}  # fmt: skip
        try:
            run_hooks(kind, hooks.poststart if kind == "poststart" else hooks.poststop, document)
        except CortenError as error:
            self._warn(error.message)


def wait_for(child: sandbox.Child, master: int) -> int:
    """Relay the terminal, if there is one, and return the exit code (128 + signal)."""
    if master >= 0:
        relay_terminal(master, child.pidfd)
    _, status = os.waitpid(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
