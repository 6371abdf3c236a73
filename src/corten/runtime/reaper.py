"""The program behind `--init`: pid 1 that starts the real one, forwards signals to it, and reaps what it leaves behind.

Assembled by ourselves (linux/machine.py), so that no Python stays in the container and no binary is in the tree. Called as
`docker-init PROGRAM ARGV0 ARG...`: PROGRAM has been looked up already. Behaviour as tini's: the child has a process group of
its own, in the foreground of the terminal if there is one; exits with the child's code, or 128 + its signal.
"""

from __future__ import annotations

from corten.linux.machine import ASSEMBLERS

_SIGCHLD, _WNOHANG, _TIOCSPGRP = 17, 1, 0x5410
_SIG_BLOCK, _SIG_SETMASK = 0, 2
_MASK_SIZE = 8


def reaper_program(architecture: str) -> bytes:
    """The ELF file for `amd64` or `arm64`. Raises KeyError for others."""
    asm = ASSEMBLERS[architecture]()
    old_mask, scratch = asm.reserve(_MASK_SIZE), asm.reserve(16)
    asm.stack("S0")  # [S0] is argc, argv follows
    asm.text("A1", b"\xff" * _MASK_SIZE)
    asm.constant("A0", _SIG_BLOCK)
    asm.constant("A2", old_mask)
    asm.constant("A3", _MASK_SIZE)
    asm.system_call(asm.syscalls["rt_sigprocmask"])
    asm.call("clone", _SIGCHLD, 0, 0, 0, 0)
    asm.result("S1")
    asm.branch("ne", "S1", 0, "parent")

    asm.call("setpgid", 0, 0)
    asm.call("getpid")
    asm.result("S2")
    asm.constant("S3", scratch)
    asm.store_word("S3", "S2")
    asm.call("ioctl", 0, _TIOCSPGRP, scratch)  # fails where there is no terminal: nothing to do then
    asm.call("rt_sigprocmask", _SIG_SETMASK, old_mask, 0, _MASK_SIZE)
    asm.load("S2", "S0", 0, 8)  # envp = S0 + 8 * (argc + 2)
    asm.shift("S2", 3)
    asm.add("S2", "S0")
    asm.add_constant("S2", 16)
    asm.load("S3", "S0", 16, 8)  # argv[1]
    asm.move("S4", "S0")
    asm.add_constant("S4", 24)  # &argv[2]
    asm.call("execve", "S3", "S4", "S2")
    asm.call("exit_group", 127)

    asm.label("parent")
    asm.text("A0", b"\xff" * _MASK_SIZE)
    asm.constant("A1", 0)
    asm.constant("A2", 0)
    asm.constant("A3", _MASK_SIZE)
    asm.system_call(asm.syscalls["rt_sigtimedwait"])
    asm.result("S2")
    asm.branch("le", "S2", 0, "parent")
    asm.branch("eq", "S2", _SIGCHLD, "reap")
    asm.call("kill", "S1", "S2")
    asm.jump("parent")

    asm.label("reap")
    asm.call("wait4", -1, scratch, _WNOHANG, 0)
    asm.result("S2")
    asm.branch("le", "S2", 0, "parent")
    asm.branch("ne", "S2", "S1", "reap")
    asm.constant("S3", scratch)
    asm.load("S4", "S3", 0, 4)
    asm.move("S2", "S4")
    asm.and_constant("S2", 7)
    asm.branch("ne", "S2", 0, "killed")
    asm.shift("S4", -8)
    asm.and_constant("S4", 8)
    asm.call("exit_group", "S4")
    asm.label("killed")
    asm.add_constant("S2", 128)
    asm.call("exit_group", "S2")
    return asm.finish()
