"""What only this host and this engine's settings can judge of a request: its kernel's limits, AppArmor, the runtimes that are registered.

What is wrong on every host is refused before, by options.py and its neighbours.
"""

from __future__ import annotations

import msgspec

from corten.engine import confinement, resources
from corten.engine.runtimes import Runtimes
from corten.linux.cgroup_abilities import Abilities
from corten.spec.engine import HostConfig


class Admission:
    def __init__(self, able: Abilities, runtimes: Runtimes) -> None:
        self._able, self._runtimes = able, runtimes

    def admit(self, host: HostConfig) -> tuple[HostConfig, list[str]]:
        """What will hold of it, and Docker's warnings about the rest. Raises Invalid."""
        confinement.check(host)
        host, warnings = resources.fit(host, self._able)
        self._runtimes.check(host.runtime)
        return msgspec.structs.replace(host, runtime=host.runtime or self._runtimes.default), warnings
