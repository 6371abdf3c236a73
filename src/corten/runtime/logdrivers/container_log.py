"""A container's log: its output cut into runs of lines, and each run given to the driver and to the file that `logs` reads."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol

from corten.runtime.logdrivers import stored  # noqa: F401 - the default's is warm in the launcher, every other is imported by who uses it
from corten.runtime.messages import LogSettings
from corten.runtime.reactor import Reactor
from corten.spec.log_lines import Run, Splitter
from corten.spec.timestamps import now_ns


class Driver(Protocol):
    """Takes runs. Neither call blocks or raises; `close` may finish sending later, from the reactor."""

    def write(self, run: Run) -> None: ...

    def close(self) -> None: ...

    @property
    def full(self) -> bool:
        """Whether its destination should be waited for. `on_room` is called once it need not be any more."""
        ...


# A driver's module has `make(settings, reactor, on_room)`. It is imported with the first container that uses it.
_MODULES = {
    "json-file": "stored",
    "local": "stored",
    "syslog": "syslog",
    "journald": "journald",
    "gelf": "gelf",
    "fluentd": "fluentd",
}


class ContainerLog:
    """`on_room` is called when `full` has become false again."""

    def __init__(self, settings: LogSettings, reactor: Reactor, on_room: Callable[[], None]) -> None:
        attributes = tuple(sorted(settings.attributes.items()))
        self._splitters = {stream: Splitter(stream, attributes) for stream in ("stdout", "stderr")}
        self._drivers: list[Driver] = []
        names = [settings.driver]
        if settings.path and _MODULES[settings.driver] != "stored":
            names.insert(0, "local")  # kept here too and first, so that `logs` can read it
        try:
            for name in names:
                module = importlib.import_module(f"corten.runtime.logdrivers.{_MODULES[name]}")
                self._drivers.append(module.make(settings, reactor, on_room))
        except BaseException:
            self._close_drivers()
            raise

    def write(self, stream: str, data: bytes) -> None:
        """Take output in any pieces."""
        self._give(self._splitters[stream].feed(data, now_ns()))

    def _give(self, runs: list[Run]) -> None:
        for run in runs:
            for driver in self._drivers:
                driver.write(run)

    @property
    def full(self) -> bool:
        return any(driver.full for driver in self._drivers)

    def close(self) -> None:
        """Write what has no newline yet, and let go."""
        for splitter in self._splitters.values():
            self._give(splitter.finish(now_ns()))
        self._close_drivers()

    def _close_drivers(self) -> None:
        for driver in self._drivers:
            driver.close()


def open_log(settings: LogSettings, reactor: Reactor, on_room: Callable[[], None]) -> ContainerLog | None:
    """None for the driver `none`. Raises OSError if the log's file cannot be made."""
    return None if settings.driver == "none" else ContainerLog(settings, reactor, on_room)
