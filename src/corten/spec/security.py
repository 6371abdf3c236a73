"""Docker's default security profile as data: capabilities, seccomp rules, masked and read-only paths. Pure.

Everything is denied unless it is listed: dangerous system calls, and those that newer kernels add, fail with EPERM.
Source: the facts of Docker Engine 28.5's profile (moby profiles/seccomp, oci/caps, oci/defaults), in a form of our own.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import msgspec

from corten.spec.runtime import Seccomp, SeccompArg, SyscallRule

DEFAULT_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
)  # fmt: skip
MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_ALWAYS = (
    "_llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod "
    "chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime "
    "clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat "
    "dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait "
    "epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 "
    "fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl "
    "fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs "
    "fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake "
    "futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid "
    "geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid "
    "getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname "
    "getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init "
    "inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 "
    "io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset "
    "landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat "
    "llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create "
    "memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr "
    "mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink "
    "mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep "
    "newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free "
    "pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease "
    "process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read "
    "readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages "
    "removexattr removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction "
    "rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait "
    "rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity "
    "sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 "
    "sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl "
    "semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto "
    "set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 "
    "setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid "
    "setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat "
    "shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair "
    "splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo "
    "tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime "
    "timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times "
    "tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat "
    "utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev"
)
# What a capability opens besides.
_WITH_CAPABILITY = {
    "CAP_BPF": (
        "bpf"
    ),
    "CAP_DAC_READ_SEARCH": (
        "open_by_handle_at"
    ),
    "CAP_PERFMON": (
        "perf_event_open"
    ),
    "CAP_SYSLOG": (
        "syslog"
    ),
    "CAP_SYS_ADMIN": (
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr "
        "lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl "
        "quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare"
    ),
    "CAP_SYS_BOOT": (
        "reboot"
    ),
    "CAP_SYS_CHROOT": (
        "chroot"
    ),
    "CAP_SYS_MODULE": (
        "delete_module finit_module init_module"
    ),
    "CAP_SYS_NICE": (
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"
    ),
    "CAP_SYS_PACCT": (
        "acct"
    ),
    "CAP_SYS_PTRACE": (
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"
    ),
    "CAP_SYS_RAWIO": (
        "ioperm iopl"
    ),
    "CAP_SYS_TIME": (
        "clock_settime clock_settime64 settimeofday stime"
    ),
    "CAP_SYS_TTY_CONFIG": (
        "vhangup"
    ),
}
_WITH_MACHINE = {
    "x86_64": "arch_prctl modify_ldt",
    "aarch64": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
}
_ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}
# personality(2): Linux, UNAME26, PER_LINUX32, both, and asking.
_PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
_AF_ALG, _AF_VSOCK = 38, 40
_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag that clone(2) takes
_ALLOW, _ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
_ENOSYS = 38


def _argument_rules(capabilities: Collection[str]) -> list[SyscallRule]:
    rules = [
        SyscallRule(["socket"], _ALLOW, args=[SeccompArg(0, _AF_ALG, "SCMP_CMP_LT")]),
        SyscallRule(["socket"], _ALLOW, args=[SeccompArg(0, _AF_ALG + 1, "SCMP_CMP_EQ")]),
        SyscallRule(["socket"], _ALLOW, args=[SeccompArg(0, _AF_VSOCK, "SCMP_CMP_GT")]),
    ]
    rules += [
        SyscallRule(["personality"], _ALLOW, args=[SeccompArg(0, value, "SCMP_CMP_EQ")]) for value in _PERSONALITIES
    ]
    if "CAP_SYS_ADMIN" not in capabilities:
        no_namespace = SeccompArg(0, _NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ", 0)
        rules.append(SyscallRule(["clone"], _ALLOW, args=[no_namespace]))
        # clone3 hides its flags behind a pointer: "no such call" makes libc use clone instead.
        rules.append(SyscallRule(["clone3"], _ERRNO, errno_ret=_ENOSYS))
    return rules


def default_seccomp(capabilities: Collection[str], machine: str) -> Seccomp:
    """The profile for a process with these capabilities on this machine (`uname -m`)."""
    rules = [SyscallRule(_ALWAYS.split(), _ALLOW)]
    rules += [
        SyscallRule(names.split(), _ALLOW) for name, names in _WITH_CAPABILITY.items() if name in capabilities
    ]
    if machine in _WITH_MACHINE:
        rules.append(SyscallRule(_WITH_MACHINE[machine].split(), _ALLOW))
    rules += _argument_rules(capabilities)
    return Seccomp(_ERRNO, 1, _ARCHITECTURES.get(machine), None, rules)


@lru_cache(maxsize=32)
def default_seccomp_json(capabilities: frozenset[str], machine: str) -> bytes:
    """The same as JSON, made once for a set of capabilities."""
    return msgspec.json.encode(default_seccomp(capabilities, machine))
