"""Platforms (`os/arch[/variant]`) and which manifest of an index fits this machine. Pure.

Source: OCI image-spec, image-index.md, and containerd's platform normalisation.
"""

from __future__ import annotations

import platform as host_platform
import re

import msgspec

from corten.errors import Invalid
from corten.spec.foreign_json import decode

_MACHINES = {"x86_64": ("amd64", ""), "aarch64": ("arm64", "v8"), "armv7l": ("arm", "v7"), "i686": ("386", "")}
# containerd's, which says them to who gets them wrong
_SYSTEM = re.compile(r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$")
_PART = re.compile(r"^[A-Za-z0-9_.-]+$")


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """`variant` is empty where the architecture has none; arm64 means arm64/v8."""

    architecture: str = ""
    os: str = msgspec.field(default_factory=lambda: "linux")  # a factory's value is written out: image-index.md requires it
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def parse_platform(text: str) -> Platform:
    """`linux/arm64/v8`, `linux/amd64`, or the bare architecture. Raises Invalid with Docker's text."""
    if "*" in text:
        raise Invalid(f'"{text}": wildcards not yet supported: invalid argument')
    parts = text.lower().split("/")
    for number, part in enumerate(text.split("/")):
        what, form = ("OS component", _SYSTEM) if number == 0 else ("component", _PART)
        if not form.fullmatch(part):
            of = "OSAndVersion" if number == 0 else "platform"
            pattern = form.pattern.replace("\\", "\\\\")
            raise Invalid(f'"{part}" is an invalid {what} of "{text}": {of} specifier component must match "{pattern}": invalid argument')
    if len(parts) == 1:
        parts = ["linux", parts[0]]
    if len(parts) > 3:
        raise Invalid(f'"{text}": cannot parse platform specifier: invalid argument')
    aliases = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}
    return Platform(aliases.get(parts[1], parts[1]), parts[0], parts[2] if len(parts) == 3 else "")


def decode_platform(text: str) -> Platform:
    """A query parameter that is JSON of an OCI platform. Raises Invalid with Docker's texts."""
    try:
        found = decode(text, _Asked)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        first = text.lstrip()[:1]
        raise Invalid(f"failed to parse platform: invalid character {first!r} looking for beginning of value") from None
    if not found.os or not found.architecture:
        if found.variant and not found.os and not found.architecture:
            raise Invalid("optional platform fields provided, but OS and Architecture are missing")
        raise Invalid("both OS and Architecture must be provided")
    return Platform(found.architecture, found.os, found.variant)


class _Asked(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""
    variant: str = ""


def normalized(platform: Platform) -> Platform:
    """Without a variant that says nothing: arm64 is v8, amd64 v1; a bare arm is v7 (containerd's platforms.Normalize)."""
    plain = {("arm64", "v8"): "", ("amd64", "v1"): "", ("arm", ""): "v7"}
    return Platform(platform.architecture, platform.os, plain.get((platform.architecture, platform.variant), platform.variant))


def this_platform() -> Platform:
    architecture, variant = _MACHINES.get(host_platform.machine(), (host_platform.machine(), ""))
    return Platform(architecture, "linux", variant)


def matches(wanted: Platform, offered: Platform) -> bool:
    """Same OS and architecture, and a variant that is equal or left open (arm64 means v8)."""

    def full(platform: Platform) -> tuple[str, str, str]:
        variant = platform.variant or ("v8" if platform.architecture == "arm64" else "")
        return platform.os or "linux", platform.architecture, variant

    ours, theirs = full(wanted), full(offered)
    return ours[:2] == theirs[:2] and (ours[2] == theirs[2] or not ours[2] or not theirs[2])
