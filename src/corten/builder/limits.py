"""daemon.json's `builder`: how much of the build cache stays by itself, and what a Dockerfile may ask for. Pure.

Keys are Docker's (dockerd's documentation, "Daemon configuration file", `builder`); sizes as there: a number of bytes, or `20GB`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corten.errors import Invalid
from corten.spec.go_values import parse_size
from corten.spec.timestamps import parse_duration

_KEEP = ("keepStorage", "reservedSpace", "maxUsedSpace")
_DEFAULT_KEEP = ("defaultKeepStorage", "defaultReservedSpace", "defaultMaxUsedSpace")
_UNUSED = ("unused-for", "until")
_INSECURE, _HOST = "security-insecure", "network-host"


@dataclass(frozen=True)
class Policy:
    """What is over `keep` bytes, or has not been used for `unused_for` nanoseconds, goes; None: no such limit. `types` of rows; none: all."""

    keep: int | None = None
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
    collecting = _mapping(found.get("gc", {}), "builder.gc", ("enabled", "policy", *_DEFAULT_KEEP))
    return BuilderSettings(_policies(collecting), entitlements.get(_INSECURE) is True, entitlements.get(_HOST) is not False)


def _policies(collecting: Mapping[str, Any]) -> tuple[Policy, ...] | None:
    if collecting.get("enabled") is False:
        return ()
    if "policy" in collecting:
        rows = collecting["policy"]
        if not isinstance(rows, list):
            raise Invalid("builder.gc.policy: want a list")
        return tuple(_policy(row) for row in rows)
    keep = _least(collecting, _DEFAULT_KEEP)
    return None if keep is None else (Policy(keep),)


def _policy(row: Any) -> Policy:
    found = _mapping(row, "builder.gc.policy", ("all", "filter", *_KEEP))
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
    return Policy(_least(found, _KEEP), unused_for, tuple(types))


def _least(found: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    sizes = [_size(found[key], key) for key in keys if found.get(key)]
    return min(sizes) if sizes else None


def _size(value: Any, key: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return parse_size(str(value).removesuffix("B").removesuffix("b"))
    except Invalid as error:
        raise Invalid(f"{key}: {error.message}") from None


def _mapping(value: Any, key: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"{key}: want an object")
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise Invalid(f"{key}: {unknown[0]} is not supported; want {', '.join(known)}")
    return value
