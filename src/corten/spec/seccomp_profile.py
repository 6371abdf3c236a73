"""Seccomp profiles in Docker's own JSON format, parsed strictly and turned into the runtime spec's. Pure.

Errors name the line where the JSON is broken, or the key whose value cannot be.
Source: Docker's documentation "Seccomp security profiles for Docker"; moby profiles/seccomp (defaultAction, archMap, includes, excludes).
"""

from __future__ import annotations

import re
from collections.abc import Collection

import msgspec

from corten.errors import Invalid
from corten.spec.foreign_json import decode
from corten.spec.runtime import Seccomp, SeccompArg, SyscallRule

ACTIONS = frozenset(
    f"SCMP_ACT_{name}" for name in ("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG", "NOTIFY")
)
_OPERATORS = frozenset(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))
_GO_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_POSITION = re.compile(r"\(byte (\d+)\)")


class Architecture(msgspec.Struct, frozen=True, rename="camel"):
    architecture: str
    sub_architectures: list[str] | None = None


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: str = ""


class Rule(msgspec.Struct, frozen=True, rename="camel"):
    action: str
    name: str = ""
    names: list[str] | None = None
    errno_ret: int | None = None
    args: list[SeccompArg] | None = None
    includes: Condition | None = None
    excludes: Condition | None = None
    comment: str = ""


class Profile(msgspec.Struct, frozen=True, rename="camel"):
    default_action: str
    default_errno_ret: int | None = None
    architectures: list[str] | None = None
    arch_map: list[Architecture] | None = None
    flags: list[str] | None = None
    syscalls: list[Rule] | None = None


def parse_profile(text: str) -> Profile:
    """Raises Invalid naming line or key."""
    try:
        profile = decode(text, Profile)
    except msgspec.ValidationError as error:
        raise Invalid(f"Decoding seccomp profile failed: {error}") from None
    except msgspec.DecodeError as error:
        raise Invalid(f"Decoding seccomp profile failed: {error}{_line(text, str(error))}") from None
    _check_action(profile.default_action, "defaultAction")
    if profile.architectures and profile.arch_map:
        raise Invalid("Decoding seccomp profile failed: use either 'architectures' or 'archMap'")
    for number, rule in enumerate(profile.syscalls or []):
        _check_rule(rule, f"syscalls[{number}]")
    return profile


def _line(text: str, error: str) -> str:
    match = _POSITION.search(error)
    at = int(match[1]) if match else len(text)
    return f", line {text.encode()[:at].count(10) + 1}"


def _check_action(action: str, key: str) -> None:
    if action not in ACTIONS:
        raise Invalid(f"Decoding seccomp profile failed: {key}: unknown action {action!r}")


def _check_rule(rule: Rule, key: str) -> None:
    _check_action(rule.action, f"{key}.action")
    if rule.name and rule.names:
        raise Invalid(f"Decoding seccomp profile failed: {key}: use either 'name' or 'names'")
    if not rule.name and not rule.names:
        raise Invalid(f"Decoding seccomp profile failed: {key}.names: no system call is named")
    for number, argument in enumerate(rule.args or []):
        if argument.op not in _OPERATORS:
            raise Invalid(f"Decoding seccomp profile failed: {key}.args[{number}].op: unknown operator {argument.op!r}")
        if not 0 <= argument.index <= 5:
            raise Invalid(f"Decoding seccomp profile failed: {key}.args[{number}].index: a system call has arguments 0 to 5")


def translate(profile: Profile, capabilities: Collection[str], machine: str, kernel: str) -> Seccomp:
    """For a process with these capabilities, on this machine (`uname -m`) and kernel release."""
    here = _Here(frozenset(capabilities), _GO_MACHINES.get(machine, machine), _version(kernel))
    rules = [
        SyscallRule(rule.names or [rule.name], rule.action, rule.errno_ret, rule.args or None)
        for rule in profile.syscalls or []
        if here.meets_all(rule.includes or Condition()) and not here.meets_any(rule.excludes or Condition())
    ]
    architectures = profile.architectures
    for row in profile.arch_map or []:
        if row.architecture.lower() == f"scmp_arch_{machine}":
            architectures = [row.architecture, *(row.sub_architectures or [])]
    return Seccomp(profile.default_action, profile.default_errno_ret, architectures, profile.flags, rules)


class _Here:
    def __init__(self, capabilities: frozenset[str], machine: str, kernel: tuple[int, ...]) -> None:
        self._capabilities, self._machine, self._kernel = capabilities, machine, kernel

    def meets_all(self, wanted: Condition) -> bool:
        return (
            (not wanted.arches or self._machine in wanted.arches)
            and all(name in self._capabilities for name in wanted.caps or [])
            and (not wanted.min_kernel or self._kernel >= _version(wanted.min_kernel))
        )

    def meets_any(self, wanted: Condition) -> bool:
        return (
            self._machine in (wanted.arches or [])
            or any(name in self._capabilities for name in wanted.caps or [])
            or (bool(wanted.min_kernel) and self._kernel >= _version(wanted.min_kernel))
        )


def _version(text: str) -> tuple[int, ...]:
    """`6.1.0-13-amd64` -> (6, 1)."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])
