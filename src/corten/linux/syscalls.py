"""System calls that Python's os module lacks, one function each, named as the kernel names them.

Owns: every ctypes prototype, kernel structure and constant. Must not hold policy: a wrapper does one call and
turns a negative return into OSError with the operand as file name. libseccomp, the other ctypes user, is seccomp.py.
Sources: man-pages section 2; include/uapi/linux/{mount,sched,prctl,openat2,capability,bpf}.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_uint64, c_ulong, c_void_p

_libc = ctypes.CDLL(None, use_errno=True)
# clone3 must not release the interpreter's lock: the child could never take it again.
_libc_holding_lock = ctypes.PyDLL(None, use_errno=True)

_libc.mount.argtypes = (c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_libc.umount2.argtypes = (c_char_p, c_int)
_libc.unshare.argtypes = (c_int,)
_libc.setns.argtypes = (c_int, c_int)
_libc.prctl.argtypes = (c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_libc.syscall.restype = c_long
_libc_holding_lock.syscall.restype = c_long
_libc.sethostname.argtypes = (c_char_p, c_size_t)
_libc.setdomainname.argtypes = (c_char_p, c_size_t)
_libc.inotify_init1.argtypes = (c_int,)
_libc.inotify_add_watch.argtypes = (c_int, c_char_p, ctypes.c_uint32)
_libc.eventfd.argtypes = (c_uint, c_int)
_libc.fallocate.argtypes = (c_int, c_int, ctypes.c_longlong, ctypes.c_longlong)

_GENERIC = platform.machine() != "x86_64"
SYS_PIVOT_ROOT = 41 if _GENERIC else 155
SYS_STATX = 291 if _GENERIC else 332
SYS_CAPGET = 90 if _GENERIC else 125
SYS_CAPSET = 91 if _GENERIC else 126
SYS_KEYCTL = 219 if _GENERIC else 250
SYS_SECCOMP = 277 if _GENERIC else 317
SYS_BPF = 280 if _GENERIC else 321
FALLOC_FL_KEEP_SIZE = 1
SO_ATTACH_FILTER = 26
AT_NO_AUTOMOUNT = 0x800
STATX_ATTR_MOUNT_ROOT = 0x2000
_STATX_SIZE, _STATX_ATTRIBUTES = 256, 8  # struct statx: its size, where stx_attributes is
# Calls added since 2019 have one number everywhere.
SYS_OPEN_TREE = 428
SYS_QUOTACTL_FD = 443
SYS_MOVE_MOUNT = 429
SYS_CLONE3 = 435
SYS_CLOSE_RANGE = 436
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442

MOUNT_PAGE = 4096  # bytes of mount(2)'s options with their end; the smallest page that there is
CLONE_FS = 0x00000200
CLONE_NEWTIME = 0x00000080
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25
MNT_DETACH = 2

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
MOVE_MOUNT_F_EMPTY_PATH = 4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_IDMAP = 0x00100000

RESOLVE_NO_MAGICLINKS = 2
RESOLVE_NO_SYMLINKS = 4
RESOLVE_BENEATH = 8
RESOLVE_IN_ROOT = 16

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

CLOSE_RANGE_CLOEXEC = 4
SECCOMP_SET_MODE_FILTER = 1
KEYCTL_JOIN_SESSION_KEYRING = 1
IN_MODIFY = 0x2
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
EFD_CLOEXEC = os.O_CLOEXEC
EFD_NONBLOCK = os.O_NONBLOCK


class clone_args(ctypes.Structure):
    _fields_ = [
        (name, c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls",
            "set_tid", "set_tid_size", "cgroup",
        )
    ]  # fmt: skip


class open_how(ctypes.Structure):
    _fields_ = [("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64)]


class mount_attr(ctypes.Structure):
    _fields_ = [("attr_set", c_uint64), ("attr_clr", c_uint64), ("propagation", c_uint64), ("userns_fd", c_uint64)]


class cap_header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", c_int)]


class cap_data(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


class sock_fprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", c_void_p)]


class bpf_prog_load_attr(ctypes.Structure):
    _fields_ = [
        ("prog_type", ctypes.c_uint32), ("insn_cnt", ctypes.c_uint32), ("insns", c_uint64), ("license", c_uint64),
        ("log_level", ctypes.c_uint32), ("log_size", ctypes.c_uint32), ("log_buf", c_uint64),
        ("kern_version", ctypes.c_uint32), ("prog_flags", ctypes.c_uint32),
    ]  # fmt: skip


class bpf_attach_attr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("target_fd", "attach_bpf_fd", "attach_type", "attach_flags")]


def _check(result: int, operand: str | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), operand)
    return int(result)


def _path(path: str | bytes | None) -> bytes | None:
    return None if path is None else os.fsencode(path)


def mount(source: str | None, target: str, fstype: str | None, flags: int = 0, data: str | None = None) -> None:
    """Raises OSError; E2BIG for options that are longer than a page: the kernel cuts them off without a word."""
    if data and len(os.fsencode(data)) >= MOUNT_PAGE:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG), target)
    _check(_libc.mount(_path(source), _path(target), _path(fstype), flags, _path(data)), target)


def umount2(target: str, flags: int = 0) -> None:
    _check(_libc.umount2(_path(target), flags), target)


def pivot_root(new_root: str, put_old: str) -> None:
    _check(_libc.syscall(SYS_PIVOT_ROOT, _path(new_root), _path(put_old)), new_root)


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), f"{flags:#x}")


def setns(fd: int, flags: int = 0) -> None:
    _check(_libc.setns(fd, flags), f"{flags:#x}")


def clone3(flags: int, *, cgroup: int = -1) -> tuple[int, int]:
    """Fork into new namespaces. Returns (pid, pidfd) in the parent and (0, -1) in the child.

    Only for single-threaded processes: nothing that os.fork() would repair is repaired. SIGCHLD on exit.
    """
    pidfd = c_int(-1)
    arguments = clone_args(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=17)
    if cgroup >= 0:
        arguments.flags |= CLONE_INTO_CGROUP
        arguments.cgroup = cgroup
    pid = _libc_holding_lock.syscall(
        c_long(SYS_CLONE3), ctypes.byref(arguments), c_size_t(ctypes.sizeof(arguments))
    )
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"clone3({flags:#x})")
    return (pid, pidfd.value) if pid else (0, -1)


def openat2(dir_fd: int, path: str, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    how = open_how(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    return _check(
        _libc.syscall(
            c_long(SYS_OPENAT2), c_int(dir_fd), _path(path), ctypes.byref(how), c_size_t(ctypes.sizeof(how))
        ),
        path,
    )


def open_tree(dir_fd: int, path: str, flags: int) -> int:
    return _check(_libc.syscall(c_long(SYS_OPEN_TREE), c_int(dir_fd), _path(path), c_uint(flags)), path)


def move_mount(from_fd: int, from_path: str, to_fd: int, to_path: str, flags: int) -> None:
    _check(
        _libc.syscall(
            c_long(SYS_MOVE_MOUNT), c_int(from_fd), _path(from_path), c_int(to_fd), _path(to_path), c_uint(flags)
        ),
        to_path,
    )


def mount_setattr(dir_fd: int, path: str, flags: int, *, attr_set: int = 0, attr_clr: int = 0,
                  propagation: int = 0, userns_fd: int = 0) -> None:  # fmt: skip
    attr = mount_attr(attr_set, attr_clr, propagation, userns_fd)
    _check(
        _libc.syscall(
            c_long(SYS_MOUNT_SETATTR), c_int(dir_fd), _path(path), c_uint(flags),
            ctypes.byref(attr), c_size_t(ctypes.sizeof(attr)),
        ),
        path,
    )  # fmt: skip


def close_range(first: int, last: int, flags: int) -> None:
    _check(_libc.syscall(c_long(SYS_CLOSE_RANGE), c_uint(first), c_uint(last), c_uint(flags)))


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    return _check(_libc.prctl(option, arg2, arg3, arg4, arg5), f"prctl {option}")


def set_process_name(name: str) -> None:
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the calling thread's capability sets; each is a bit mask."""
    header = cap_header(0x20080522, 0)
    data = (cap_data * 2)()
    for half in range(2):
        shift = 32 * half
        data[half].effective = effective >> shift & 0xFFFFFFFF
        data[half].permitted = permitted >> shift & 0xFFFFFFFF
        data[half].inheritable = inheritable >> shift & 0xFFFFFFFF
    _check(_libc.syscall(c_long(SYS_CAPSET), ctypes.byref(header), ctypes.byref(data)), "capabilities")


def seccomp_set_filter(program: bytes, flags: int = 0) -> None:
    """Install a classic BPF program (array of struct sock_filter, 8 bytes each)."""
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = sock_fprog(len(program) // 8, ctypes.addressof(buffer))
    _check(
        _libc.syscall(c_long(SYS_SECCOMP), c_uint(SECCOMP_SET_MODE_FILTER), c_uint(flags), ctypes.byref(fprog)),
        "seccomp filter",
    )


def attach_socket_filter(fd: int, program: bytes) -> None:
    """Have a socket receive only what a classic BPF program (as above) lets through (SO_ATTACH_FILTER, socket(7))."""
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = sock_fprog(len(program) // 8, ctypes.addressof(buffer))
    length = c_uint(ctypes.sizeof(fprog))
    _check(_libc.setsockopt(c_int(fd), c_int(socket.SOL_SOCKET), c_int(SO_ATTACH_FILTER), ctypes.byref(fprog), length), "socket filter")


def bpf_prog_load(program: bytes, prog_type: int) -> int:
    """Load an eBPF program (8 bytes an instruction); returns its descriptor."""
    instructions = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attr = bpf_prog_load_attr(
        prog_type=prog_type, insn_cnt=len(program) // 8,
        insns=ctypes.addressof(instructions), license=ctypes.addressof(licence),
    )  # fmt: skip
    return _check(_libc.syscall(c_long(SYS_BPF), c_int(5), ctypes.byref(attr), c_uint(ctypes.sizeof(attr))), "BPF_PROG_LOAD")


def bpf_prog_attach(target_fd: int, prog_fd: int, attach_type: int, flags: int) -> None:
    attr = bpf_attach_attr(target_fd, prog_fd, attach_type, flags)
    _check(_libc.syscall(c_long(SYS_BPF), c_int(8), ctypes.byref(attr), c_uint(ctypes.sizeof(attr))), "BPF_PROG_ATTACH")


def join_session_keyring(name: str) -> None:
    _check(_libc.syscall(c_long(SYS_KEYCTL), c_int(KEYCTL_JOIN_SESSION_KEYRING), name.encode()), name)


def sethostname(name: str) -> None:
    _check(_libc.sethostname(name.encode(), len(name.encode())), name)


def setdomainname(name: str) -> None:
    _check(_libc.setdomainname(name.encode(), len(name.encode())), name)


def eventfd(initial: int = 0, flags: int = 0) -> int:
    return _check(_libc.eventfd(initial, flags))


def inotify_init1(flags: int) -> int:
    return _check(_libc.inotify_init1(flags))


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    return _check(_libc.inotify_add_watch(fd, _path(path), mask), path)


def syncfs(fd: int) -> None:
    _check(_libc.syncfs(c_int(fd)))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    _check(_libc.fallocate(fd, mode, offset, length))


def getsockopt(fd: int, level: int, option: int, value: bytes) -> bytes:
    """For options that are asked with a value (socket.getsockopt sends none); the answer has its length."""
    buffer, length = ctypes.create_string_buffer(value, len(value)), c_uint(len(value))
    _check(_libc.getsockopt(c_int(fd), c_int(level), c_int(option), buffer, ctypes.byref(length)), f"option {option}")
    return buffer.raw


def statx_attributes(path: str) -> int:
    """stx_attributes of statx(2)."""
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    _check(_libc.syscall(c_long(SYS_STATX), c_int(-100), _path(path), c_int(AT_NO_AUTOMOUNT), c_uint(0), buffer), path)
    return int.from_bytes(buffer.raw[_STATX_ATTRIBUTES : _STATX_ATTRIBUTES + 8], "little")


def quotactl_fd(fd: int, command: int, number: int, data: bytes) -> bytes:
    """`data` is what the command takes; returned is what it made of it."""
    buffer = ctypes.create_string_buffer(data, len(data))
    _check(_libc.syscall(c_long(SYS_QUOTACTL_FD), c_uint(fd), c_uint(command), c_uint(number), buffer), f"project {number}")
    return buffer.raw
