"""The drivers json-file and local, and the cache of all others: runs encoded into rotated files."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

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


_TAIL = 1 << 17  # more than the longest record


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


def mend(driver: str, path: str) -> None:
    """Cut off a record that a power cut or a killed monitor has left half written: the next one would be lost with it."""
    with suppress(FileNotFoundError), open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - _TAIL))
        tail = file.read()
        if driver == "json-file":
            file.truncate(start + log_json.whole(tail) if tail else 0)
            return
        from corten.spec import log_local

        if not log_local.ends_whole(tail):
            file.seek(0)
            file.truncate(log_local.whole(file.read()))


def make(settings: LogSettings, reactor: Reactor, _on_room: Callable[[], None]) -> Stored:
    mend(settings.driver, settings.path)
    file = RotatedFile(settings.path, settings.max_size, settings.max_file, reactor, compress=settings.compress)
    return Stored(_encoder(settings.driver), file)
