"""Device control on cgroup version 2: device rules -> an eBPF program of type CGROUP_DEVICE, and attaching it.

Sources: Documentation/admin-guide/cgroup-v2.rst "Device controller"; bpf(2); struct bpf_cgroup_dev_ctx.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from corten.linux import syscalls
from corten.spec.runtime import DeviceRule

_PROG_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_ALL_ACCESS = 7
_LOAD_WORD, _AND32, _RSH32, _MOV32, _AND32_REG = 0x61, 0x54, 0x74, 0xBC, 0x5C
_JNE, _JNE_REG, _MOV, _EXIT = 0x56, 0x5E, 0xB7, 0x95
_CTX, _WORK, _TYPE, _WANT, _MAJOR, _MINOR = 1, 1, 2, 3, 4, 5  # registers; r1 is free once the context is read


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", code, dst | src << 4, offset, immediate)


def _rule(rule: DeviceRule) -> tuple[bytes, bool]:
    """Instructions of one rule, and whether it always decides. Each test jumps past the verdict."""
    tests: list[tuple[bytes, ...]] = []
    access = sum(_ACCESS[letter] for letter in set(rule.access or "rwm"))
    wild = rule.type in ("a", "")
    if not wild:
        tests.append(((_instruction(_JNE, _TYPE, immediate=_TYPES["b" if rule.type == "b" else "c"])),))
        if access != _ALL_ACCESS:
            copy = _instruction(_MOV32, _WORK, _WANT) + _instruction(_AND32, _WORK, immediate=access)
            tests.append((copy, _instruction(_JNE_REG, _WORK, _WANT)))
        if rule.major is not None and rule.major >= 0:
            tests.append((_instruction(_JNE, _MAJOR, immediate=rule.major),))
        if rule.minor is not None and rule.minor >= 0:
            tests.append((_instruction(_JNE, _MINOR, immediate=rule.minor),))
    body = b"".join(b"".join(test) for test in tests)
    verdict = _instruction(_MOV, 0, immediate=int(rule.allow)) + _instruction(_EXIT)
    end = len(body) // 8 + 2
    patched = bytearray(body)
    for index in range(len(body) // 8):
        code = patched[index * 8]
        if code in (_JNE, _JNE_REG):
            struct.pack_into("<h", patched, index * 8 + 2, end - index - 1)
    return bytes(patched) + verdict, not tests


def compile_rules(rules: Sequence[DeviceRule]) -> bytes:
    """Pure: the program. The last matching rule decides; without a match the access is denied."""
    program = [
        _instruction(_LOAD_WORD, _TYPE, _CTX, 0),
        _instruction(_LOAD_WORD, _MAJOR, _CTX, 4),
        _instruction(_LOAD_WORD, _MINOR, _CTX, 8),
        _instruction(_MOV32, _WANT, _TYPE),
        _instruction(_AND32, _TYPE, immediate=0xFFFF),
        _instruction(_RSH32, _WANT, immediate=16),
    ]
    for rule in reversed(rules):
        code, final = _rule(rule)
        program.append(code)
        if final:  # the verifier refuses what can never be reached
            return b"".join(program)
    program.append(_instruction(_MOV, 0, immediate=0) + _instruction(_EXIT))
    return b"".join(program)


def attach(cgroup_fd: int, rules: Sequence[DeviceRule]) -> None:
    """Attach the rules to a version 2 group; the kernel keeps the program as long as the group lives."""
    program = syscalls.bpf_prog_load(compile_rules(rules), _PROG_TYPE_CGROUP_DEVICE)
    try:
        syscalls.bpf_prog_attach(cgroup_fd, program, _ATTACH_CGROUP_DEVICE, 0)
    finally:
        os.close(program)
