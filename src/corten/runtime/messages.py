"""Every message between daemon, launcher, monitor and a container's child: one closed list.

    daemon                    launcher              monitor                     child (init or exec)
      |-- SpawnMonitor --------->|---- fork, detach --->|                            |
      |<------- Done ------------|                      |                            |
      |-- RunJob(+fds) --------->|  fork, job, exit     |                            |
      |<------- Done / Failure --|                      |                            |
      |-- connect; <------------------- Hello ----------|                            |
      |-- Create --------------------------------------->|-- clone3 ----------------->|
      |<------------------------------- Cloned ----------|                            |
      |                                                  |-- Proceed (maps written) ->| operations
      |   (network is attached to /proc/PID/ns/net)      |                            | operations
      |<------------------------------- Created ---------|<- Ready (+PTY master) -----|
      |-- Start (StartOnceReady: before Created) ------>|-- Proceed ---------------->| execve
      |<------------------------------- Done ------------|<- end of file -------------|
      |-- Exec / Attach / Resize / Signal / Freeze ---->|                            |
      |-- SetLog / GiveTerminal(+fd back) ------------->|                            |
      |-- TakeOver(+fds) ----------------------------->|   what another monitor had, which was killed
      |-- Keep(+fds) / GiveKept ---------------------->|   (Done(+fds): what outlives the daemon)
      |<------------------------------- Exited ----------|<- pidfd ready -------------|

A child's failure is a Failure value at any point: operation, operand, errno, text. Descriptors travel with SCM_RIGHTS
beside the message that names them. Packets are MessagePack on SOCK_SEQPACKET; `serial` pairs a reply with its request.

A monitor outlives the daemon that started it, so daemon and monitor may be of different releases. What they say to each other only
ever grows: a new field is the last of its message and has a default, a new message has a name of its own and is sent only to a monitor
whose Hello knows it. tests/unit/test_messages.py holds every message to what has been said before.
"""

from __future__ import annotations

import msgspec

from corten.spec.runtime import Mount


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    pass


OTHER_RUNTIME = "other runtime"  # the operation of a Failure that has crun's or runc's words
OTHER_RUNTIMES_BUNDLE = "bundle"  # the folder in a container's run folder that its driver has made for them


class Failure(_Message, frozen=True):
    """What failed, as data. `exit_code` is 126 or 127 when it was the user's program that could not be executed."""

    operation: str
    operand: str
    errno: int
    text: str
    exit_code: int = 0
    serial: int = 0


class Done(_Message, frozen=True):
    serial: int
    result: bytes = b""


# --- daemon -> launcher
class SpawnMonitor(_Message, frozen=True):
    serial: int
    socket_path: str
    log_path: str


class RunJob(_Message, frozen=True):
    """Run one of the jobs that the launcher was started with, in a child. Descriptors travel along."""

    serial: int
    entry: str
    argument: bytes


# --- daemon -> monitor
class LogSettings(_Message, frozen=True):
    """Where the container's output goes: checked, resolved and rendered by the engine (spec/log_options.py, log_tag.py).

    `path` is the file of json-file and local, and of the cache that every other driver has; empty keeps none. `max_size` 0 is no
    limit. `subject` has the fields of log_tag.Subject, `peers` the resolved addresses of the driver's destination.
    """

    driver: str
    path: str = ""
    max_size: int = 0
    max_file: int = 1
    compress: bool = False
    options: dict[str, str] = {}
    attributes: dict[str, str] = {}
    tag: str = ""
    subject: dict[str, str] = {}
    peers: list[tuple[str, int]] = []


class Create(_Message, frozen=True):
    """Set a container up until just before its program. `rootfs` is mounted by the child on the bundle's root."""

    serial: int
    container: str
    bundle: str
    run_dir: str
    rootfs: list[Mount]
    log: LogSettings
    open_stdin: bool
    stdin_once: bool
    runtime: list[str] = []  # another OCI runtime's command line up to its verb; empty for the built-in one
    tell_pid: bool = False  # with Cloned, as soon as there is one


class Cloned(_Message, frozen=True):
    """The sandbox has its namespaces, and is being set up. To who has asked for it, before Created; not of other runtimes' containers."""

    container: str
    pid: int


class Created(_Message, frozen=True):
    serial: int
    pid: int
    warnings: list[str]


class Start(_Message, frozen=True):
    serial: int
    container: str


class StartOnceReady(_Message, frozen=True):
    """As Start, and may come before Created: the program is executed as soon as the sandbox is set up. A set-up that fails is answered here, too."""

    serial: int
    container: str


class Streams(_Message, frozen=True):
    """Which streams a client gets or sends, and whether its output is framed (stdcopy) or raw."""

    stdin: bool
    stdout: bool
    stderr: bool
    framed: bool


class Exec(_Message, frozen=True):
    """Start one more process in a running container. One descriptor: the client's connection, if attached.

    `tools`: the layers of another image, topmost first, that become its root (tool_root.py); empty: the container's own.
    """

    serial: int
    container: str
    exec_id: str
    process: bytes  # an OCI process object
    user: str | None
    groups: list[str]
    streams: Streams
    detach_keys: bytes
    pending: bytes
    tools: list[str] = []


class Attach(_Message, frozen=True):
    """Give a client's connection (one descriptor) to a running or created container."""

    serial: int
    container: str
    streams: Streams
    detach_keys: bytes
    pending: bytes  # what the client sent before its connection was handed over


class Resize(_Message, frozen=True):
    serial: int
    container: str
    exec_id: str
    height: int
    width: int


class Signal(_Message, frozen=True):
    """To a container's first process; or to an exec and what it has started in its session."""

    serial: int
    container: str
    number: int
    exec_id: str = ""


class Freeze(_Message, frozen=True):
    serial: int
    container: str
    frozen: bool


class Discard(_Message, frozen=True):
    """Kill what is left of a container and forget it (a failed start, a forced removal)."""

    serial: int
    container: str


class SetLog(_Message, frozen=True):
    """From now on a container's output goes there."""

    serial: int
    container: str
    log: LogSettings


class GiveTerminal(_Message, frozen=True):
    """Answered by Done with a copy of the controlling side of the container's terminal, which must outlive this monitor."""

    serial: int
    container: str


class TakeOver(_Message, frozen=True):
    """Look after a container that runs and whose monitor was killed. Descriptors: its init's pidfd, and its terminal if it has one."""

    serial: int
    container: str
    bundle: str
    run_dir: str
    pid: int
    log: LogSettings
    open_stdin: bool
    stdin_once: bool
    runtime: list[str] = []  # as in Create


class Ping(_Message, frozen=True):
    """Are you there? Of no container; answered at once."""

    serial: int
    container: str = ""


class Keep(_Message, frozen=True):
    """Hold descriptors (sent along) for as long as the container runs, in the place of what was held before: its next daemon needs them."""

    serial: int
    container: str


class GiveKept(_Message, frozen=True):
    """Answered by Done with copies of what is held."""

    serial: int
    container: str


# --- monitor -> daemon
class RunningContainer(_Message, frozen=True):
    container: str
    pid: int
    started: bool
    exec_ids: list[str]


class Hello(_Message, frozen=True):
    """First message on every connection: what this monitor serves. `knows` names the requests that came after the first release."""

    pid: int
    containers: list[RunningContainer]
    knows: list[str] = []


class Exited(_Message, frozen=True):
    """A container's or (with exec_id) an exec's program has ended. Times are nanoseconds since the epoch."""

    container: str
    exec_id: str
    exit_code: int
    oom_killed: bool
    finished: int


class Detached(_Message, frozen=True):
    """A client pressed its detach keys."""

    container: str
    exec_id: str


# --- parent <-> child
class Proceed(_Message, frozen=True):
    """Parent to child: go on past the point where you wait."""


class HooksDue(_Message, frozen=True):
    """Child to parent: the namespaces are there, the root is mounted and not yet the root; it waits for Proceed."""


class Ready(_Message, frozen=True):
    """Child to parent: the container is set up (descriptor: the PTY's controlling side, if there is one). See foreign.py for `pid`."""

    warnings: list[str]
    pid: int = 0  # of what another runtime has made; 0: the child itself


ToLauncher = SpawnMonitor | RunJob
ToMonitor = Create | Start | Exec | Attach | Resize | Signal | Freeze | Discard | Ping | Keep | GiveKept | SetLog | GiveTerminal | TakeOver | StartOnceReady
ADDED: tuple[type[ToMonitor], ...] = (SetLog, GiveTerminal, TakeOver, StartOnceReady)  # since the first release: an older monitor does not know them
FromMonitor = Hello | Created | Done | Failure | Exited | Detached | Cloned
FromLauncher = Done | Failure
FromChild = HooksDue | Ready | Failure

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
decode_for_launcher = msgspec.msgpack.Decoder(ToLauncher).decode
decode_for_monitor = msgspec.msgpack.Decoder(ToMonitor).decode
decode_from_monitor = msgspec.msgpack.Decoder(FromMonitor).decode
decode_from_launcher = msgspec.msgpack.Decoder(FromLauncher).decode
decode_from_child = msgspec.msgpack.Decoder(FromChild).decode


def not_understood(packet: bytes, error: msgspec.DecodeError) -> Failure | None:
    """The answer to a request that this release cannot read; None if it is not even a request."""
    try:
        name, serial, *_ = msgspec.msgpack.decode(packet, type=list)
    except (msgspec.DecodeError, ValueError):
        return None
    return Failure("understand", str(name), 0, f"this process is of another release of Corten: {error}", 0, serial) if isinstance(serial, int) else None


def failure_from(error: BaseException, operation: str, *, operand: str = "", serial: int = 0) -> Failure:
    """Turn any exception into data; OSError keeps errno and file name (or `operand`, where the call had none)."""
    if isinstance(error, OSError) and error.errno:
        return Failure(operation, str(error.filename or operand), error.errno, error.strerror or str(error), 0, serial)
    return Failure(operation, type(error).__name__, 0, str(error), 0, serial)
