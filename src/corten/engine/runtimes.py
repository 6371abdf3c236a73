"""Which OCI runtimes this engine knows: the built-in one and those of its settings (`runtimes` of daemon.json, --add-runtime).

Source: Docker Engine 28.5 (moby daemon/runtime_unix.go) for the keys, texts and what is reserved; there the stock name is `runc`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from corten.errors import Invalid

BUILT_IN = "corten"
STOCK = "runc"  # Docker's name for the one that comes with it: who asks for that gets ours, unless it is registered


class RuntimeSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of daemon.json's `runtimes`. `runtimeType` names a containerd shim, which this engine has no use for."""

    path: str = ""
    runtimeArgs: list[str] = []  # noqa: N815 - daemon.json's own spelling
    runtimeType: str = ""  # noqa: N815
    options: dict[str, Any] = {}


class Runtimes:
    """`state_folder` is where each of the others keeps its state (its --root)."""

    def __init__(self, settings: Mapping[str, RuntimeSetting], default: str, state_folder: str) -> None:
        """Raises Invalid naming the runtime that is set wrongly."""
        for name, setting in settings.items():
            _check(name, setting)
        if default not in ("", BUILT_IN, STOCK, *settings):
            raise Invalid(f"specified default runtime '{default}' does not exist")
        self._settings, self._state_folder = dict(settings), state_folder
        self.default = default or BUILT_IN

    def check(self, name: str) -> None:
        """Raises Invalid for a name that a container asks for and nobody has registered, or whose program has gone."""
        self.command(name)

    def command(self, name: str, *, hooks: bool = False) -> list[str]:
        """The command line up to the verb; empty for the built-in runtime. Raises Invalid.

        A container with hooks gets the built-in one by its own command line: that runs hooks, and the monitor waits for nobody.
        """
        chosen = name or self.default
        if chosen == BUILT_IN or (chosen == STOCK and STOCK not in self._settings):
            return [sys.executable, "-I", "-m", "corten.runtime.commandline", "--root", f"{self._state_folder}/{BUILT_IN}"] if hooks else []
        setting = self._settings.get(chosen)
        if setting is None:
            raise Invalid(f"unknown or invalid runtime name: {chosen}")
        program = shutil.which(setting.path)
        if program is None:
            raise Invalid(f'error while looking up the specified runtime path: exec: "{setting.path}": executable file not found in $PATH')
        return [program, *setting.runtimeArgs, "--root", f"{self._state_folder}/{chosen}"]

    def view(self, features: str) -> dict[str, dict[str, Any]]:
        """As /info shows them; `features` is the built-in one's own description."""
        ours = {"path": "corten-runtime", "status": {"org.opencontainers.runtime-spec.features": features}}
        found: dict[str, dict[str, Any]] = {BUILT_IN: ours, STOCK: ours}
        for name, setting in self._settings.items():
            found[name] = {"path": setting.path} | ({"runtimeArgs": setting.runtimeArgs} if setting.runtimeArgs else {})
        return found


def _check(name: str, setting: RuntimeSetting) -> None:
    if name == BUILT_IN:
        raise Invalid(f"runtime name '{name}' is reserved")
    if not name or "/" in name or name.startswith("."):
        raise Invalid(f"unknown or invalid runtime name: {name}")
    if setting.runtimeType or setting.options:
        raise Invalid(f"runtime {name}: runtimeType and options are containerd's; give the path of an OCI runtime")
    if not setting.path:
        raise Invalid(f"runtime {name}: either a runtimeType or a path must be configured")


def parse_flag(text: str) -> tuple[str, RuntimeSetting]:
    """`name=path` of --add-runtime. Raises Invalid."""
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise Invalid(f"invalid runtime {text!r}: want name=path")
    return name, RuntimeSetting(path)
