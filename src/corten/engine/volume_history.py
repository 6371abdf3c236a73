"""What has happened to volumes: which containers had them mounted, from when to when, and how large they were when they were measured.

A use is written down when it ends (a start waits for nothing); one that goes on is in the container's record. After a crash the next
engine deals with the ends that were missed, and writes them down. Only the newest _KEPT entries of a volume stay; they follow a new
name, and go with the volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from corten.engine import states
from corten.engine.records import ContainerRecord, MountRecord
from corten.spec.timestamps import now_ns, rfc3339_nano
from corten.store.database import Database

_KEPT = 200


class Use(msgspec.Struct, frozen=True, tag="use"):
    """`begun` and `ended` are RFC 3339 with nanoseconds; `ended` is empty while it goes on. `image` is an image's id."""

    container: str
    name: str
    image: str
    destination: str
    rw: bool
    begun: str
    ended: str = ""


class Measured(msgspec.Struct, frozen=True, tag="size"):
    """`size` in bytes."""

    at: str
    size: int


@dataclass(frozen=True)
class History:
    """Oldest first."""

    uses: list[Use]
    sizes: list[Measured]


class VolumeHistory:
    def __init__(self, database: Database, containers: Callable[[], Iterable[ContainerRecord]]) -> None:
        self._database, self._containers = database, containers

    def ended(self, record: ContainerRecord) -> None:
        """The container has ended, and with it its use of its volumes."""
        with self._database.transaction():
            for mount in record.mounts:
                if mount.type == "volume":
                    self._add(mount.name, _use(record, mount, record.state.finished_at))

    def measured(self, name: str, size: int) -> None:
        """Written down if it is another size than the last time."""
        sizes = [entry for entry in self._read(name) if isinstance(entry, Measured)]
        if not sizes or sizes[-1].size != size:
            self._add(name, Measured(rfc3339_nano(now_ns()), size))

    def of(self, name: str) -> History:
        past = self._read(name)
        now = [_use(record, mount, "") for record in self._containers() if states.is_running(record)
               for mount in record.mounts if mount.type == "volume" and mount.name == name]  # fmt: skip
        return History([*(entry for entry in past if isinstance(entry, Use)), *now], [entry for entry in past if isinstance(entry, Measured)])

    def _add(self, name: str, entry: Use | Measured) -> None:
        self._database.add_volume_history(name, msgspec.json.encode(entry), _KEPT)

    def _read(self, name: str) -> list[Use | Measured]:
        return [_decode(record) for record in self._database.volume_history(name)]


_decode = msgspec.json.Decoder(Use | Measured).decode


def _use(record: ContainerRecord, mount: MountRecord, ended: str) -> Use:
    return Use(record.id, record.name, record.image, mount.destination, mount.rw, record.state.started_at, ended)
