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
    """`on_room` is called when `full` has become false again. Raises OSError if the log's file cannot be made."""

    def __init__(self, settings: LogSettings, reactor: Reactor, on_room: Callable[[], None]) -> None:
        self._reactor, self._on_room = reactor, on_room
        self._splitters = {stream: Splitter(stream) for stream in ("stdout", "stderr")}
        self._drivers: list[Driver] = []
        self.change(settings)

    def change(self, settings: LogSettings) -> None:
        """Log there from now on; a line that has been begun stays one. Raises OSError; then all is as it was."""
        before, opened = self._drivers, self._open(settings)
        if not opened:
            self._finish_lines()
        self._drivers = opened
        for splitter in self._splitters.values():
            splitter.attributes = tuple(sorted(settings.attributes.items()))
        _close(before)
        if before:
            self._on_room()

    def _open(self, settings: LogSettings) -> list[Driver]:
        names = [settings.driver] if settings.driver != "none" else []
        if settings.path and _MODULES[settings.driver] != "stored":
            names.insert(0, "local")  # kept here too and first, so that `logs` can read it
        opened: list[Driver] = []
        try:
            for name in names:
                module = importlib.import_module(f"corten.runtime.logdrivers.{_MODULES[name]}")
                opened.append(module.make(settings, self._reactor, self._on_room))
        except BaseException:
            _close(opened)
            raise
        return opened

    def write(self, stream: str, data: bytes) -> None:
        """Take output in any pieces."""
        if self._drivers:
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
        self._finish_lines()
        _close(self._drivers)

    def _finish_lines(self) -> None:
        for splitter in self._splitters.values():
            self._give(splitter.finish(now_ns()))


def _close(drivers: list[Driver]) -> None:
    for driver in drivers:
        driver.close()
