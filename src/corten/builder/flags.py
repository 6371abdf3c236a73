"""The flags of the instructions: which there are, how often, with what kind of value. Pure.

Source: SURFACE section 3.1; BuildKit's frontend/dockerfile/instructions/bflag.go for the texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from corten.builder.near_miss import did_you_mean
from corten.errors import Invalid

Kind = Literal["bool", "text", "texts"]

FLAGS: dict[str, dict[str, Kind]] = {
    "FROM": {"platform": "text"},
    "RUN": {"mount": "texts", "network": "text", "security": "text", "device": "texts"},
    "ADD": {"keep-git-dir": "bool", "checksum": "text", "chmod": "text", "chown": "text", "link": "bool", "unpack": "bool", "exclude": "texts"},
    "COPY": {"from": "text", "chown": "text", "chmod": "text", "link": "bool", "exclude": "texts", "parents": "bool"},
    "HEALTHCHECK": {"interval": "text", "timeout": "text", "start-period": "text", "start-interval": "text", "retries": "text"},
}  # fmt: skip


@dataclass(frozen=True)
class Flags:
    """What an instruction's flags say, by name without dashes."""

    values: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def text(self, name: str, default: str = "") -> str:
        return self.values.get(name, (default,))[0]

    def texts(self, name: str) -> tuple[str, ...]:
        return self.values.get(name, ())

    def given(self, name: str) -> bool | None:
        """Of a flag of kind bool; None where it is not there."""
        return self.values[name][0] == "true" if name in self.values else None


def read_flags(instruction: str, words: Iterable[str]) -> Flags:
    """Raises Invalid."""
    known = FLAGS.get(instruction, {})
    found: dict[str, tuple[str, ...]] = {}
    for word in words:
        flag, equals, value = word.partition("=")
        name = flag[2:]
        kind = known.get(name)
        if not kind:
            raise Invalid(f"unknown flag: {flag}{did_you_mean(name, known)}")
        if name in found and kind != "texts":
            raise Invalid(f"duplicate flag specified: {flag}")
        if (equals and not value) if kind == "bool" else not equals:
            raise Invalid(f"missing a value on flag: {flag}")
        found[name] = (*found.get(name, ()), _bool(flag, value) if kind == "bool" else value)
    return Flags(found)


def _bool(flag: str, value: str) -> str:
    if value.lower() not in ("true", "false", ""):
        raise Invalid(f"expecting boolean value for flag {flag}, not: {value}")
    return value.lower() or "true"
