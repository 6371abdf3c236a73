"""The drivers json-file and local, and the cache of all others: runs encoded into rotated files."""

from __future__ import annotations

from collections.abc import Callable

from corten.runtime.logdrivers.rotation import RotatedFile
from corten.runtime.messages import LogSettings
from corten.runtime.reactor import Reactor
from corten.spec import log_json
from corten.spec.log_lines import Run


def _encoder(driver: str) -> Callable[[Run], bytes]:
    if driver == "json-file":
        return log_json.encode
    from corten.spec.log_local import encode

    return encode


class Stored:
    full = False

    def __init__(self, encode: Callable[[Run], bytes], file: RotatedFile) -> None:
        self._encode, self._file = encode, file

    def write(self, run: Run) -> None:
        """A run that does not fit into what is left of the file is halved until it does, or is one line."""
        records = self._encode(run)
        if self._file.has_room(len(records)):
            self._file.append(records)
            return
        middle = run.data.find(b"\n", len(run.data) // 2) + 1
        if middle == len(run.data) or not middle:
            middle = run.data.find(b"\n") + 1
        if middle == len(run.data) or not middle:
            self._file.rotate()
            self._file.append(records)
            return
        for half in (run.data[:middle], run.data[middle:]):
            self.write(Run(run.stream, run.time, half, run.attributes))

    def close(self) -> None:
        self._file.close()


def make(settings: LogSettings, reactor: Reactor, _on_room: Callable[[], None]) -> Stored:
    file = RotatedFile(settings.path, settings.max_size, settings.max_file, reactor, compress=settings.compress)
    return Stored(_encoder(settings.driver), file)
