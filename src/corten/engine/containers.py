"""The containers there are: finding, creating, renaming, waiting. What makes them run and stop is starting.py's and its neighbours'.

Owns the records (a row each, all of them in memory too), the names, one lock per container, and who waits for what.
"""

from __future__ import annotations

import asyncio
import os
from collections import ChainMap, defaultdict
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from corten.engine import endpoint_settings, health, links, modes, mounting, mounts, names, options, states
from corten.engine.admission import Admission
from corten.engine.events import Events
from corten.engine.log_setup import LogSetup
from corten.engine.mounting import Mounting
from corten.engine.networks import Networks
from corten.engine.records import ContainerRecord, decode_record, encode_record
from corten.errors import (
    AmbiguousPrefix,
    CortenError,
    Invalid,
    NameInUse,
    NoCommand,
    NoLinkOfThatName,
    NoSuchContainer,
    RenameToSame,
)
from corten.spec.engine import Config, CreateRequest, HostConfig
from corten.spec.image import RunConfig
from corten.spec.timestamps import now_ns, rfc3339_nano
from corten.store.database import Database, NameTaken
from corten.store.holds import Hold
from corten.store.images import Image
from corten.store.locks import NamedLocks
from corten.store.snapshots import Snapshots

_SHORT = 12
_T = TypeVar("_T")


class Containers:
    def __init__(self, database: Database, snapshots: Snapshots, events: Events, admission: Admission) -> None:
        self._database, self._snapshots, self._events, self._admission = database, snapshots, events, admission
        self._records = {record.id: record for record in map(decode_record, database.containers())}
        self._names = {record.name: record.id for record in self._records.values()}
        self._creating: dict[str, str] = {}  # names of containers that are being made
        self._taken = ChainMap(self._names, self._creating)
        self.generation = 0  # grows with every change of any record
        self._locks = NamedLocks()
        self._waiting: dict[tuple[str, str], set[asyncio.Future[ContainerRecord]]] = defaultdict(set)

    def all(self) -> Iterable[ContainerRecord]:
        return tuple(self._records.values())

    def holds(self) -> list[Hold]:
        """Layers outlive an image that was removed under its containers."""
        return [Hold("container", record.id, frozenset(record.layers)) for record in self._records.values()]

    def lock(self, container_id: str) -> asyncio.Lock:
        """Held for one lifecycle step at a time; another container's is another's."""
        return self._locks[container_id]

    def find(self, name: str) -> ContainerRecord:
        """By full id, name (with or without slash), or unique prefix. Raises NoSuchContainer, AmbiguousPrefix."""
        record = self._records.get(name)
        if record:
            return record
        named = self._names.get(name.removeprefix("/"))
        if named:
            return self._records[named]
        found = [record for record in self._records.values() if name and record.id.startswith(name)]
        if len(found) > 1:
            raise AmbiguousPrefix(name=name)
        if not found:
            raise NoSuchContainer(name=name)
        return found[0]

    def current(self, container_id: str) -> ContainerRecord | None:
        return self._records.get(container_id)

    def save(self, record: ContainerRecord) -> ContainerRecord:
        """Store a changed record. Raises NameInUse."""
        before = self._records.get(record.id)
        if before is None:
            self._database.touch(record.image, now_ns())
        try:
            self._database.put_container(record.id, record.name, encode_record(record))
        except NameTaken:
            raise NameInUse(name=record.name, id=self._names[record.name]) from None
        if before and before.name != record.name:
            del self._names[before.name]
        self.generation += 1
        self._records[record.id] = record
        self._names[record.name] = record.id
        return record

    def save_state(self, container_id: str, **changes: object) -> ContainerRecord:
        """Store changed fields of the state of a container's newest record."""
        return self.save(replace_state(self._records[container_id], **changes))

    def delete(self, record: ContainerRecord) -> None:
        self._database.delete_container(record.id)
        self._database.touch(record.image, now_ns())  # until now it was in use
        self.generation += 1
        del self._records[record.id]
        del self._names[record.name]

    def emit(self, action: str, record: ContainerRecord, **attributes: str) -> None:
        """A container event with Docker's attributes: image, name, labels."""
        labels = record.config.labels or {}
        everything = {**labels, "image": record.config.image, "name": record.name, **attributes}
        self._events.emit("container", action, record.id, **everything)

    # --- waiting
    def register(self, container_id: str, condition: str) -> asyncio.Future[ContainerRecord]:
        """A future for the next time that `condition` ("exit" or "removed") becomes true."""
        future: asyncio.Future[ContainerRecord] = asyncio.get_running_loop().create_future()
        self._waiting[container_id, condition].add(future)
        return future

    def cancel(self, container_id: str, condition: str, future: asyncio.Future[ContainerRecord]) -> None:
        """The waiter has gone."""
        waiters = self._waiting.get((container_id, condition))
        if waiters:
            waiters.discard(future)
            if not waiters:
                del self._waiting[container_id, condition]

    def announce(self, record: ContainerRecord, condition: str) -> None:
        for future in self._waiting.pop((record.id, condition), set()):
            if not future.done():
                future.set_result(record)

    # --- create
    async def create(self, request: CreateRequest, name: str, image: Image, networks: Networks, mounter: Mounting,
                     logs: LogSetup) -> tuple[ContainerRecord, list[str]]:  # fmt: skip
        """Store a new container, its volumes made. Returns it and warnings. Raises Invalid, UnsupportedOption, NameInUse, NoCommand."""
        host = request.host_config or HostConfig()
        container_id = names.new_id()
        chosen = names.check_name(name) if name else names.random_name(self._taken)
        if chosen in self._taken:
            raise NameInUse(name=chosen, id=self._taken[chosen])
        options.check_config(request)
        options.check_host_config(host)
        modes.check_together(request, host)
        mounts.check(host)
        host = self._with_ids(host)
        host = msgspec.structs.replace(host, log_config=logs.complete(host.log_config))
        endpoint_settings.check_network_mode(request, host)
        endpoints = [] if request.network_disabled else endpoint_settings.places(request, host, networks.known)
        host = msgspec.structs.replace(host, links=links.stored(links.kept(host, endpoints), chosen, self.find))
        host, warnings = self._admission.admit(host)
        warnings = [*warnings, *endpoint_settings.warnings(request, host), *mounts.warnings(host)]
        config = _merge(request, image.config.run, container_id, host)
        record = ContainerRecord(
            id=container_id, name=chosen, created=rfc3339_nano(now_ns()), image=image.id,
            diff_ids=list(image.config.rootfs.diff_ids), config=config, host_config=_complete(host),
            endpoints=endpoints,
        )  # fmt: skip
        if not record.argv:
            raise NoCommand
        self._creating[chosen] = container_id
        try:
            record = await self._make(record, mounter)
        finally:
            del self._creating[chosen]
        self.emit("create", record)
        return record, [*warnings, *mounting.warnings(record.mounts)]

    async def _make(self, record: ContainerRecord, mounter: Mounting) -> ContainerRecord:
        """Volumes, writable layer, row; nothing of them stays if one fails."""
        made = await mounter.make(record.id, record.host_config, record.config.volumes or {}, record.diff_ids)
        try:
            size = options.layer_size(record.host_config)
            if size:
                await asyncio.to_thread(self._snapshots.create, record.id, size)  # a file system is made
            else:
                self._snapshots.create(record.id)  # four folders: quicker than a thread is told
            record = self.save(msgspec.structs.replace(record, mounts=made))
        except BaseException:
            await asyncio.to_thread(self._snapshots.remove, record.id)
            await mounter.drop(record.id, made)
            raise
        mounter.keep(record.id, made)
        return record

    def unlink(self, name: str) -> None:
        """Forget the legacy link `CONTAINER/ALIAS`; its neighbour's address goes with the next start. Raises NoSuchContainer, NoLinkOfThatName."""
        owner, slash, alias = name.strip("/").partition("/")
        record = self.find(owner)
        if not slash:
            raise NoLinkOfThatName
        left = [text for text in record.host_config.links or () if not text.endswith(f":/{record.name}/{alias}")]
        if len(left) == len(record.host_config.links or ()):
            raise NoSuchContainer(name=name)
        self.save(msgspec.structs.replace(record, host_config=msgspec.structs.replace(record.host_config, links=left or None)))

    def _with_ids(self, host: HostConfig) -> HostConfig:
        """`container:NAME` by its id, which a rename does not change. Raises Invalid where nothing has that name."""
        changes: dict[str, str] = {}
        for field in ("pid_mode", "ipc_mode", "network_mode"):
            kind, _, other = getattr(host, field).partition(":")
            if kind != "container" or not other:
                continue
            try:
                changes[field] = f"container:{self.find(other).id}"
            except CortenError as error:
                if field != "network_mode":  # which the start will miss
                    raise Invalid(error.message) from None
        return msgspec.structs.replace(host, **changes)

    def rename(self, record: ContainerRecord, name: str) -> None:
        """Raises InvalidName, NameInUse, RenameToSame."""
        if not name:
            raise Invalid("Neither old nor new names may be empty")
        new = names.check_name(name)
        if new == record.name:
            raise RenameToSame
        states.check("rename", record)
        if new in self._taken:
            taken = NameInUse(name=new, id=self._taken[new])
            taken.message = f"Error when allocating new name: {taken.message}"
            raise taken
        old = record.name
        renamed = self.save(msgspec.structs.replace(record, name=new))
        self.emit("rename", renamed, oldName=f"/{old}")


def replace_state(record: ContainerRecord, **changes: object) -> ContainerRecord:
    return msgspec.structs.replace(record, state=msgspec.structs.replace(record.state, **changes))


def _either(first: _T, second: _T) -> _T:
    return first or second


def _clean(path: str) -> str:
    return os.path.normpath(path).replace("//", "/") if path else ""


def _merge(request: CreateRequest, image: RunConfig, container_id: str, host: HostConfig) -> Config:
    """The request over the image's defaults (moby runconfig.Merge): an entrypoint of its own drops the image's command."""
    entrypoint, cmd = request.entrypoint, request.cmd
    if not entrypoint:
        if not cmd:
            cmd = image.cmd
        if entrypoint is None:
            entrypoint = image.entrypoint
    own = {entry.partition("=")[0] for entry in request.env or []}
    env = [entry for entry in image.env or [] if entry.partition("=")[0] not in own]
    shares_name = host.uts_mode == "host" or host.network_mode == "host"
    hostname = request.hostname or (os.uname().nodename if shares_name else container_id[:_SHORT])
    fields = {name: getattr(request, name) for name in Config.__struct_fields__}
    fields |= {
        "hostname": hostname,
        "entrypoint": [entrypoint] if isinstance(entrypoint, str) else entrypoint or None,
        "cmd": [cmd] if isinstance(cmd, str) else cmd,
        "env": [*(request.env or []), *env],
        "user": _either(request.user, image.user),
        "working_dir": _clean(_either(request.working_dir, image.working_dir)),
        "stop_signal": _either(request.stop_signal, image.stop_signal),
        "stop_timeout": request.stop_timeout if request.stop_timeout is not None else image.stop_timeout,
        "healthcheck": health.merged(request.healthcheck, image.healthcheck),
        "labels": {**(image.labels or {}), **(request.labels or {})},
        "exposed_ports": {**(image.exposed_ports or {}), **(request.exposed_ports or {}),
                          **{port: {} for port in host.port_bindings or {}}} or None,
        "shell": _either(request.shell, image.shell),
        "volumes": {**(image.volumes or {}), **(request.volumes or {})} or None,
        "on_build": request.on_build,
    }  # fmt: skip
    return Config(**fields)


def _unlabelled(asked: list[str] | None) -> list[str]:
    """Docker writes down that such a container has no SELinux label, wherever it runs."""
    own = any(option.partition("=")[0] == "label" for option in asked or [])
    return list(asked or []) if own else [*(asked or []), "label=disable"]


def _complete(host: HostConfig) -> HostConfig:
    """What Docker fills in at creation, so that inspect shows what holds."""
    changes: dict[str, object] = {}
    if host.network_mode in ("", "default"):
        changes["network_mode"] = "bridge"
    if len(host.console_size) != 2:
        changes["console_size"] = [*host.console_size, 0, 0][:2]
    if host.ipc_mode == "host" or host.pid_mode == "host" or host.privileged:
        changes["security_opt"] = _unlabelled(host.security_opt)
    if not host.shm_size:
        changes["shm_size"] = 64 << 20
    if not host.ipc_mode:
        changes["ipc_mode"] = "private"
    if not host.restart_policy.name:
        changes["restart_policy"] = msgspec.structs.replace(host.restart_policy, name="no")
    if host.memory and not host.memory_swap:
        changes["memory_swap"] = host.memory * 2
    return msgspec.structs.replace(host, **changes)
