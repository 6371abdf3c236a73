"""Every error that Corten reports, as a closed hierarchy: class -> HTTP status, exit code, message.

Owns the texts that clients match on (Docker Engine 28.5's, word for word). Imports nothing.
Must not hold logic: an error is a value that says what failed, on what, why, and what to do next.

    CortenError                 500
      Invalid                   400   a request that can never succeed as written
        DockerfileError         400   with the lines that it is about
      NotFound                  404   NoSuchContainer, NoSuchImage, NoSuchExec, NoSuchNetwork, NoSuchVolume, NoSuchPath ...
      Conflict                  409   NameInUse, NotRunning, ContainerPaused, ImageInUse, VolumeInUse ...
      Forbidden                 403   predefined networks, overlapping pools ...
      NotModified               304   the state asked for is the state there is
      NotSupported              501   Docker has it, Corten has not (yet); see docs/compat.md
      Unavailable               503
      KernelRefused             500   operation, operand, errno, text of a failed kernel call
        JustEnded               409   a call that came a moment too late
        CommandNotStarted       400   the user's program: exit code 127 (not found) or 126 (not executable)
"""

from __future__ import annotations

from typing import ClassVar


class CortenError(Exception):
    """Base of all errors. `template` is formatted with the keyword operands; or pass the whole text."""

    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    template: ClassVar[str] = "{text}"

    def __init__(self, text: str = "", **operands: object) -> None:
        self.operands = operands
        self.message = self.template.format(text=text, **operands)
        self.http_status = self.status
        super().__init__(self.message)


class Invalid(CortenError):
    status = 400


class NotFound(CortenError):
    status = 404


class Conflict(CortenError):
    status = 409


class Forbidden(CortenError):
    status = 403


class NotModified(CortenError):
    status = 304


class NotSupported(CortenError):
    status = 501


class Unavailable(CortenError):
    status = 503


class UnsupportedOption(NotSupported):
    """A request key that Docker honours and Corten does not yet: refused, never ignored."""

    template = "{key} is not supported by Corten yet (docs/compat.md lists what is); leave it out"


class VersionTooNew(Invalid):
    template = "client version {version} is too new. Maximum supported API version is {maximum}"


class VersionTooOld(Invalid):
    template = (
        "client version {version} is too old. Minimum supported API version is {minimum}, "
        "please upgrade your client to a newer version"
    )


class PageNotFound(NotFound):
    template = "page not found"


class NoSuchContainer(NotFound):
    template = "No such container: {name}"


class NoSuchImage(NotFound):
    template = "No such image: {name}"


class WrongPlatform(NotFound):
    template = "image with reference {name} was found but its platform ({own}) does not match the specified platform ({wanted})"


class NoSuchExec(NotFound):
    template = "No such exec instance: {name}"


class NoSuchNetwork(NotFound):
    template = "network {name} not found"


class NoSuchVolume(NotFound):
    template = "get {name}: no such volume"


class NoVolumePlugin(NotFound):
    template = 'error looking up volume plugin {driver}: plugin "{driver}" not found'


class NetworkNameInUse(Conflict):
    template = "network with name {name} already exists"


class NoSuchPlugin(NotFound):
    template = 'plugin "{name}" not found'


class NoSuchPath(NotFound):
    template = "Could not find the file {path} in container {name}"


class NoSuchVolumePath(NotFound):
    template = "Could not find the file {path} in volume {name}"


class AmbiguousPrefix(Invalid):
    template = "multiple IDs found with provided prefix: {name}"


class DockerfileError(Invalid):
    """Of the lines `line` to `last_line` of a Dockerfile (from 1). `word` is what in them is wrong; empty: the whole."""

    template = "{reason}"

    def __init__(self, *, reason: str, line: int, last_line: int, word: str = "") -> None:
        super().__init__(reason=reason, line=line)
        self.reason, self.line, self.last_line, self.word = reason, line, last_line, word


class DockerfileSyntax(DockerfileError):
    template = "dockerfile parse error on line {line}: {reason}"


class UnknownUserName(CortenError):
    """Docker answers 500 here; the text is what matters."""


class InvalidReference(Invalid):
    template = "invalid reference format"


class UppercaseReference(Invalid):
    template = "invalid reference format: repository name ({name}) must be lowercase"


class NoCommand(Invalid):
    template = "no command specified"


class InvalidName(Invalid):
    template = "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"


class InvalidSignal(Invalid):
    template = "invalid signal: {name}"


class InvalidFilter(Invalid):
    template = "invalid filter '{name}'"


class NameInUse(Conflict):
    template = (
        'Conflict. The container name "/{name}" is already in use by container "{id}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )


class RenameToSame(Invalid):
    template = "Renaming a container with the same name as its current name"


class NotRunning(Conflict):
    template = "container {id} is not running"


class CannotKill(Conflict):
    template = "cannot kill container: {name}: container {id} is not running"


class ContainerPaused(Conflict):
    template = "Container {name} is paused, unpause the container before exec"


class AlreadyPaused(Conflict):
    template = "Container {id} is already paused"


class NotPaused(Conflict):
    """Docker answers 500."""

    template = "Container {id} is not paused"


class MonitorSilent(Unavailable):
    """Its containers run on; nothing about them can be changed until it answers again. A signal is sent when it does."""

    template = (
        "the process {pid} that looks after the container does not answer: it is stopped or stuck; "
        "continue it (kill -CONT {pid}), or kill it: another one takes its place"
    )


class MonitorOlder(Conflict):
    """The engine was upgraded while the container ran."""

    template = (
        "the process {pid} that looks after container {container} was started by an older release, which cannot do this: "
        "restart the container, then try again"
    )


class CannotRestart(CortenError):
    """With the status of what failed. Docker answers 500 to all of it."""

    template = "Cannot restart container {name}: {reason}"

    def __init__(self, *, name: str, because: CortenError) -> None:
        super().__init__(name=name, reason=because.message)
        self.http_status = because.http_status


class CannotStop(Invalid):
    """Of a signal that there is not. Docker answers 500."""

    template = "cannot stop container: {name}: {reason}"


class CannotJoin(Conflict):
    """Another container's namespace, at a start (Docker: 400, 409 or 500 for the same texts)."""

    template = "{how}: {reason}"


class SurvivesKill(CortenError):
    template = "tried to kill container, but did not receive an exit event"


class StartPaused(Conflict):
    template = "cannot start a paused container, try unpause instead"


class IsRestarting(Conflict):
    template = "Container {id} is restarting, wait until the container is running"


class AttachRestarting(Conflict):
    template = "container {name} is restarting, wait until the container is running"


class AttachPaused(Conflict):
    template = "container {name} is paused, unpause the container before attach"


class MarkedForRemoval(Conflict):
    template = "container is marked for removal and cannot be started"


class UpdateRemoved(CortenError):
    template = 'Cannot update container {id}: container is marked for removal and cannot be "update"'


class CannotUpdate(Conflict):
    template = "Cannot update container {id}: {reason}"


class LimitRefused(CortenError):
    """The kernel does not take a limit, such as one below what is in use."""

    template = "Cannot update container {id}: {file}: {reason}"


class RemovalInProgress(Conflict):
    template = "removal of container {name} is already in progress"


class CommitDead(Conflict):
    template = "You cannot commit container {id} which is Dead"


class CommitRemoved(Conflict):
    template = "You cannot commit container {id} which is being removed"


class ExportDead(Conflict):
    template = "You cannot export container {id} which is Dead"


class ExportRemoved(Conflict):
    template = "You cannot export container {id} which is being removed"


class RemoveRunning(Conflict):
    template = (
        'cannot remove container "{name}": container is {state}: stop the container before removing or force remove'
    )


class RemovePaused(Conflict):
    template = 'cannot remove container "{name}": container is paused and must be unpaused first'


class NoLinkOfThatName(Conflict):
    """`link=1`: a container's own name is not a link's, and links have no names of their own here. Docker answers 500."""

    template = "Conflict, cannot remove the default link name of the container"


class RemovalFailed(CortenError):
    template = 'cannot remove container "{name}": unable to remove filesystem: {reason}'


class PruneRunning(Conflict):
    template = "a prune operation is already running"


class ImageInUse(Conflict):
    template = (
        'conflict: unable to remove repository reference "{name}" (must force) - '
        "container {container} is using its referenced image {image}"
    )


class VolumeInUse(Conflict):
    template = "remove {name}: volume is in use - [{containers}]"


class VolumeNameTaken(Conflict):
    template = "create {name}: driver '{driver}' already has volume '{name}': volume name must be unique"


class NotInSwarm(Unavailable):
    template = "This node is not part of a swarm"


class NotSwarmManager(Unavailable):
    template = (
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
        "to connect this node to swarm and try again."
    )


class ImageInUseById(Conflict):
    template = "conflict: unable to delete {image} ({how}) - {why}"


class PortInUse(CortenError):
    template = (
        "failed to set up container networking: driver failed programming external connectivity on endpoint "
        "{name} ({endpoint}): failed to bind host port {address}:{port}/{protocol}: address already in use"
    )


class KernelRefused(CortenError):
    """A kernel call that failed. Travels between processes as data (runtime.messages.Failure)."""

    template = "{operation} {operand}: {reason}"

    def __init__(self, *, operation: str, operand: str, errno: int, reason: str) -> None:
        super().__init__(operation=operation, operand=operand, reason=reason)
        self.operation, self.operand, self.errno, self.reason = operation, operand, errno, reason


class LogDriverFailed(CortenError):
    """A start whose log cannot be written: Docker answers 500 to what was wrong in the request, too."""

    template = "failed to create task for container: failed to initialize logging driver: {reason}"


class LogsNotReadable(NotSupported):
    template = "configured logging driver does not support reading"


class JustEnded(KernelRefused):
    """Nobody has the container any more, though its record may still say that it runs: its end is being dealt with."""

    status = 409
    template = "container {operand} is not running"


_ASKED_FOR = (2, 20)  # ENOENT and ENOTDIR of a mount: what was asked for cannot be


class MountNotMade(KernelRefused):
    """A mount that the kernel or the runtime refuses; Docker's text up to the reason (runc's)."""

    template = (
        "failed to create task for container: failed to create shim task: OCI runtime create failed: "
        "corten-runtime create failed: unable to start container process: error during container init: "
        "error mounting {operand}: {reason}"
    )

    def __init__(self, *, operation: str, operand: str, errno: int, reason: str) -> None:
        super().__init__(operation=operation, operand=operand, errno=errno, reason=reason)
        self.http_status = 400 if errno in _ASKED_FOR else 500


class CommandNotStarted(CortenError):
    """The user's program could not be executed; Docker's text (runc's, as the daemon passes it on)."""

    status = 400
    template = (
        "failed to create task for container: failed to create shim task: OCI runtime create failed: "
        "corten-runtime create failed: unable to start container process: {reason}"
    )

    def __init__(self, reason: str, program_exit_code: int) -> None:
        super().__init__(reason=reason)
        self.program_exit_code = program_exit_code


class OtherRuntimeRefused(CortenError):
    """What crun or runc said to create, start or exec; `Other...` because it is not ours."""

    template = "failed to create task for container: failed to create shim task: OCI runtime create failed: {reason}"


class OtherCommandNotStarted(CommandNotStarted):
    """The same, where it was the user's program that could not be executed."""

    template = OtherRuntimeRefused.template


class StoreCorrupt(CortenError):
    """What is on disk is not what its digest says."""


class ArchiveRefused(Invalid):
    """A tar or image archive from outside that is truncated, corrupt, or tries to leave its folder."""

    expected: ClassVar[bool] = True  # a worker that raises it has no bug to report


class OtherKind(CortenError):
    """Docker's noOverwriteDirNonDir."""

    expected: ClassVar[bool] = True
    template = 'cannot overwrite {there} "{path}" with {wanted} "{target}"'


class RegistryError(CortenError):
    """A registry's refusal, with the status that a Docker client expects."""

    def __init__(self, text: str, *, status: int = 500) -> None:
        super().__init__(text)
        self.http_status = status
