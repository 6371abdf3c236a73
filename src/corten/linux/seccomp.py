"""Compiling an OCI seccomp section to BPF with libseccomp. The second (and last) place with ctypes.

Owns the translation only; which calls are refused is data (spec.seccomp_default, or the user's profile).
Source: seccomp_init(3), seccomp_rule_add(3); OCI runtime-spec, config-linux.md "Seccomp".
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import cache

from corten.linux.memory import give_back
from corten.spec.runtime import Seccomp, SeccompArg

_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_OPERATORS = {
    name: number
    for number, name in enumerate(
        ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"), 1
    )
}
FILTER_FLAGS = {"SECCOMP_FILTER_FLAG_TSYNC": 1, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4}
_FLTATR_CTL_NNP = 3
_FLTATR_CTL_OPTIMIZE = 8
_EEXIST = 17


class scmp_arg_cmp(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("datum_a", ctypes.c_uint64), ("datum_b", ctypes.c_uint64)]


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError as error:
        raise OSError(error.errno or 2, "libseccomp.so.2 cannot be loaded: install libseccomp2", "seccomp") from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    library.seccomp_arch_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(scmp_arg_cmp),
    )  # fmt: skip
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    return library


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, os.strerror(-result), f"seccomp {what}")


def _action(name: str, errno_ret: int | None) -> int:
    if name not in _ACTIONS:
        raise OSError(22, f"unknown seccomp action {name}", "seccomp")
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return _ACTIONS[name] | (1 if errno_ret is None else errno_ret)
    return _ACTIONS[name]


def _comparison(arg: SeccompArg) -> scmp_arg_cmp:
    if arg.op not in _OPERATORS:
        raise OSError(22, f"unknown seccomp operator {arg.op}", "seccomp")
    return scmp_arg_cmp(arg.index, _OPERATORS[arg.op], arg.value, arg.value_two or 0)


def _argument_groups(args: Sequence[SeccompArg]) -> list[list[scmp_arg_cmp]]:
    """One rule with all comparisons, unless one argument is compared twice: then a rule each (as runc does)."""
    if len({arg.index for arg in args}) == len(args):
        return [[_comparison(arg) for arg in args]]
    return [[_comparison(arg)] for arg in args]


def _architecture_token(library: ctypes.CDLL, name: str) -> int:
    token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
    if not token:
        raise OSError(22, f"unknown seccomp architecture {name}", "seccomp")
    return int(token)


def compile_filter(section: Seccomp) -> bytes:
    """The classic BPF program for an OCI seccomp section: 8 bytes an instruction. Raises OSError."""
    library = _library()
    default = _action(section.default_action, section.default_errno_ret)
    context = library.seccomp_init(default)
    if not context:
        raise OSError(12, "seccomp_init failed", "seccomp")
    try:
        library.seccomp_attr_set(context, _FLTATR_CTL_NNP, 0)
        # A binary tree instead of a list of comparisons: every syscall of the container pays for the length.
        library.seccomp_attr_set(context, _FLTATR_CTL_OPTIMIZE, 2)
        for name in section.architectures or []:
            result = library.seccomp_arch_add(context, _architecture_token(library, name))
            if result != -_EEXIST:
                _check(result, name)
        for rule in section.syscalls or []:
            action = _action(rule.action, rule.errno_ret)
            if action == default:
                continue
            groups = _argument_groups(rule.args or [])
            for syscall_name in rule.names:
                number = library.seccomp_syscall_resolve_name(syscall_name.encode())
                if number == -1:
                    continue  # unknown to this libseccomp: the default action covers it
                for group in groups:
                    array = (scmp_arg_cmp * len(group))(*group)
                    _check(library.seccomp_rule_add_array(context, action, number, len(group), array), syscall_name)
        with open(os.memfd_create("seccomp"), "rb") as output:
            _check(library.seccomp_export_bpf(context, output.fileno()), "export")
            output.seek(0)
            return output.read()
    finally:
        library.seccomp_release(context)
        give_back()  # libseccomp has needed a megabyte, and a monitor lives long
