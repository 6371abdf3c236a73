"""daemon.json's `builder`: how much of the build cache stays by itself, and what a Dockerfile may ask for. Pure.

Keys are Docker's (dockerd's documentation, "Daemon configuration file", `builder`); sizes as there: a number of bytes, or `20GB` in powers of 1024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corten.errors import Invalid
from corten.spec.go_values import parse_size
from corten.spec.timestamps import parse_duration

_SPACE = ("reservedSpace", "keepStorage", "maxUsedSpace", "minFreeSpace")  # the second is the first's old name
_DEFAULT_SPACE = ("defaultReservedSpace", "defaultKeepStorage", "defaultMaxUsedSpace", "defaultMinFreeSpace")
_UNUSED = ("unused-for", "until")
_INSECURE, _HOST = "security-insecure", "network-host"


@dataclass(frozen=True)
class Space:
    """Bytes, 0: nothing is said. `most` may be used, `free` of the disk shall be free, but `reserved` are the cache's whatever those say.

    Source: BuildKit's cache/manager.go (calculateKeepBytes).
    """

    reserved: int = 0
    most: int = 0
    free: int = 0

    def keep(self, total: int, free: int) -> int | None:
        """Bytes that may stay, of a cache of `total` on a disk that has `free`; None: size is no matter."""
        if self == Space():
            return None
        keep = self.most or (total if self.free else 0)
        if self.free > free:
            keep = min(keep, total - (self.free - free))
        return max(keep, self.reserved)


@dataclass(frozen=True)
class Policy:
    """What is more than `space` lets stay goes, but nothing that was used within `unused_for` nanoseconds. `types` of rows; none: all."""

    space: Space = Space()
    unused_for: int | None = None
    types: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuilderSettings:
    """`policies` None: the engine's own, a tenth of the disk. `insecure`, `host_network`: whether RUN --security=insecure, --network=host are allowed."""

    policies: tuple[Policy, ...] | None = None
    insecure: bool = False
    host_network: bool = True


def read_settings(value: Any) -> BuilderSettings:
    """Raises Invalid naming the key."""
    found = _mapping(value, "builder", ("gc", "entitlements"))
    entitlements = _mapping(found.get("entitlements", {}), "builder.entitlements", (_INSECURE, _HOST))
    collecting = _mapping(found.get("gc", {}), "builder.gc", ("enabled", "policy", *_DEFAULT_SPACE))
    return BuilderSettings(_policies(collecting), entitlements.get(_INSECURE) is True, entitlements.get(_HOST) is not False)


def _policies(collecting: Mapping[str, Any]) -> tuple[Policy, ...] | None:
    if collecting.get("enabled") is False:
        return ()
    if "policy" in collecting:
        rows = collecting["policy"]
        if not isinstance(rows, list):
            raise Invalid("builder.gc.policy: want a list")
        return tuple(_policy(row) for row in rows)
    space = _space(collecting, _DEFAULT_SPACE)
    return None if space == Space() else (Policy(space),)


def _policy(row: Any) -> Policy:
    found = _mapping(row, "builder.gc.policy", ("all", "filter", *_SPACE))
    types: list[str] = []
    unused_for = None
    for text in found.get("filter") or []:
        name, _, wanted = str(text).replace("==", "=").partition("=")
        if name == "type":
            types.append(wanted)
        elif name in _UNUSED:
            unused_for = parse_duration(wanted)
        else:
            raise Invalid(f"builder.gc.policy: the filter {name!r} is not supported; want type or unused-for")
    return Policy(_space(found, _SPACE), unused_for, tuple(types))


def _space(found: Mapping[str, Any], keys: tuple[str, ...]) -> Space:
    reserved, old, most, free = (_size(found[key], key) if found.get(key) else 0 for key in keys)
    return Space(reserved or old, most, free)


def _size(value: Any, key: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return parse_size(str(value).removesuffix("B").removesuffix("b"), unit=1024)
    except Invalid as error:
        raise Invalid(f"{key}: {error.message}") from None


def _mapping(value: Any, key: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"{key}: want an object")
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise Invalid(f"{key}: {unknown[0]} is not supported; want {', '.join(known)}")
    return value
