"""Locking a worker into one folder before it touches anything that came from outside.

chroot into the folder, keep only the capabilities that making files needs, and refuse every system call that could
lead out again. What a hostile tar could at worst do is then done to its own layer.
"""

from __future__ import annotations

import os

from corten.linux import capabilities, syscalls
from corten.linux.seccomp import compile_filter
from corten.spec.runtime import Seccomp, SyscallRule

_KEEP = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_MKNOD", "CAP_SETFCAP",
    "CAP_SYS_ADMIN",  # trusted.overlay.opaque cannot be set without; what else it allows is refused below
)  # fmt: skip
_REFUSED = (
    "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "open_tree", "move_mount", "fsopen", "fsmount",
    "mount_setattr", "open_by_handle_at", "ptrace", "process_vm_writev", "bpf", "execve", "execveat", "kexec_load",
    "init_module", "finit_module", "delete_module", "swapon", "reboot", "socket", "connect", "keyctl", "add_key",
    "perf_event_open", "userfaultfd", "io_uring_setup", "clone", "clone3", "fork", "vfork", "kill", "tkill", "tgkill",
)  # fmt: skip
_filter = compile_filter(
    Seccomp("SCMP_ACT_ALLOW", syscalls=[SyscallRule(list(_REFUSED), "SCMP_ACT_ERRNO", errno_ret=1)])
)


def confine_to(folder_fd: int) -> None:
    """From here on `/` is the folder, and there is no way back. Closes the descriptor."""
    available = capabilities.bounding_set()
    os.fchdir(folder_fd)
    os.close(folder_fd)
    os.chroot(".")
    os.chdir("/")
    keep = capabilities.mask_of(list(_KEEP)) & available
    syscalls.capset(keep, keep, 0)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.seccomp_set_filter(_filter)
