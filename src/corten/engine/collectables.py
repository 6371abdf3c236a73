"""What can be collected beside the content of images: stopped containers, anonymous volumes, rotated logs. Only if daemon.json names them.

Here is what each kind's items are, why one is kept, and how one is removed. Order and amount are store/collection.py's, how long something
must have been unused collecting.py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from corten.engine import states
from corten.engine.containers import Containers
from corten.engine.records import ContainerRecord, VolumeRecord
from corten.engine.removal import Removal
from corten.engine.volume_drivers import ANONYMOUS, LOCAL
from corten.engine.volume_history import VolumeHistory
from corten.engine.volumes import Volumes
from corten.errors import Conflict
from corten.spec.timestamps import ZERO, now_ns, parse_rfc3339
from corten.store.collection import Item, is_pinned, layer_key
from corten.store.container_logs import ContainerLogs, Rotated
from corten.store.snapshots import Snapshots

_WILL_START = ("always", "unless-stopped")
_MODES = ("network_mode", "pid_mode", "ipc_mode")


class InUse(Conflict):
    template = "it is kept: {why}"


def last_use(record: ContainerRecord) -> int:
    """When a container ended, or was created if it never ran; now, if it runs. Nanoseconds since the epoch."""
    if states.is_up(record):
        return now_ns()
    return parse_rfc3339(record.state.finished_at if record.state.finished_at != ZERO else record.created)


class StoppedContainers:
    """All containers are items. A removed one's anonymous volumes stay, and are items themselves."""

    def __init__(self, containers: Containers, snapshots: Snapshots, logs: ContainerLogs, removal: Removal) -> None:
        self._containers, self._snapshots, self._logs, self._removal = containers, snapshots, logs, removal

    async def items(self, *, everything: bool) -> list[Item]:
        found: list[Item] = []
        for record in self._containers.all():
            kept, until = self._kept(record)
            if everything or not kept or until:
                own = await asyncio.to_thread(self._own, record.id)
                used = max(last_use(record), *(last_use(other) for other in self._containers.all() if other.id in until), 0)
                found.append(Item("containers", record.id, (record.name,), used, frozenset(map(layer_key, record.layers)), kept, own, until))
        return found

    def _own(self, container_id: str) -> tuple[tuple[str, int], ...]:
        """Its log's rotated files are items, too: whichever goes first takes them."""
        size = self._snapshots.disk_size(container_id) + self._logs.size(container_id)
        return (f"container {container_id}", size), *((_log_key(container_id, file), file.size) for file in self._logs.rotated(container_id))

    def _kept(self, record: ContainerRecord) -> tuple[str, frozenset[str]]:
        """(why it does not go, until what has gone)."""
        if is_pinned(record.config.labels):
            return "pinned", frozenset()
        if states.is_up(record):
            return "it runs", frozenset()
        if record.state.status == "removing":
            return "it is being removed", frozenset()
        if record.host_config.restart_policy.name in _WILL_START:
            return f"its restart policy is {record.host_config.restart_policy.name}", frozenset()
        users = [other for other in self._containers.all() if _needs(other, record)]
        return (f"container {users[0].name} uses it", frozenset(other.id for other in users)) if users else ("", frozenset())

    async def remove(self, item: Item) -> None:
        """Raises InUse where it has been started, or has been named by another container, since it was looked at."""
        async with self._containers.lock(item.id):
            record = self._containers.current(item.id)
            if record is None:
                return  # somebody else has removed it
            why, _ = self._kept(record)
            if why or last_use(record) > item.used:
                raise InUse(why=why or "it has run since")
            states.check("remove", record)
            await self._removal.remove_now(record, volumes=False)


def _needs(other: ContainerRecord, record: ContainerRecord) -> bool:
    """Whether a container could not be started without another: it shares a namespace, is linked to it, or looks at its files."""
    linked = any(text.partition(":")[0].strip("/") == record.name for text in other.host_config.links or ())
    shared = linked or any(getattr(other.host_config, mode) == f"container:{record.id}" for mode in _MODES)
    return shared or any(mount.type == "container" and mount.source == record.id for mount in other.mounts)


class AnonymousVolumes:
    """Volumes of the local driver that nobody named. Named ones are their users' to remove."""

    def __init__(self, volumes: Volumes, history: VolumeHistory, containers: Containers) -> None:
        self._volumes, self._history, self._containers = volumes, history, containers

    async def items(self, *, everything: bool) -> list[Item]:
        found: list[Item] = []
        for record in self._volumes.all():
            if record.driver != LOCAL or record.options or ANONYMOUS not in (record.labels or {}):
                continue
            kept, until = self._kept(record)
            if everything or not kept or until:
                size = await self._volumes.size(record) or 0
                users = [user for name in until if (user := self._containers.current(name))]
                used = max(self._last_use(record), *map(last_use, users), 0)
                found.append(Item("volumes", record.name, (), used, frozenset(), kept, ((f"volume {record.name}", size),), until))
        return found

    def _kept(self, record: VolumeRecord) -> tuple[str, frozenset[str]]:
        if is_pinned(record.labels):
            return "pinned", frozenset()
        if self._volumes.visitors(record.name):
            return "it is being copied", frozenset()
        users = self._volumes.references(record.name)
        if not users:
            return "", frozenset()
        first = self._containers.current(users[0])
        return f"in use by container {first.name if first else users[0]}", frozenset(users)

    def _last_use(self, record: VolumeRecord) -> int:
        return max(parse_rfc3339(record.created), *(parse_rfc3339(use.ended) for use in self._history.of(record.name).uses if use.ended), 0)

    async def remove(self, item: Item) -> None:
        """Raises VolumeInUse, NoSuchVolume."""
        await self._volumes.remove(item.id)


class RotatedLogs:
    """The older files of every container's log, running or not: what is written now stays."""

    def __init__(self, containers: Containers, logs: ContainerLogs) -> None:
        self._containers, self._logs = containers, logs

    async def items(self, *, everything: bool) -> Iterable[Item]:
        found: list[Item] = []
        for record in self._containers.all():
            kept = "pinned" if is_pinned(record.config.labels) else ""
            if everything or not kept:
                found += [_log_item(record, file, kept) for file in await asyncio.to_thread(self._logs.rotated, record.id)]
        return found

    async def remove(self, item: Item) -> None:
        """Raises InUse where it is not there any more: with its container, or rotated away."""
        container_id, _, inode = item.id.partition("/")
        if not await asyncio.to_thread(self._logs.remove, container_id, int(inode)):
            raise InUse(why="it is gone already")


def _log_item(record: ContainerRecord, file: Rotated, kept: str) -> Item:
    name = f"{record.name}: {file.path.rpartition('/')[2]}"
    return Item("logs", f"{record.id}/{file.inode}", (name,), file.written, frozenset(), kept, ((_log_key(record.id, file), file.size),))


def _log_key(container_id: str, file: Rotated) -> str:
    return f"log {container_id}/{file.inode}"
