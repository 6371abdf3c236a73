"""What an edit of a container means: which keys change, and which of them need a new process. Pure; editing.py does it.

A plan is made from the configuration that is there and the request, can be printed, and says no more than what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from corten.spec.answers import EditStep
from corten.spec.engine import Config, EditRequest, HostConfig

LIVE, SWAP = "live", "swap"


@dataclass(frozen=True)
class Plan:
    """`config` and `host` are the whole configuration afterwards."""

    config: Config
    host: HostConfig
    steps: tuple[EditStep, ...]

    @property
    def needs_swap(self) -> bool:
        return any(step.how == SWAP for step in self.steps)

    def changes(self, *keys: str) -> bool:
        return any(step.key in keys for step in self.steps)


@dataclass(frozen=True)
class _Row:
    """Where a key of the request lives, how it takes effect, and how its new value comes from old and asked."""

    place: str  # "config" or "host"
    field: str
    how: str
    combine: Callable[[Any, Any], Any] = lambda _old, asked: asked


def _env(old: list[str] | None, asked: list[str]) -> list[str]:
    """`NAME=value` sets, `NAME` alone takes away; what is not named stays, in its place."""
    entries = {entry.partition("=")[0]: entry for entry in old or []}
    for entry in asked:
        name, equals, _ = entry.partition("=")
        if equals:
            entries[name] = entry
        else:
            entries.pop(name, None)
    return list(entries.values())


def _labels(old: Mapping[str, str] | None, asked: Mapping[str, str | None]) -> dict[str, str]:
    """Null takes a label away; what is not named stays."""
    found: dict[str, str | None] = {**(old or {}), **asked}
    return {name: value for name, value in found.items() if value is not None}


_ROWS: dict[str, _Row] = {
    "Labels": _Row("config", "labels", LIVE, _labels),
    "Healthcheck": _Row("config", "healthcheck", LIVE),
    "RestartPolicy": _Row("host", "restart_policy", LIVE),
    "PortBindings": _Row("host", "port_bindings", LIVE),
    "Env": _Row("config", "env", SWAP, _env),
    "Cmd": _Row("config", "cmd", SWAP),
    "Entrypoint": _Row("config", "entrypoint", SWAP),
    "User": _Row("config", "user", SWAP),
    "WorkingDir": _Row("config", "working_dir", SWAP),
    "LogConfig": _Row("host", "log_config", LIVE),
    "Binds": _Row("host", "binds", SWAP),
    "Mounts": _Row("host", "mounts", SWAP),
}


def make_plan(config: Config, host: HostConfig, request: EditRequest) -> Plan:
    steps: list[EditStep] = []
    parts: dict[str, Any] = {"config": config, "host": host}
    for key, row in _ROWS.items():
        asked = getattr(request, row.field)
        if asked is msgspec.UNSET:
            continue
        old = getattr(parts[row.place], row.field)
        new = row.combine(old, asked)
        if (new or None) == (old or None):
            continue
        steps.append(EditStep(key, row.how, msgspec.to_builtins(old), msgspec.to_builtins(new)))
        parts[row.place] = msgspec.structs.replace(parts[row.place], **{row.field: new})
    exposed = {**(parts["config"].exposed_ports or {}), **{port: {} for port in parts["host"].port_bindings or {}}}
    return Plan(msgspec.structs.replace(parts["config"], exposed_ports=exposed or None), parts["host"], tuple(steps))
