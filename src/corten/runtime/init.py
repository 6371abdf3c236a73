"""The child: from the clone to the user's program. Runs in the container's namespaces and never returns.

Owns the order of the last steps (identity, capabilities, seccomp, exec). What was decided before arrives as a Plan.
Anything that goes wrong is sent to the parent as a Failure; the exit code of the child is then meaningless.
Sources: runc libcontainer/standard_init_linux.go for the order of seccomp and capabilities; capabilities(7).
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from corten.linux import capabilities, descriptors, pty
from corten.linux import syscalls as sys
from corten.runtime import messages, users
from corten.runtime.operations import JoinKeyring, Operation, Sandbox, SetOomScore, SetRlimit
from corten.spec.runtime import Process

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


class ProgramRefused(Exception):
    """The user's program cannot be executed: runc's text, and the exit code that Docker gives it."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(frozen=True)
class ChildSpec:
    """All that a child needs, made by the parent before the clone.

    `user` is Docker's user string (resolved inside), or None where the OCI numbers hold. `listener`: after Ready, wait
    for a connection there instead of the parent (the OCI command line's `create` has gone by then).
    """

    process: Process | None
    operations: tuple[Operation, ...]
    user: str | None
    groups: tuple[str, ...]
    seccomp: tuple[bytes, int] | None
    stdio: tuple[int, int, int] | None
    make_cwd: bool
    terminal_here: bool  # exec: open the terminal from the container's devpts; create: an operation has done it
    preserve_fds: int = 0
    reaper: str = ""  # path inside of the program that runs the user's as its child (--init)
    enter_cgroup: Callable[[], None] | None = None
    wait_for_maps: bool = False
    create_container_hooks: Callable[[], None] | None = None
    before_exec: Callable[[], None] | None = None


def run_child(spec: ChildSpec, channel: socket.socket, listener: socket.socket | None) -> NoReturn:
    """Everything after the clone. Exits with 1 if the program was not reached."""
    reporter = _Reporter(channel)
    try:
        inherited = {0, 1, 2, channel.fileno(), *(spec.stdio or ()), *range(3, 3 + spec.preserve_fds)}
        descriptors.close_all_but(inherited | ({listener.fileno()} if listener else set()))
        _run(spec, reporter, listener)
    except ProgramRefused as refusal:
        reporter.failure(messages.Failure(reporter.step, "", 0, str(refusal), refusal.exit_code))
    except users.UnknownUser as error:
        reporter.failure(messages.Failure("look up user", "", 0, str(error)))
    except BaseException as error:  # a border: whatever it is travels back as data
        reporter.failure(messages.failure_from(error, reporter.step, operand=str(reporter.operand or "")))
    os._exit(1)


class _Reporter:
    """The way back to whoever waits; `step` names what is being done, `operand` to what (printed only if it fails)."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.step = "start child"
        self.operand: Operation | None = None

    def failure(self, failure: messages.Failure) -> None:
        try:
            descriptors.send_packet(self.channel, messages.encode(failure))
        except OSError:
            os._exit(1)  # nobody is left to be told

    def wait(self) -> None:
        """Block until the parent says go on; without a parent there is no reason to."""
        if not self.channel.recv(64):
            os._exit(1)


def _run(spec: ChildSpec, reporter: _Reporter, listener: socket.socket | None) -> None:
    _reset_signals()
    os.setsid()
    if spec.enter_cgroup:
        reporter.step = "enter cgroup"
        spec.enter_cgroup()
    if spec.wait_for_maps:
        reporter.step = "wait for id maps"
        reporter.wait()
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    sandbox = Sandbox()

    def let_parent_run_hooks() -> None:
        descriptors.send_packet(reporter.channel, messages.encode(messages.HooksDue()))
        reporter.wait()
        if spec.create_container_hooks:
            spec.create_container_hooks()

    sandbox.let_parent_run_hooks = let_parent_run_hooks
    for operation in spec.operations:
        reporter.step, reporter.operand = type(operation).__name__, operation
        operation.perform(sandbox)
    reporter.operand = None
    process = spec.process
    if process is None:
        raise OSError(errno.EINVAL, "config.json has no process", "process")
    reporter.step = "look up user"
    account = users.numeric(process.user) if spec.user is None else users.look_up(spec.user, spec.groups)
    environment = _environment(process, account)
    if spec.terminal_here and process.terminal:
        reporter.step = "open terminal"
        sandbox.pty_master, sandbox.pty_slave, _ = pty.open_pair("/dev/pts/ptmx")
        if process.console_size:
            pty.set_window_size(sandbox.pty_master, process.console_size.height, process.console_size.width)
    for operation in _limits(process):
        reporter.step = type(operation).__name__
        operation.perform(sandbox)
    reporter.step = "change directory"
    _enter_cwd(process.cwd, make=spec.make_cwd, account=account)
    reporter.step = "find program"
    program = find_program(process.args, environment)
    reporter.step = "announce"
    masters = [sandbox.pty_master] if sandbox.pty_master >= 0 else []
    keep, missing = _grantable(process)
    if missing:
        sandbox.warnings.append(f"this host does not have {', '.join(missing)}; left out")
    descriptors.send_packet(reporter.channel, messages.encode(messages.Ready(sandbox.warnings)), masters)
    if listener is not None:
        reporter.channel.close()
        reporter.channel, _ = listener.accept()
    reporter.wait()
    if spec.before_exec:
        reporter.step = "hook"
        spec.before_exec()
    reporter.step = "stdio"
    _attach_stdio(spec.stdio, sandbox, account)
    reporter.step = "identity"
    _become(process, account, keep, spec.seccomp)
    reporter.step = "exec"
    descriptors.close_on_exec_from(3 + spec.preserve_fds)
    args = process.args
    if spec.reaper:
        program, args = spec.reaper, [spec.reaper, program, *args]
    try:
        os.execve(program, args, environment)
    except OSError as error:
        raise _refusal(process.args[0], error) from None


def _reset_signals() -> None:
    # Python ignores SIGPIPE and SIGXFSZ; the program must find every signal as a shell would leave it.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _limits(process: Process) -> list[Operation]:
    steps: list[Operation] = [JoinKeyring("corten")]
    steps += [SetRlimit(limit.type, limit.soft, limit.hard) for limit in process.rlimits or []]
    if process.oom_score_adj is not None:
        steps.append(SetOomScore(process.oom_score_adj))
    return steps


def _environment(process: Process, account: users.Account) -> dict[str, str]:
    environment = dict(entry.partition("=")[::2] for entry in process.env or [])
    environment.setdefault("HOME", account.home)
    return environment


def _enter_cwd(cwd: str, *, make: bool, account: users.Account) -> None:
    try:
        os.chdir(cwd)
    except FileNotFoundError:
        if not make:
            raise ProgramRefused(f'chdir to cwd ("{cwd}") set in config.json failed: no such file or directory', _NOT_FOUND) from None
        os.makedirs(cwd, exist_ok=True)
        os.chown(cwd, account.uid, account.gid)
        os.chdir(cwd)


def find_program(args: list[str], environment: dict[str, str]) -> str:
    """The absolute path of args[0]. Raises ProgramRefused with runc's texts (Go's exec.LookPath)."""
    if not args or not args[0]:
        raise ProgramRefused("no command specified", _NOT_FOUND)
    name = args[0]
    if "/" in name:
        _check_executable(name, name)
        return name
    for folder in environment.get("PATH", DEFAULT_PATH).split(":"):
        candidate = f"{folder or '.'}/{name}"
        try:
            if stat.S_ISREG(os.stat(candidate).st_mode) and os.access(candidate, os.X_OK):
                _check_executable(candidate, name)
                return candidate
        except OSError:
            continue
    raise ProgramRefused(f'exec: "{name}": executable file not found in $PATH', _NOT_FOUND)


def _check_executable(path: str, name: str) -> None:
    try:
        found = os.stat(path)
    except OSError as error:
        code = _NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else _NOT_EXECUTABLE
        text = (error.strerror or "").lower()
        raise ProgramRefused(f'exec: "{name}": stat {path}: {text}', code) from None
    if stat.S_ISDIR(found.st_mode):
        raise ProgramRefused(f'exec: "{name}": is a directory', _NOT_EXECUTABLE)
    if not found.st_mode & 0o111:
        raise ProgramRefused(f'exec: "{name}": permission denied', _NOT_EXECUTABLE)
    if _is_interpreter(found):
        # /proc/self/exe is the host's Python until the exec below: nothing inside may run (or hold) it.
        raise ProgramRefused(f'exec: "{name}": permission denied', _NOT_EXECUTABLE)


def _is_interpreter(found: os.stat_result) -> bool:
    try:
        own = os.stat("/proc/self/exe")
    except OSError:
        return False  # no /proc inside: then there is no such link either
    return (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)


def _refusal(name: str, error: OSError) -> ProgramRefused:
    text = (error.strerror or "").lower()
    code = _NOT_FOUND if error.errno == errno.ENOENT else _NOT_EXECUTABLE
    return ProgramRefused(f"exec {name}: {text}", code)


def _attach_stdio(stdio: tuple[int, int, int] | None, sandbox: Sandbox, account: users.Account) -> None:
    if sandbox.pty_slave >= 0:
        os.close(sandbox.pty_master)
        for target in range(3):
            os.dup2(sandbox.pty_slave, target, inheritable=True)
        pty.make_controlling(0)
        os.fchown(0, account.uid, -1)
        return
    if stdio:
        for target, source in enumerate(stdio):
            os.dup2(source, target, inheritable=True)
        for target in range(3):
            if stat.S_ISFIFO(os.fstat(target).st_mode):
                # So that the program may open /dev/stdout again under its own user.
                os.fchown(target, account.uid, account.gid)


def _grantable(process: Process) -> tuple[int, list[str]]:
    """The host's bounding set, and which of the wanted capabilities it lacks."""
    host = capabilities.bounding_set()
    wanted = process.capabilities.bounding if process.capabilities else None
    missing = [name for name in wanted or [] if name in capabilities.NUMBERS and not host >> capabilities.NUMBERS[name] & 1]
    return host, missing


def _become(process: Process, account: users.Account, host: int, seccomp: tuple[bytes, int] | None) -> None:
    if process.no_new_privileges:
        sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
    elif seccomp:
        sys.seccomp_set_filter(*seccomp)  # while the process still has CAP_SYS_ADMIN
    sets = process.capabilities

    def mask(names: list[str] | None) -> int:
        return capabilities.mask_of([name for name in names or [] if name in capabilities.NUMBERS]) & host

    bounding = mask(sets.bounding) if sets else 0
    capabilities.drop_bounding(host, bounding)
    if process.user.umask is not None:
        os.umask(process.user.umask)
    else:
        os.umask(0o022)
    _set_groups(account)
    os.setgid(account.gid)
    sys.prctl(sys.PR_SET_KEEPCAPS, 1)
    os.setuid(account.uid)
    sys.prctl(sys.PR_SET_KEEPCAPS, 0)
    if sets:
        permitted = mask(sets.permitted)
        sys.capset(mask(sets.effective) & permitted, permitted, mask(sets.inheritable))
        if sets.ambient:
            capabilities.raise_ambient(mask(sets.ambient) & permitted)
    else:
        sys.capset(0, 0, 0)
    if process.no_new_privileges and seccomp:
        sys.seccomp_set_filter(*seccomp)


def _set_groups(account: users.Account) -> None:
    try:
        os.setgroups(account.groups)
    except PermissionError:
        if account.groups:  # a user namespace with setgroups denied, and nothing to set: as it is
            raise
