"""Another OCI runtime (crun, runc ...) in the place of the built-in one: a driver beside each of its processes.

    monitor                 driver (a fork of the monitor)                 the other runtime
      |-- fork -------------->| mount namespace, root, its own config
      |                       |-- create (streams, console, pid file) --------->|-- container's init
      |<- Ready (+pid, PTY) --|<----------------------------------- exit 0 ------|
      |-- Proceed ----------->|-- start --------------------------------------->|
      |<- end of file --------|
      |<- its exit code ------|   the init dies, the driver reaps it (subreaper), delete

So the monitor sees a child like any other (messages.py), and nothing that another program takes time for is waited for in it.
The driver's mounts are in a namespace of its own: they go with it, however it ends. Imported only where a container asks for it.
Source: runtime-spec runtime.md and runtime-linux.md; runc(8), crun(1): --root, --log, --pid-file, --console-socket.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from corten.linux import descriptors, mounts
from corten.linux import syscalls as sys
from corten.linux.cgroup import Cgroup, Layout
from corten.runtime import messages, operations, users
from corten.runtime.init import DEFAULT_PATH
from corten.runtime.plan import is_shared_bind
from corten.runtime.sandbox import GROUPS_ANNOTATION, REAPER_ANNOTATION, USER_ANNOTATION, Child
from corten.spec.runtime import Mount, Process, RuntimeConfig, User, encode

OOM_MARK = "oom-killed"
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_FILE_LIMIT = 1 << 24
_OURS = (USER_ANNOTATION, GROUPS_ANNOTATION, REAPER_ANNOTATION)


class Refused(Exception):
    """The other runtime's words. `exit_code` is 126 or 127 if it was the user's program that could not be executed."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        lowered = text.lower()
        self.exit_code = 0
        if "not found in $path" in lowered or "no such file or directory" in lowered:
            self.exit_code = _NOT_FOUND
        elif "permission denied" in lowered or "is a directory" in lowered:
            self.exit_code = _NOT_EXECUTABLE


@dataclass(frozen=True)
class CommandLine:
    """`command`: the program with its own arguments, its --root included. `folder`: the container's run folder."""

    command: tuple[str, ...]
    container: str
    folder: str

    def call(self, verb: str, *arguments: str, stdio: tuple[int, int, int] | None = None) -> None:
        """Run it to its end. Raises Refused with the last error of its log."""
        log = f"{self.folder}/runtime.log"
        with suppress(FileNotFoundError):
            os.unlink(log)
        argv = [*self.command, "--log", log, "--log-format", "json", verb, *arguments]
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            code = _execute(argv, stdio or (null, null, null))
        finally:
            os.close(null)
        if code:
            raise Refused(_last_error(log) or f"{os.path.basename(self.command[0])} {verb} ended with {code}")


def _execute(argv: list[str], stdio: tuple[int, int, int]) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(stdio)]
    ignored = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)
    try:
        pid = os.posix_spawn(argv[0], argv, dict(os.environ), file_actions=actions, setsigdef=ignored, setsigmask=())
    except OSError as error:
        raise Refused(f"cannot execute the runtime {argv[0]}: {error.strerror}") from None
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _last_error(log: str) -> str:
    try:
        with open(log, "rb") as file:
            lines = file.read(_FILE_LIMIT).splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        with suppress(msgspec.DecodeError):
            entry = msgspec.json.decode(line, type=dict[str, object])
            if entry.get("level") == "error" and entry.get("msg"):
                return str(entry["msg"])
    return ""


# --- what the monitor calls
def spawn_container(line: CommandLine, config: RuntimeConfig, rootfs: str, root_mounts: Sequence[Mount], layout: Layout,
                    group: Cgroup | None, stdio: tuple[int, int, int] | None) -> Child:  # fmt: skip
    """A driver that makes, starts, reaps and deletes the container."""
    return _fork(lambda channel: _Container(line, config, rootfs, root_mounts, layout, group, stdio).drive(channel), stdio or ())


def spawn_exec(line: CommandLine, exec_id: str, process: Process, user: str | None, groups: Sequence[str], init_pid: int,
               layout: Layout, stdio: tuple[int, int, int] | None) -> Child:  # fmt: skip
    """A driver for one more process in the container."""

    def drive(channel: socket.socket) -> int:
        root = os.open(f"/proc/{init_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        account = _look_up(root, user or "", groups)
        path = f"{line.folder}/{exec_id}.json"
        with open(path, "wb") as file:
            file.write(encode(_as(account, process)))
        _see_one_version(layout)
        arguments = ["--detach", "--pid-file", f"{path}.pid", "--process", path]
        try:
            pid, terminal = _with_console(line, "exec", arguments, stdio, terminal=process.terminal)
        finally:
            for left in (path, f"{path}.pid"):
                with suppress(FileNotFoundError):
                    os.unlink(left)
        _announce(channel, pid, terminal)
        if not channel.recv(64):
            os.kill(pid, signal.SIGKILL)
        channel.close()
        _close(stdio)
        return _reap(pid)

    return _fork(drive, stdio or ())


def spawn_command(line: CommandLine, layout: Layout, verb: str, *arguments: str) -> Child:
    """A driver for a command that ends: its channel says Failure, or nothing."""

    def drive(_channel: socket.socket) -> int:
        _see_one_version(layout)
        line.call(verb, *arguments)
        return 0

    return _fork(drive, ())


# --- the driver
def _fork(drive: Callable[[socket.socket], int], keep: Iterable[int]) -> Child:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid, pidfd = sys.clone3(0)
    if pid:
        theirs.close()
        return Child(pid, pidfd, ours)
    code = 1
    try:
        sys.set_process_name("corten-driver")
        descriptors.close_all_but({0, 1, 2, theirs.fileno(), *keep})
        sys.prctl(sys.PR_SET_CHILD_SUBREAPER, 1)
        os.setsid()
        code = drive(theirs)
    except Refused as refusal:
        _say(theirs, messages.Failure(messages.OTHER_RUNTIME, "", 0, str(refusal), refusal.exit_code))
    except users.UnknownUser as error:
        _say(theirs, messages.Failure("look up user", "", 0, str(error)))
    except BaseException as error:  # a border: whatever it is travels back as data
        _say(theirs, messages.failure_from(error, "drive runtime"))
    os._exit(code)


def _say(channel: socket.socket, message: messages.FromChild) -> None:
    with suppress(OSError):  # nobody is left to be told
        descriptors.send_packet(channel, messages.encode(message))


def _announce(channel: socket.socket, pid: int, terminal: int) -> None:
    ready = messages.encode(messages.Ready([], pid))
    descriptors.send_packet(channel, ready, [terminal] if terminal >= 0 else [])
    if terminal >= 0:
        os.close(terminal)


def _close(stdio: tuple[int, int, int] | None) -> None:
    for fd in set(stdio or ()):
        os.close(fd)


def _reap(wanted: int) -> int:
    """Wait for `wanted`, and for whatever else has come to us; its exit code as a shell tells it."""
    while True:
        pid, status = os.wait()
        if pid == wanted:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _see_one_version(layout: Layout) -> None:
    """A mount namespace; on a hybrid host one without the version 2 mount: crun refuses the mix, and no limit is set there."""
    sys.unshare(sys.CLONE_NEWNS)
    sys.mount(None, "/", None, sys.MS_SLAVE | sys.MS_REC)
    if layout.v2 and not layout.unified:
        sys.umount2(layout.v2, sys.MNT_DETACH)


@dataclass(frozen=True)
class _Container:
    line: CommandLine
    config: RuntimeConfig
    rootfs: str
    root_mounts: Sequence[Mount]
    layout: Layout
    group: Cgroup | None
    stdio: tuple[int, int, int] | None

    def drive(self, channel: socket.socket) -> int:
        sandbox = operations.Sandbox()
        for mount in self.config.mounts or []:
            if is_shared_bind(mount):
                operations.TakeShared(mount).perform(sandbox)
        _see_one_version(self.layout)
        operations.MountRoot(self.rootfs, tuple(self.root_mounts)).perform(sandbox)
        bundle = f"{self.line.folder}/{messages.OTHER_RUNTIMES_BUNDLE}"
        os.mkdir(bundle, 0o700)
        with open(f"{bundle}/config.json", "wb") as file:
            file.write(encode(self._translated(sandbox)))
        with suppress(Refused):  # of an earlier life that ended without its driver
            self.line.call("delete", "--force", self.line.container)
        try:
            return self._live(channel, bundle)
        finally:
            if self.group and self.group.oom_kills():
                with open(f"{self.line.folder}/{OOM_MARK}", "wb"):
                    pass
            with suppress(Refused):
                self.line.call("delete", "--force", self.line.container)

    def _live(self, channel: socket.socket, bundle: str) -> int:
        terminal = bool(self.config.process and self.config.process.terminal)
        arguments = ["--bundle", bundle, "--pid-file", f"{bundle}/pid"]
        pid, master = _with_console(self.line, "create", arguments, self.stdio, terminal=terminal)
        _announce(channel, pid, master)
        if not channel.recv(64):
            return 1
        self.line.call("start", self.line.container)
        channel.close()
        _close(self.stdio)
        return _reap(pid)

    def _translated(self, sandbox: operations.Sandbox) -> RuntimeConfig:
        """What Corten says by annotations, said in the spec's words; sources in other mount namespaces brought into this one."""
        config, root = self.config, sandbox.root_fd
        said = config.annotations or {}
        groups = [name for name in said.get(GROUPS_ANNOTATION, "").split(",") if name]
        process = config.process or Process([], "/")
        if USER_ANNOTATION in said:
            process = _as(_look_up(root, said[USER_ANNOTATION], groups), process)
        if said.get(REAPER_ANNOTATION):
            program = _find_program(root, process)
            process = msgspec.structs.replace(process, args=[said[REAPER_ANNOTATION], program, *process.args])
        return msgspec.structs.replace(
            config, process=process, root=msgspec.structs.replace(config.root, path=self.rootfs) if config.root else None,
            annotations={key: value for key, value in said.items() if key not in _OURS} or None,
            mounts=[self._reachable(sandbox, number, mount) for number, mount in enumerate(config.mounts or [])],
        )  # fmt: skip

    def _reachable(self, sandbox: operations.Sandbox, number: int, mount: Mount) -> Mount:
        options = mount.options or []
        if "rro" in options and not os.path.isdir(mount.source):  # the same for a file, and crun 1.8 takes it for a folder's
            mount = msgspec.structs.replace(mount, options=["ro" if option == "rro" else option for option in options])
        shared = sandbox.trees.pop(mount.destination, -1)
        if shared < 0 and not operations.is_foreign(mount.source):
            return mount
        name = f"shared-{number}"
        folder = os.open(self.line.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            taken = msgspec.structs.replace(mount, destination=f"/{name}")
            operations.MountInto(taken).perform(operations.Sandbox(root_fd=folder, trees={f"/{name}": shared} if shared >= 0 else {}))
        finally:
            os.close(folder)
        return msgspec.structs.replace(mount, source=f"{self.line.folder}/{name}")


def _with_console(line: CommandLine, verb: str, arguments: list[str], stdio: tuple[int, int, int] | None, *,
                  terminal: bool) -> tuple[int, int]:  # fmt: skip
    """With `create` or `exec`. Returns (pid, the terminal's controlling side or -1)."""
    pid_file = arguments[arguments.index("--pid-file") + 1]
    if not terminal:
        line.call(verb, *arguments, line.container, stdio=stdio)
        return _read_pid(pid_file), -1
    path = f"{os.path.dirname(os.path.dirname(line.folder))}/c{os.getpid()}"  # sun_path is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        try:
            listener.listen(1)
            line.call(verb, *arguments, "--console-socket", path, line.container)
            connection, _ = listener.accept()
            with connection:
                _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
        finally:
            os.unlink(path)
    return _read_pid(pid_file), fds[0]


def _read_pid(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


def _as(account: users.Account, process: Process) -> Process:
    """The process under an account's numbers, with its home."""
    env = list(process.env or [])
    if not any(entry.startswith("HOME=") for entry in env):
        env.append(f"HOME={account.home}")
    return msgspec.structs.replace(process, env=env, user=User(account.uid, account.gid, None, list(account.groups) or None))


def _look_up(root: int, user: str, groups: Sequence[str]) -> users.Account:
    return users.resolve(user, groups, _read_inside(root, "/etc/passwd"), _read_inside(root, "/etc/group"))


def _read_inside(root: int, path: str) -> str:
    try:
        fd = mounts.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            return file.read(_FILE_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""  # an image without the file: only numbers work, as in Docker


def _find_program(root: int, process: Process) -> str:
    """For --init, which is given a path: the other runtime looks up only the first word."""
    name = process.args[0] if process.args else ""
    if "/" in name or not name:
        return name
    path = dict(entry.partition("=")[::2] for entry in process.env or []).get("PATH", DEFAULT_PATH)
    for folder in path.split(":"):
        with suppress(OSError):
            os.close(mounts.open_in_root(root, f"{folder}/{name}"))
            return f"{folder}/{name}"
    raise Refused(f'exec: "{name}": executable file not found in $PATH')
