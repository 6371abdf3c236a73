"""The volumes there are: creating, finding, listing, mounting, removing, and who uses which.

Owns the records (a row each) and one lock per volume. What a volume is made of is its driver's; which container mounts what is
in the containers' records, so that a reference is never stored twice. Source: Docker Engine 28.5 (moby volume/service).
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import msgspec

from corten.engine import names, volume_local
from corten.engine.events import Events
from corten.engine.records import ContainerRecord, VolumeRecord, decode_volume, encode_record
from corten.engine.volume_drivers import ANONYMOUS, LOCAL, SNAPSHOT_OF, VolumeDriver
from corten.engine.volume_plugins import MountRefused, PluginFailed, Plugins
from corten.errors import (
    Conflict,
    CortenError,
    Invalid,
    KernelRefused,
    NoSuchVolume,
    NoVolumePlugin,
    VolumeInUse,
    VolumeNameTaken,
)
from corten.spec.filters import Filters, matches_labels, matches_pattern, one_flag
from corten.spec.timestamps import ZERO, now_ns, rfc3339_nano
from corten.store.database import Database
from corten.store.locks import NamedLocks
from corten.store.volumes import VolumeFolders

_SECOND = 1_000_000_000
_log = logging.getLogger("corten.engine")


class Volumes:
    """`containers` yields the containers that there are."""

    def __init__(self, database: Database, folders: VolumeFolders, local: VolumeDriver, plugins: Plugins, events: Events,
                 containers: Callable[[], Iterable[ContainerRecord]]) -> None:  # fmt: skip
        self._database, self._folders, self._events, self._containers = database, folders, events, containers
        self._local, self._plugins = local, plugins
        self._records = {record.name: record for record in map(decode_volume, database.volumes())}
        self._locks = NamedLocks()
        self._held: dict[str, set[str]] = defaultdict(set)  # volume -> containers that are being created
        self._users: dict[str, set[str]] = defaultdict(set)  # volume -> what has it mounted now

    def driver(self, name: str) -> VolumeDriver:
        """Raises NoVolumePlugin."""
        return self._local if name in ("", LOCAL) else self._plugins.find(name)

    def path(self, record: VolumeRecord) -> str:
        """What Docker shows as the mountpoint."""
        try:
            return self.driver(record.driver).path(record.name)
        except NoVolumePlugin:
            return ""  # its plugin does not run now

    def mountpoint(self, name: str) -> str:
        """As above, by name; empty for a volume that is gone (force-removed)."""
        record = self._records.get(name)
        return self.path(record) if record else ""

    def scope(self, record: VolumeRecord) -> str:
        try:
            return self.driver(record.driver).scope
        except NoVolumePlugin:
            return LOCAL

    def find(self, name: str) -> VolumeRecord:
        """By its full name. Raises NoSuchVolume."""
        record = self._records.get(name)
        if record is None:
            raise NoSuchVolume(name=name)
        return record

    def references(self, name: str) -> list[str]:
        """Ids of the containers that mount it, also of those that are being created."""
        stored = [record.id for record in self._containers() if any(mount.name == name for mount in record.mounts if mount.type == "volume")]
        return stored + [container for container in self._held.get(name, ()) if container not in stored]

    # --- plugins
    def drivers(self) -> list[str]:
        return [LOCAL, *self._plugins.names()]

    async def discover(self) -> tuple[list[VolumeRecord], list[str]]:
        """Volumes that plugins have and no row knows, and what plugins said instead of an answer."""
        found: list[VolumeRecord] = []
        warnings: list[str] = []
        for name in self._plugins.names():
            try:
                listed = await self._plugins.find(name).list()
            except NoVolumePlugin:
                continue  # a plugin of another kind
            except CortenError as error:
                warnings.append(f"list {name}: {error.message}")
                continue
            found += [VolumeRecord(volume.name, name, volume.created_at or ZERO) for volume in listed if volume.name not in self._records]
        return found, warnings

    async def look_for(self, name: str) -> None:
        """Take a volume in that a plugin has under a name which no row has."""
        if name in self._records:
            return
        for plugin in self._plugins.names():
            with suppress(CortenError):  # not its volume, or it does not answer: another plugin may have it
                found = await self._plugins.find(plugin).get(name)
                if found:
                    self._save(VolumeRecord(name, plugin, found.created_at or ZERO))
                    return

    async def status(self, record: VolumeRecord) -> dict[str, Any] | None:
        """What the volume's plugin says of it; a local volume has none."""
        if record.driver == LOCAL:
            return None
        with suppress(NoVolumePlugin):  # it is not there at the moment: it says nothing
            found = await self._plugins.find(record.driver).get(record.name)
            return found.status if found else None
        return None

    # --- create
    async def create(self, name: str, driver: str = "", options: Mapping[str, str] | None = None,
                     labels: Mapping[str, str] | None = None, *, made_for: str = "") -> VolumeRecord:  # fmt: skip
        """The volume of that name, made if it is not there; an empty name gets a new one. `made_for` holds it for a container.

        Raises Invalid, VolumeNameTaken (another driver has the name), NoVolumePlugin.
        """
        anonymous = not name
        if name and not driver:
            await self.look_for(name)
        if anonymous:
            name = names.new_id()
            labels = {**(labels or {}), ANONYMOUS: ""}
        async with self._locks[name]:
            if made_for:
                self._held[name].add(made_for)
            try:
                return await self._create(name, driver, options, labels, made_for if anonymous else "")
            except BaseException:
                self.let_go(name, made_for)
                raise

    async def _create(self, name: str, driver_name: str, options: Mapping[str, str] | None, labels: Mapping[str, str] | None,
                      made_for: str) -> VolumeRecord:  # fmt: skip
        found = self._records.get(name)
        try:
            driver = self.driver(driver_name or (found.driver if found else LOCAL))
            if found:
                if driver.name != found.driver:
                    raise VolumeNameTaken(name=name, driver=found.driver)
                return found
            await driver.create(name, options or {})
        except (Invalid, NoVolumePlugin) as error:
            error.message = f"create {name}: {error.message}"
            raise
        except (PluginFailed, KernelRefused) as error:
            raise CortenError(f"create {name}: {error.message}") from None
        except OSError as error:
            raise KernelRefused(operation="create volume", operand=name, errno=error.errno or 0, reason=error.strerror or str(error)) from None
        record = VolumeRecord(name, driver.name, _now(), _copy(labels), _copy(options), made_for)
        self._save(record)
        self._events.emit("volume", "create", name, driver=driver.name)
        return record

    async def take_in(self, name: str, staging: str, labels: Mapping[str, str] | None) -> VolumeRecord:
        """A local volume made of a staged folder. Raises VolumeNameTaken, OSError."""
        async with self._locks[name]:
            if name in self._records:
                raise VolumeNameTaken(name=name, driver=self._records[name].driver)
            self._folders.take_in(staging, name)
            record = VolumeRecord(name, LOCAL, _now(), _copy(labels))
            self._save(record)
        self._events.emit("volume", "create", name, driver=LOCAL)
        return record

    # --- another name: the steps of volume_renaming.py
    @asynccontextmanager
    async def alone(self, *volumes: str) -> AsyncIterator[None]:
        """Nobody else does anything with these volumes inside the block."""
        async with AsyncExitStack() as held:
            for name in sorted(set(volumes)):
                await held.enter_async_context(self._locks[name])
            yield

    def change_name(self, record: VolumeRecord, new: str) -> None:
        """The rows only, its snapshots' too, to be called in a transaction. Raises Conflict for one that a container is just being made with."""
        if self._held.get(record.name) or self.visitors(record.name):
            raise Conflict(f"rename {record.name}: it is being copied, or a container that uses it is being created")
        self._database.move_volume_history(record.name, new)
        self._database.delete_volume(record.name)
        self._save(msgspec.structs.replace(record, name=new, moved_from=record.name))
        del self._records[record.name]
        for snapshot in self.snapshots(record.name):
            self._save(msgspec.structs.replace(snapshot, labels={**(snapshot.labels or {}), SNAPSHOT_OF: new}))
        if record.name in self._users:
            self._users[new] = self._users.pop(record.name)

    def finish_rename(self, name: str) -> None:
        record = self._records[name]
        if record.moved_from:
            self._folders.rename(record.moved_from, name)
            self._save(msgspec.structs.replace(record, moved_from=""))

    def _save(self, record: VolumeRecord) -> None:
        self._database.put_volume(record.name, encode_record(record))
        self._records[record.name] = record

    def let_go(self, name: str, container: str) -> None:
        """The container is stored, and holds the volume by its record from now on (or was not made after all)."""
        holders = self._held.get(name, set())
        holders.discard(container)
        if not holders:
            self._held.pop(name, None)
        record = self._records.get(name)
        if container and record and record.made_for == container:
            self._save(msgspec.structs.replace(record, made_for=""))

    def visitors(self, name: str) -> list[str]:
        """What has it mounted at this moment and is no container: a copy, a save."""
        ids = {record.id for record in self._containers()}
        return [user for user in self._users.get(name, ()) if user not in ids]

    # --- mounting
    async def mount(self, name: str, user: str) -> str:
        """Where the content is, mounted if it has to be, for as long as somebody uses it. Raises what the driver raises."""
        record = self.find(name)
        async with self._locks[name]:
            try:
                path = await self.driver(record.driver).mount(name, record.options or {}, user)
            except PluginFailed as error:
                raise MountRefused(path=self.path(record), reason=error.message) from None
            self._users[name].add(user)
        return path

    async def unmount(self, name: str, user: str) -> bool:
        """The last user's leave unmounts it. False if `user` was none."""
        record = self._records.get(name)
        async with self._locks[name]:
            users = self._users.get(name, set())
            if record is None or user not in users:
                return False
            users.discard(user)
            if not users:
                del self._users[name]
            await self._unmount(record, user, last=not users)
        return True

    async def _unmount(self, record: VolumeRecord, user: str, *, last: bool) -> None:
        try:
            await self.driver(record.driver).unmount(record.name, record.options or {}, user, last=last)
        except (CortenError, OSError) as error:  # nothing that a container's end could wait for
            _log.warning("volume %s stays mounted: %s", record.name, error)

    def hold(self, name: str, user: str) -> None:
        """Start-up: `user` has had it mounted since before."""
        self._users[name].add(user)

    def workplace(self, name: str) -> str:
        """A folder on the file system of the volume's content, and not part of the content where that can be."""
        record = self.find(name)
        plain = record.driver == LOCAL and not record.options
        return self._folders.folder(name) if plain else self.path(record)

    def emit(self, action: str, name: str, **attributes: str) -> None:
        self._events.emit("volume", action, name, driver=self.find(name).driver, **attributes)

    # --- list
    def all(self) -> list[VolumeRecord]:
        return list(self._records.values())

    def snapshots(self, name: str) -> list[VolumeRecord]:
        return [record for record in self.all() if (record.labels or {}).get(SNAPSHOT_OF) == name]

    def matching(self, filters: Filters, strangers: Iterable[VolumeRecord] = ()) -> list[VolumeRecord]:
        """`strangers` are volumes without a row. Raises Invalid for a `dangling` that is no truth value."""
        dangling = one_flag(filters, "dangling")
        return [record for record in (*self.all(), *strangers) if self.matches(record, filters, dangling=dangling)]

    def matches(self, record: VolumeRecord, filters: Filters, *, dangling: bool | None) -> bool:
        """`dangling`: whether it shall be unused; None if that does not matter."""
        drivers = filters.get("driver")
        return (
            (not drivers or record.driver in drivers)
            and matches_pattern(filters.get("name", []), record.name)
            and matches_labels(filters.get("label", []), record.labels or {})
            and not ("label!" in filters and matches_labels(filters["label!"], record.labels or {}))
            and (dangling is None or dangling != bool(self.references(record.name)))
        )

    async def size(self, record: VolumeRecord) -> int | None:
        """Bytes on this host's disk; None for a volume whose content is elsewhere."""
        if record.driver != LOCAL or volume_local.needs_mount(record.options):
            return None
        return await asyncio.to_thread(self._folders.size, record.name)

    # --- remove
    async def remove(self, name: str, *, force: bool = False) -> None:
        """`force`: a volume that is not there, or whose driver does not answer, is as good as removed. Raises VolumeInUse."""
        await self.look_for(name)
        async with self._locks[name]:
            record = self._records.get(name)
            if record is None:
                if force:
                    return
                raise NoSuchVolume(name=name)
            users = self.references(name) or self.visitors(name)
            if users:
                raise VolumeInUse(name=name, containers=", ".join(users))
            try:
                await self.driver(record.driver).remove(name, record.options or {})
            except (CortenError, OSError) as error:
                if not force:
                    reason = error.message if isinstance(error, CortenError) else f"{error.strerror} ({error.filename})"
                    raise CortenError(f"remove {name}: {reason}") from None
                _log.warning("volume %s is forgotten, but its content could not be removed: %s", name, error)
            self._database.delete_volume(name)
            del self._records[name]
        self._events.emit("volume", "destroy", name, driver=record.driver)

    # --- start-up
    async def restore(self) -> None:
        """After `hold`: remove what a crash left half made or mounted. A folder with content that no row names is taken in as a volume, never deleted."""
        known = {container.id for container in self._containers()}
        for record in self.all():
            self.finish_rename(record.name)
        for record in self.all():
            if record.made_for and record.made_for not in known:
                await self.remove(record.name, force=True)
            elif record.made_for:
                self.let_go(record.name, record.made_for)
        for record in self.all():
            if record.driver == LOCAL and not self._users.get(record.name):
                await self._unmount(record, "", last=True)
        for name in self._folders.sweep(self._records):
            _log.warning("the folder of volume %s had no row: it is taken in again", name)
            self._save(VolumeRecord(name, LOCAL, _now()))


def _now() -> str:
    """To the second: what Docker shows of a volume."""
    return rfc3339_nano(now_ns() // _SECOND * _SECOND)


def _copy(values: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if values is None else dict(values)
