"""Start, stop, kill, pause, exit, removal: each legal step by states.py, one at a time per container.

Joins the store's mounts, the network's endpoint, the bundle and the launcher; every step that fails undoes what it did.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from corten.engine import bundle, options, states
from corten.engine.containers import Containers
from corten.engine.networks import Networks
from corten.engine.records import ContainerRecord, EndpointRecord
from corten.errors import (
    CannotKill,
    CommandNotStarted,
    CortenError,
    Invalid,
    InvalidSignal,
    KernelRefused,
    NoSuchContainer,
    NotModified,
    NotPaused,
    SurvivesKill,
    UnknownUserName,
)
from corten.linux import capabilities
from corten.linux.cgroup import Layout as CgroupLayout
from corten.linux.cgroup import host_layout, open_cgroup, remove_if_empty
from corten.network import files
from corten.runtime import messages
from corten.runtime.launch import Launch
from corten.runtime.monitor import read_exit_record
from corten.spec.engine import HostConfig
from corten.spec.signals import parse_signal
from corten.spec.timestamps import ZERO, now_ns, parse_rfc3339, rfc3339_nano
from corten.store.layout import Layout
from corten.store.snapshots import Snapshots

DEFAULT_STOP_TIMEOUT = 10
_log = logging.getLogger("corten.engine")
_LOST_EXIT_CODE = 255
_KILL_ATTEMPTS, _KILL_PAUSE = 20, 0.5


@dataclass(frozen=True)
class PendingAttach:
    """A client that attached before the start: its connection is handed over when there is somebody to hand it to."""

    fd: int
    streams: messages.Streams
    detach_keys: bytes
    pending: bytes


class Lifecycle:
    def __init__(self, containers: Containers, snapshots: Snapshots, networks: Networks, layout: Layout, launch: Launch,
                 cgroup_parent: str, init_program: str) -> None:  # fmt: skip
        self._containers, self._snapshots, self._networks = containers, snapshots, networks
        self._layout, self._launch = layout, launch
        self._cgroup_parent, self._init_program = cgroup_parent, init_program
        self.cgroups: CgroupLayout = host_layout()
        self._capabilities = tuple(capabilities.names_of(capabilities.bounding_set()))
        self._pending: dict[str, list[PendingAttach]] = {}
        self._background: set[asyncio.Task[None]] = set()

    # --- start
    async def start(self, record: ContainerRecord) -> None:
        """Raises NotModified if it runs, CommandNotStarted if its program cannot be executed."""
        async with self._containers.lock(record.id):
            record = self._containers.find(record.id)
            states.check("start", record)
            try:
                await self._start(record)
            except CortenError as error:
                raise self._start_failed(record, error) from None
            except OSError as error:
                refused = KernelRefused(operation="start", operand=str(error.filename or record.name), errno=error.errno or 0, reason=error.strerror or str(error))
                raise self._start_failed(record, refused) from None

    async def _start(self, record: ContainerRecord) -> None:
        lease = self._networks.lease(record)
        run_dir = self._layout.run(record.id)
        try:
            self._write_bundle(record, lease)
            shutil.rmtree(run_dir, ignore_errors=True)
            os.mkdir(run_dir, 0o700)
            created = await self._launch.create(self._create_message(record, run_dir))
            for warning in created.warnings:
                _log.warning("container %s: %s", record.name, warning)
            try:
                namespace = f"/proc/{created.pid}/ns/net"
                if lease:
                    self._networks.attach(record, lease, namespace)
                elif record.host_config.network_mode == "none":
                    self._networks.set_loopback_up(namespace)
                await self._hand_over(record)
                started_at = rfc3339_nano(now_ns())
                await self._launch.call(messages.Start(0, record.id))
            except BaseException:
                with suppress(KernelRefused):  # its monitor has undone it already, or has gone
                    await self._launch.call(messages.Discard(0, record.id))
                raise
        except BaseException:
            self._launch.forget(record.id)
            self._networks.give_back(record.id, lease)
            shutil.rmtree(run_dir, ignore_errors=True)
            raise
        current = self._containers.find(record.id)
        state = replace_state(current, status="running", pid=created.pid, exit_code=0, error="", oom_killed=False,
                              started_at=started_at, finished_at=ZERO)  # fmt: skip
        record = self._containers.save(msgspec.structs.replace(state, endpoint=lease))
        self._networks.settled(record.id)
        self._containers.emit("start", record)

    def _start_failed(self, record: ContainerRecord, error: CortenError) -> CortenError:
        if isinstance(error, KernelRefused) and error.operation == "look up user":
            error = UnknownUserName(error.reason)
        code = error.program_exit_code if isinstance(error, CommandNotStarted) else 128
        self._drop_pending(record.id)
        record = self._containers.save_state(record.id, exit_code=code, error=error.message)
        self._containers.announce(record, "exit")
        if record.host_config.auto_remove:
            self._remove_now(record)
        return error

    def _write_bundle(self, record: ContainerRecord, lease: EndpointRecord | None) -> None:
        folder = self._layout.container(record.id)
        hostname = record.config.hostname or os.uname().nodename
        paths = self._network_files(record, lease, folder, hostname)
        mode = record.host_config.network_mode
        config = bundle.make_config(
            record,
            bundle.HostFacts(platform.machine(), self._capabilities, self.cgroups.unified, _devices(record.host_config)),
            bundle.Surroundings(
                rootfs="rootfs", files=paths, hostname=record.config.hostname, namespace_of=self._namespace_of,
                init_program=self._init_program, cgroup_parent=self._cgroup_parent,
                unshare_network=mode != "host" and not mode.startswith("container:"),
            ),
        )  # fmt: skip
        with open(f"{folder}/config.json", "wb") as file:
            file.write(msgspec.json.encode(config))
        wanted = [options.parse_bind(text).source for text in record.host_config.binds or []]
        wanted += [mount.source for mount in record.host_config.mounts or [] if mount.bind_options and mount.bind_options.create_mountpoint]
        for source in wanted:
            if not os.path.exists(source):
                os.makedirs(source, exist_ok=True)  # Docker: -v makes a missing folder, --mount only when told to

    def _network_files(self, record: ContainerRecord, lease: EndpointRecord | None, folder: str, hostname: str) -> dict[str, str]:
        """Write hosts, hostname and resolv.conf; with another container's network, use its files."""
        settings = record.host_config
        if settings.network_mode.startswith("container:"):
            other = self._layout.container(self._running(settings.network_mode).id)
            return {f"/etc/{name}": f"{other}/{name}" for name in ("resolv.conf", "hostname", "hosts")}
        address = lease.address.partition("/")[0] if lease else ""
        extra = [_extra_host(text, lease) for text in settings.extra_hosts or []]
        with open("/etc/resolv.conf", encoding="utf-8") as file:
            host_resolver = file.read()
        texts = {
            "resolv.conf": files.resolv_conf(
                host_resolver, settings.dns or [], settings.dns_search or [], settings.dns_options or [],
                keep_loopback=settings.network_mode == "host",
            ),
            "hostname": f"{hostname}\n",
            "hosts": files.hosts(hostname, record.config.domainname, address, extra),
        }  # fmt: skip
        for name, text in texts.items():
            with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
                file.write(text)
        return {f"/etc/{name}": f"{folder}/{name}" for name in texts}

    def _namespace_of(self, mode: str, kind: str) -> str:
        return f"/proc/{self._running(mode).state.pid}/ns/{kind}"

    def _running(self, mode: str) -> ContainerRecord:
        other = self._containers.find(mode.partition(":")[2])
        if not states.is_running(other):
            raise Invalid(f"cannot join the namespace of container {other.id}: it is not running; start it first")
        return other

    def _create_message(self, record: ContainerRecord, run_dir: str) -> messages.Create:
        size, count = options.log_limits(record.host_config)
        path = "" if record.host_config.log_config.type == "none" else self._layout.log(record.id)
        return messages.Create(
            0, record.id, self._layout.container(record.id), run_dir, self._snapshots.mounts(record.id, record.diff_ids),
            messages.LogSettings(path, size, count), record.config.open_stdin, record.config.stdin_once,
        )  # fmt: skip

    # --- attached clients
    async def attach(self, record: ContainerRecord, client: PendingAttach) -> None:
        """Hand a client's connection over, now or at the start. The descriptor is ours from here on."""
        async with self._containers.lock(record.id):  # a start under way has taken its clients already
            current = self._containers.current(record.id)
            if current is None:
                os.close(client.fd)
                raise NoSuchContainer(name=record.name)
            self._pending.setdefault(record.id, []).append(client)
            if states.is_running(current):
                await self._hand_over(current)
        self._containers.emit("attach", current)

    async def _hand_over(self, record: ContainerRecord) -> None:
        for client in self._pending.pop(record.id, []):
            try:
                await self._launch.call(
                    messages.Attach(0, record.id, client.streams, client.detach_keys, client.pending), (client.fd,)
                )
            finally:
                os.close(client.fd)

    def _drop_pending(self, container_id: str) -> None:
        for client in self._pending.pop(container_id, []):
            os.close(client.fd)

    async def resize(self, record: ContainerRecord, height: int, width: int) -> None:
        states.check("resize", record)
        await self._launch.call(messages.Resize(0, record.id, "", height, width))
        self._containers.emit("resize", record, height=str(height), width=str(width))

    # --- stop
    async def signal(self, record: ContainerRecord, name: str, *, called: str = "") -> None:
        """Raises InvalidSignal, CannotKill (with Docker's prefix)."""
        called = called or record.name
        try:
            number = parse_signal(name or "SIGKILL")
        except InvalidSignal as error:
            raise Invalid(f"cannot kill container: {called}: {error.message}") from None
        states.check("kill", record, called)
        try:
            await self._send_signal(record, number)
        except KernelRefused:
            raise CannotKill(name=called, id=record.id) from None
        self._containers.emit("kill", record, signal=str(number))

    async def _send_signal(self, record: ContainerRecord, number: int) -> None:
        if number == 9 and record.state.status == "paused":
            await self._launch.call(messages.Freeze(0, record.id, frozen=False))
        await self._launch.call(messages.Signal(0, record.id, number))

    async def stop(self, record: ContainerRecord, signal_name: str, timeout: int | None) -> None:
        """Ask, wait, kill. Raises NotModified if it does not run."""
        states.check("stop", record)
        number = parse_signal(signal_name or record.config.stop_signal or "SIGTERM")
        patience = timeout if timeout is not None else record.config.stop_timeout
        patience = DEFAULT_STOP_TIMEOUT if patience is None else patience
        ended = self._containers.register(record.id, "exit")
        try:
            if record.state.status == "paused":
                with suppress(NotPaused):  # somebody else was quicker
                    await self.unpause(record)
            with suppress(KernelRefused):  # it has just ended by itself: then the wait below returns at once
                await self._send_signal(record, number)
            self._containers.emit("kill", record, signal=str(number))
            try:
                await asyncio.wait_for(asyncio.shield(ended), None if patience < 0 else patience)
            except TimeoutError:
                self._containers.emit("kill", record, signal="9")
                await self._kill(record.id, ended)
        finally:
            self._containers.cancel(record.id, "exit", ended)
        current = self._containers.current(record.id)
        if current:
            self._containers.emit("stop", current)

    async def _kill(self, container_id: str, ended: asyncio.Future[ContainerRecord]) -> None:
        """SIGKILL until it has ended: one that is paused meanwhile would never act on it. Raises SurvivesKill."""
        for _ in range(_KILL_ATTEMPTS):
            record = self._containers.current(container_id)
            if record is None or ended.done():
                return
            with suppress(KernelRefused):  # it has just ended by itself
                await self._send_signal(record, 9)
            await asyncio.wait((ended,), timeout=_KILL_PAUSE)
        if not ended.done():
            raise SurvivesKill

    async def restart(self, record: ContainerRecord, signal_name: str, timeout: int | None) -> None:
        with suppress(NotModified):
            await self.stop(record, signal_name, timeout)
        with suppress(NotModified):  # somebody else has started it in between
            await self.start(record)
        self._containers.emit("restart", self._containers.find(record.id))

    async def pause(self, record: ContainerRecord) -> None:
        await self._freeze(record, "pause", frozen=True)

    async def unpause(self, record: ContainerRecord) -> None:
        await self._freeze(record, "unpause", frozen=False)

    async def _freeze(self, record: ContainerRecord, action: str, *, frozen: bool) -> None:
        async with self._containers.lock(record.id):
            record = self._containers.find(record.id)
            states.check(action, record)
            await self._launch.call(messages.Freeze(0, record.id, frozen=frozen))
            record = self._containers.save_state(record.id, status="paused" if frozen else "running")
            self._containers.emit(action, record)

    # --- exit
    def on_exit(self, notice: messages.Exited) -> None:
        """A monitor's notice; also what an earlier daemon missed."""
        task = asyncio.ensure_future(self._exited(notice))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _exited(self, notice: messages.Exited) -> None:
        async with self._containers.lock(notice.container):
            record = self._containers.current(notice.container)
            if record is None or not states.is_running(record):
                return  # a start that failed halfway has told its client already
            lease = record.endpoint
            ended = replace_state(record, status="exited", pid=0, exit_code=notice.exit_code, oom_killed=notice.oom_killed,
                                  finished_at=rfc3339_nano(notice.finished))  # fmt: skip
            record = self._containers.save(msgspec.structs.replace(ended, endpoint=None))
            self._networks.release(record, lease)
            shutil.rmtree(self._layout.run(record.id), ignore_errors=True)
            if notice.oom_killed:
                self._containers.emit("oom", record)
            seconds = (notice.finished - parse_rfc3339(record.state.started_at)) // 1_000_000_000
            self._containers.emit("die", record, exitCode=str(notice.exit_code), execDuration=str(seconds))
            if record.host_config.auto_remove:
                self._remove_now(record)
            self._containers.announce(record, "exit")

    def on_monitor_lost(self, container_ids: list[str]) -> None:
        """Their monitor was killed: what it served is ended too, and said to be."""
        for container_id in container_ids:
            self._lost(container_id)

    def _lost(self, container_id: str) -> None:
        record = self._containers.current(container_id)
        if record is None:
            return
        found = read_exit_record(self._layout.run(container_id))
        if found is None:
            self._sweep_cgroup(record)
        code, oom, finished = (found.exit_code, found.oom_killed, found.finished) if found else (_LOST_EXIT_CODE, False, now_ns())
        self.on_exit(messages.Exited(container_id, "", code, oom, finished))

    def _sweep_cgroup(self, record: ContainerRecord) -> None:
        group = open_cgroup(f"{record.host_config.cgroup_parent or self._cgroup_parent}/{record.id}", self.cgroups)
        with suppress(OSError):
            group.kill()
            group.remove()

    async def restore(self) -> None:
        """Start-up: adopt what still runs, finish what ended while no engine was there, complete removals."""
        adopted = {running.container: running for running in await self._launch.adopt()}
        for record in self._containers.all():
            running = adopted.pop(record.id, None)
            if record.state.status == "removing":
                self._remove_now(record)
            elif running and running.started:
                if not states.is_running(record):  # the engine died between the start and its row
                    self._containers.save_state(record.id, status="running", pid=running.pid, started_at=rfc3339_nano(now_ns()))
            elif running:  # set up and never started: its engine died in between
                adopted[record.id] = running
            elif states.is_running(record):
                self._lost(record.id)
        for left in adopted.values():
            await self._launch.call(messages.Discard(0, left.container))
        for container_id in self._snapshots.sweep({record.id for record in self._containers.all()}):
            _log.info("removed what was left of container %s, whose creation a crash cut short", container_id)
        self._networks.restore()

    async def settle(self) -> None:
        """Wait for exits that are being dealt with."""
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)

    def tear_down_if_idle(self) -> None:
        """An engine that ends with nothing running leaves no bridge, rule or cgroup behind; the next one makes them again."""
        if not any(states.is_running(record) for record in self._containers.all()):
            self._networks.tear_down()
            remove_if_empty(self._cgroup_parent, self.cgroups)

    # --- removal
    async def remove(self, record: ContainerRecord, *, force: bool, called: str) -> None:
        """Raises RemoveRunning unless forced."""
        if force and states.is_running(record):
            ended = self._containers.register(record.id, "exit")
            self._containers.emit("kill", record, signal="9")
            try:
                await self._kill(record.id, ended)
            finally:
                self._containers.cancel(record.id, "exit", ended)
        async with self._containers.lock(record.id):
            current = self._containers.current(record.id)
            if current is None:
                return  # its own auto-removal was quicker
            states.check("remove", current, called)
            self._remove_now(current)

    def _remove_now(self, record: ContainerRecord) -> None:
        record = self._containers.save_state(record.id, status="removing")
        self._drop_pending(record.id)
        self._snapshots.remove(record.id)
        shutil.rmtree(self._layout.run(record.id), ignore_errors=True)
        self._containers.delete(record)
        self._containers.emit("destroy", record)
        self._containers.announce(record, "removed")


def replace_state(record: ContainerRecord, **changes: object) -> ContainerRecord:
    return msgspec.structs.replace(record, state=msgspec.structs.replace(record.state, **changes))


def _extra_host(text: str, lease: EndpointRecord | None) -> tuple[str, str]:
    name, _, address = text.replace("=", ":", 1).partition(":")
    if not name or not address:
        raise Invalid(f'invalid IP address in add-host: "{address}"')
    if address == "host-gateway":
        address = lease.gateway if lease else "127.0.0.1"
    return name, address


def _devices(settings: HostConfig) -> dict[str, os.stat_result]:
    """Status of every device that the request names; with `privileged`, of all devices of the host."""
    wanted = [device.path_on_host for device in settings.devices or []]
    for listed in (settings.blkio_weight_device, settings.blkio_device_read_bps, settings.blkio_device_write_bps,
                   settings.blkio_device_read_iops, settings.blkio_device_write_iops):  # fmt: skip
        wanted += [device.path for device in listed or []]
    found: dict[str, os.stat_result] = {}
    for path in wanted:
        try:
            found[path] = os.stat(path)
        except OSError as error:
            raise Invalid(f'error gathering device information while adding custom device "{path}": {(error.strerror or "").lower()}') from None
        if not (stat.S_ISCHR(found[path].st_mode) or stat.S_ISBLK(found[path].st_mode)):
            raise Invalid(f'error gathering device information while adding custom device "{path}": not a device node')
    if settings.privileged:
        found |= _host_devices()
    return found


_NOT_SHARED = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/console", "/dev/.udev")


def _host_devices() -> dict[str, os.stat_result]:
    found: dict[str, os.stat_result] = {}
    for folder, folders, names in os.walk("/dev"):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in _NOT_SHARED]
        for name in names:
            path = os.path.join(folder, name)
            with suppress(OSError):
                status = os.lstat(path)
                if path not in _NOT_SHARED and (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
                    found[path] = status
    return found

