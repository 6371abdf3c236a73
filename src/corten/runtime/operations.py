"""The operations that set a container up, each a small frozen value with one perform().

They run in the container's child, in the order that plan.py gives them. Each does what it says and nothing else;
deciding is plan.py's work. An OSError that leaves perform() becomes a Failure naming the operation and operand.
Sources: OCI runtime-spec config.md and config-linux.md; pivot_root(2) "pivot_root(".", ".")".
"""

from __future__ import annotations

import errno
import os
import re
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from corten.linux import apparmor, mounts, overlay, pty
from corten.linux import syscalls as sys
from corten.spec.runtime import Mount

_DEVICE_BITS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
_RLIMIT_LOCKS = 10  # the one that the resource module does not know (getrlimit(2))
_WRONG_KIND = (
    ": Are you trying to mount a directory onto a file (or vice-versa)? "
    "Check if the specified host path exists and is the expected type"
)
# What may be mounted over below /proc (lxcfs does): runc's list.
_PROC_FILES = frozenset(
    f"/proc/{name}" for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo",
                                 "net/dev", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled")
)  # fmt: skip
_FOREIGN = re.compile(r"/proc/(\d+)/root(/.*)")
is_foreign = _FOREIGN.fullmatch  # a source in another process's mount namespace


@dataclass
class Sandbox:
    """Live state of the child while it works through its plan: never stored, never sent."""

    root_fd: int = -1
    trees: dict[str, int] = field(default_factory=dict)  # destination -> a tree taken while it was still shared with the host
    pty_master: int = -1
    pty_slave: int = -1
    warnings: list[str] = field(default_factory=list)
    let_parent_run_hooks: Callable[[], None] = lambda: None


class Operation:
    """One step. `str()` of it is the printed plan's line."""

    def perform(self, sandbox: Sandbox) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class JoinNamespaces(Operation):
    """Enter existing namespaces, (path, CLONE_NEW flag) each, in this order."""

    targets: tuple[tuple[str, int], ...]

    def perform(self, sandbox: Sandbox) -> None:
        # All are opened first: once in another mount namespace, the host's /proc is out of sight.
        opened = [(os.open(path, os.O_RDONLY | os.O_CLOEXEC), flag) for path, flag in self.targets]
        for fd, flag in opened:
            sys.setns(fd, flag)
            os.close(fd)


@dataclass(frozen=True)
class ConfineExec(Operation):
    """What is executed from here on runs under this AppArmor profile. Before the host's /proc is out of sight."""

    profile: str

    def perform(self, sandbox: Sandbox) -> None:
        if not apparmor.enabled():
            raise OSError(errno.ENOTSUP, "this kernel has no AppArmor", self.profile)
        apparmor.confine_exec(self.profile)


@dataclass(frozen=True)
class Unshare(Operation):
    flag: int

    def perform(self, sandbox: Sandbox) -> None:
        sys.unshare(self.flag)


@dataclass(frozen=True)
class SetTimeOffsets(Operation):
    offsets: tuple[tuple[str, int, int], ...]

    def perform(self, sandbox: Sandbox) -> None:
        # In a user namespace a process that cannot be dumped does not own its files in /proc. Nobody is inside yet to look.
        sys.prctl(sys.PR_SET_DUMPABLE, 1)
        try:
            with open("/proc/self/timens_offsets", "w", encoding="utf-8") as file:
                file.write("".join(f"{clock} {seconds} {nanoseconds}\n" for clock, seconds, nanoseconds in self.offsets))
        finally:
            sys.prctl(sys.PR_SET_DUMPABLE, 0)


@dataclass(frozen=True)
class TakeShared(Operation):
    """Hold what a shared bind shows before the child's mounts stop being peers of the host's: mounts then travel both ways."""

    mount: Mount

    def perform(self, sandbox: Sandbox) -> None:
        recursive = mounts.parse_options(self.mount.options or []).flags & sys.MS_REC
        flags = sys.OPEN_TREE_CLONE | sys.OPEN_TREE_CLOEXEC | (sys.AT_RECURSIVE if recursive else 0)
        sandbox.trees[self.mount.destination] = sys.open_tree(mounts.AT_FDCWD, self.mount.source, flags)


@dataclass(frozen=True)
class SetPropagation(Operation):
    """Of everything the child sees. Slave by default: nothing mounted inside may show up on the host."""

    flags: int

    def perform(self, sandbox: Sandbox) -> None:
        sys.mount(None, "/", None, self.flags)


@dataclass(frozen=True)
class MountRoot(Operation):
    """Mount the snapshot on the root folder, or bind the folder to itself, and remember it."""

    path: str
    mounts: tuple[Mount, ...]

    def perform(self, sandbox: Sandbox) -> None:
        for mount in self.mounts:
            options = mounts.parse_options(mount.options or [])
            overlay.mount(mount.source, self.path, mount.type, options.flags, options.data)
        if not self.mounts:
            # The parent mount must not be shared, or pivot_root is refused.
            sys.mount(self.path, self.path, None, sys.MS_BIND | sys.MS_REC)
        sandbox.root_fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


@dataclass(frozen=True)
class MountInto(Operation):
    """One entry of `mounts`. A bind needs a second call for its flags, a propagation change one each."""

    mount: Mount

    def perform(self, sandbox: Sandbox) -> None:
        mount = self.mount
        foreign = is_foreign(mount.source)
        if foreign:
            self._take_from(sandbox, f"/proc/{foreign[1]}/ns/mnt", foreign[2])
            return
        try:
            self._mount(sandbox)
        except OSError as error:
            reason = f"{error.strerror}{_WRONG_KIND}" if error.errno == errno.ENOTDIR else error.strerror
            raise OSError(error.errno, reason, f'"{mount.source or mount.type}" to rootfs at "{mount.destination}"') from None

    def _mount(self, sandbox: Sandbox) -> None:
        """Raises OSError with runc's words as its text."""
        mount, root = self.mount, os.readlink(mounts.fd_path(sandbox.root_fd)).rstrip("/")
        options = mounts.parse_options(mount.options or [])
        bind = bool(options.flags & sys.MS_BIND)
        if bind:
            _check_proc(os.path.normpath(mount.destination), root, mount)
        with _saying(f"stat {mount.source}"):
            directory = not bind or stat.S_ISDIR(os.stat(mount.source).st_mode)
        try:
            target = mounts.make_in_root(sandbox.root_fd, mount.destination, directory=directory)
        except OSError as error:
            what = "open o_path procfd: open" if error.errno == errno.ENOTDIR else "mkdir"
            raise _said(error, f"{what} {root}{mount.destination}") from None
        try:
            _check_proc(os.readlink(mounts.fd_path(target)).removeprefix(root), root, mount)
            point, flags = mounts.fd_path(target), options.flags & (sys.MS_BIND | sys.MS_REC) if bind else options.flags
            if mount.destination in sandbox.trees:
                tree = sandbox.trees.pop(mount.destination)
                sys.move_mount(tree, "", target, "", sys.MOVE_MOUNT_F_EMPTY_PATH | sys.MOVE_MOUNT_T_EMPTY_PATH)
                os.close(tree)
            else:
                source, data = mount.source or mount.type, "" if bind else options.data
                with _saying(f"mount {source}:{mount.destination} (via {point}), flags: {flags:#x}{f', data: {data}' if data else ''}"):
                    overlay.mount(source, point, None if bind else mount.type, flags, data)
        finally:
            os.close(target)
        target = mounts.open_in_root(sandbox.root_fd, mount.destination)
        try:
            self._finish(mounts.fd_path(target), target, options, bind=bind)
        finally:
            os.close(target)

    def _take_from(self, sandbox: Sandbox, namespace: str, path: str) -> None:
        """A source below /proc/PID/root is in another mount namespace, which bind refuses: clone it there, move it here."""
        home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        other = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        target = mounts.make_in_root(sandbox.root_fd, self.mount.destination, directory=True)
        try:
            sys.setns(other, sys.CLONE_NEWNS)
            try:
                tree = sys.open_tree(-100, path, sys.OPEN_TREE_CLONE | sys.OPEN_TREE_CLOEXEC)
            finally:
                sys.setns(home, sys.CLONE_NEWNS)
            sys.move_mount(tree, "", target, "", sys.MOVE_MOUNT_F_EMPTY_PATH | sys.MOVE_MOUNT_T_EMPTY_PATH)
            os.close(tree)
        finally:
            for fd in (home, other, target):
                os.close(fd)

    @staticmethod
    def _finish(path: str, target: int, options: mounts.Options, *, bind: bool) -> None:
        extra = options.flags & ~(sys.MS_BIND | sys.MS_REC)
        if bind and extra:
            # A remount drops what it does not name; what the source's mount has locked must be named again.
            locked = os.statvfs(path).f_flag & (sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC)
            sys.mount(None, path, None, extra | locked | sys.MS_REMOUNT | sys.MS_BIND)
        for flag in options.propagation:
            sys.mount(None, path, None, flag)
        if options.recursive:
            try:
                sys.mount_setattr(target, "", sys.AT_EMPTY_PATH | sys.AT_RECURSIVE, attr_set=options.recursive)
            except OSError as error:
                if error.errno != errno.ENOSYS:  # before Linux 5.12 only the mount itself can be made read-only, as Docker does there
                    raise
                locked = os.statvfs(path).f_flag & (sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC)
                sys.mount(None, path, None, extra | locked | sys.MS_RDONLY | sys.MS_REMOUNT | sys.MS_BIND)


def _check_proc(inside: str, root: str, mount: Mount) -> None:
    """A mount over /proc would show the container a false one, or hide what this sandbox goes by (runc checkProcMount)."""
    if inside == "/proc" and mount.type != "proc" and os.path.realpath(mount.source) != "/proc":
        raise OSError(errno.EPERM, f'"{root}{inside}" cannot be mounted because it is not of type proc')
    if inside.startswith("/proc/") and inside not in _PROC_FILES:
        raise OSError(errno.EPERM, f'"{root}{inside}" cannot be mounted because it is inside /proc')


def _said(error: OSError, what: str) -> OSError:
    return OSError(error.errno, f"{what}: {(error.strerror or '').lower()}")


@contextmanager
def _saying(what: str) -> Iterator[None]:
    """A failure of the block says what was tried."""
    try:
        yield
    except OSError as error:
        raise _said(error, what) from None


@dataclass(frozen=True)
class RemountReadonly(Operation):
    """Close a tmpfs for writing once what it holds has been made."""

    path: str

    def perform(self, sandbox: Sandbox) -> None:
        target = mounts.open_in_root(sandbox.root_fd, self.path)
        try:
            flags = os.statvfs(target).f_flag & (sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC)
            sys.mount(None, mounts.fd_path(target), None, sys.MS_REMOUNT | sys.MS_BIND | sys.MS_RDONLY | flags)
        finally:
            os.close(target)


@dataclass(frozen=True)
class MakeDevice(Operation):
    """A device node; bound from the host where nodes cannot be made (user namespaces)."""

    path: str
    type: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    bind: bool = False

    def perform(self, sandbox: Sandbox) -> None:
        if self.bind:
            MountInto(Mount(self.path, "bind", self.path, ["bind"])).perform(sandbox)
            return
        folder, _, name = self.path.rpartition("/")
        parent = mounts.make_in_root(sandbox.root_fd, folder or "/", directory=True)
        try:
            mask = os.umask(0)
            try:
                os.mknod(name, _DEVICE_BITS[self.type] | self.mode, os.makedev(self.major, self.minor), dir_fd=parent)
            except FileExistsError:
                self._accept_existing(name, parent)
            finally:
                os.umask(mask)
            if self.uid or self.gid:
                os.chown(name, self.uid, self.gid, dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)

    def _accept_existing(self, name: str, parent: int) -> None:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if found.st_rdev != os.makedev(self.major, self.minor):
            raise OSError(errno.EEXIST, "exists and is another file", self.path)


@dataclass(frozen=True)
class MakeSymlink(Operation):
    target: str
    path: str

    def perform(self, sandbox: Sandbox) -> None:
        folder, _, name = self.path.rpartition("/")
        parent = mounts.make_in_root(sandbox.root_fd, folder, directory=True)
        try:
            with suppress(FileExistsError):
                os.symlink(self.target, name, dir_fd=parent)
        finally:
            os.close(parent)


@dataclass(frozen=True)
class OpenTerminal(Operation):
    """Open a terminal of the container's own devpts and bind it on /dev/console."""

    height: int
    width: int

    def perform(self, sandbox: Sandbox) -> None:
        ptmx = mounts.open_in_root(sandbox.root_fd, "/dev/pts/ptmx")
        try:
            sandbox.pty_master, sandbox.pty_slave, number = pty.open_pair(mounts.fd_path(ptmx))
        finally:
            os.close(ptmx)
        if self.height and self.width:
            pty.set_window_size(sandbox.pty_master, self.height, self.width)
        console = mounts.make_in_root(sandbox.root_fd, "/dev/console", directory=False, mode=0o600)
        slave = mounts.open_in_root(sandbox.root_fd, f"/dev/pts/{number}")
        try:
            sys.mount(mounts.fd_path(slave), mounts.fd_path(console), None, sys.MS_BIND)
        finally:
            os.close(console)
            os.close(slave)


@dataclass(frozen=True)
class AwaitHooks(Operation):
    """The runtime's own hooks run in its namespaces, between the mounts and the pivot (config.md "POSIX-platform Hooks")."""

    def perform(self, sandbox: Sandbox) -> None:
        sandbox.let_parent_run_hooks()


@dataclass(frozen=True)
class PivotRoot(Operation):
    """Make the container's root the root, and let go of the host's."""

    def perform(self, sandbox: Sandbox) -> None:
        old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fchdir(sandbox.root_fd)
            sys.pivot_root(".", ".")
            # The old root is stacked on the new one; its unmounting must not travel to the host.
            os.fchdir(old)
            sys.mount(None, ".", None, sys.MS_SLAVE | sys.MS_REC)
            sys.umount2(".", sys.MNT_DETACH)
        finally:
            os.close(old)
        os.chdir("/")


@dataclass(frozen=True)
class ChrootOnly(Operation):
    """Where the container shares the host's mount namespace there is nothing to pivot."""

    path: str

    def perform(self, sandbox: Sandbox) -> None:
        sandbox.root_fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.chroot(self.path)
        os.chdir("/")


@dataclass(frozen=True)
class SetHostname(Operation):
    name: str

    def perform(self, sandbox: Sandbox) -> None:
        sys.sethostname(self.name)


@dataclass(frozen=True)
class SetDomainname(Operation):
    name: str

    def perform(self, sandbox: Sandbox) -> None:
        sys.setdomainname(self.name)


@dataclass(frozen=True)
class WriteSysctl(Operation):
    key: str
    value: str

    def perform(self, sandbox: Sandbox) -> None:
        path = "/proc/sys/" + self.key.replace(".", "/")
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, self.value.encode())
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), path) from None
        finally:
            os.close(fd)


@dataclass(frozen=True)
class MakeReadonly(Operation):
    """Bind the path to itself, read-only. Missing paths are none of our business (config-linux.md)."""

    path: str

    def perform(self, sandbox: Sandbox) -> None:
        try:
            sys.mount(self.path, self.path, None, sys.MS_BIND | sys.MS_REC)
        except FileNotFoundError:
            return
        locked = os.statvfs(self.path).f_flag & (sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC)
        sys.mount(None, self.path, None, sys.MS_BIND | sys.MS_REMOUNT | sys.MS_RDONLY | locked)


@dataclass(frozen=True)
class Mask(Operation):
    """Hide a file behind /dev/null, a folder behind an empty read-only tmpfs."""

    path: str

    def perform(self, sandbox: Sandbox) -> None:
        try:
            sys.mount("/dev/null", self.path, None, sys.MS_BIND)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.isdir(self.path):
                sys.mount("tmpfs", self.path, "tmpfs", sys.MS_RDONLY, "size=0k")


@dataclass(frozen=True)
class MakeFolder(Operation):
    """The working directory, while the root can still be written to."""

    path: str

    def perform(self, sandbox: Sandbox) -> None:
        with suppress(OSError):  # entering it will say why
            os.makedirs(self.path, exist_ok=True)


@dataclass(frozen=True)
class MakeRootReadonly(Operation):
    def perform(self, sandbox: Sandbox) -> None:
        locked = os.statvfs("/").f_flag & (sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC)
        sys.mount(None, "/", None, sys.MS_BIND | sys.MS_REMOUNT | sys.MS_RDONLY | locked)


@dataclass(frozen=True)
class SetRlimit(Operation):
    """A limit above the host's own is lowered to it, with a warning, where root may not raise it."""

    name: str
    soft: int
    hard: int

    def perform(self, sandbox: Sandbox) -> None:
        kind = getattr(resource, self.name, _RLIMIT_LOCKS)
        try:
            resource.setrlimit(kind, (_signed(self.soft), _signed(self.hard)))
        except (ValueError, PermissionError):
            _, host_hard = resource.getrlimit(kind)
            hard = _lower(_signed(self.hard), host_hard)
            soft = _lower(_signed(self.soft), hard)
            resource.setrlimit(kind, (soft, hard))
            sandbox.warnings.append(f"{self.name} {self.soft}:{self.hard} is above this host's limit; {soft}:{hard} is set")


def _signed(limit: int) -> int:
    """RLIM_INFINITY, however written, and limits beyond what fits are `no limit`."""
    return resource.RLIM_INFINITY if limit < 0 or limit >= 1 << 63 else limit


def _lower(first: int, second: int) -> int:
    unlimited = resource.RLIM_INFINITY
    if first == unlimited or second == unlimited:
        return second if first == unlimited else first
    return min(first, second)


@dataclass(frozen=True)
class SetOomScore(Operation):
    value: int

    def perform(self, sandbox: Sandbox) -> None:
        try:
            with open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
                file.write(str(self.value))
        except PermissionError:
            sandbox.warnings.append(f"this host does not allow oom_score_adj {self.value}; it is left as it was")


@dataclass(frozen=True)
class JoinKeyring(Operation):
    """A session keyring of its own: the host's keys are not the container's."""

    name: str

    def perform(self, sandbox: Sandbox) -> None:
        try:
            sys.join_session_keyring(self.name)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EDQUOT):
                raise
            sandbox.warnings.append(f"no session keyring of its own: {error.strerror}")
