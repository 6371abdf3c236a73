"""What a start needs on disk before there is a process: the bundle, the network files; and the message for the monitor."""

from __future__ import annotations

import os
import platform
import stat
from contextlib import suppress

import msgspec

from corten.engine import bundle, confinement, links, states
from corten.engine.containers import Containers
from corten.engine.groups import Groups
from corten.engine.log_setup import LogSetup
from corten.engine.network_files import NetworkFiles
from corten.engine.records import ContainerRecord
from corten.engine.runtimes import Runtimes
from corten.errors import Invalid
from corten.linux import capabilities
from corten.runtime import messages
from corten.spec.engine import HostConfig
from corten.spec.runtime import Mount
from corten.store.layout import Layout
from corten.store.snapshots import Snapshots


class Preparing:
    def __init__(self, containers: Containers, snapshots: Snapshots, layout: Layout, groups: Groups, logs: LogSetup,
                 network_files: NetworkFiles, init_program: str, runtimes: Runtimes) -> None:  # fmt: skip
        self._containers, self._snapshots, self._layout, self._logs = containers, snapshots, layout, logs
        self._groups, self._network_files, self._init_program, self._runtimes = groups, network_files, init_program, runtimes
        self._capabilities = tuple(capabilities.names_of(capabilities.bounding_set()))

    def write_bundle(self, record: ContainerRecord, mounts: list[Mount]) -> None:
        """Raises Invalid for what only the host can judge (devices, other containers' namespaces)."""
        folder = self._layout.container(record.id)
        paths = self._network_files.write(record)
        mode = record.host_config.network_mode
        config = bundle.make_config(
            record,
            bundle.HostFacts(platform.machine(), self._capabilities, self._groups.unified, _devices(record.host_config),
                             confinement.profile(record.host_config)),
            bundle.Surroundings(
                rootfs="rootfs", files=paths, hostname=record.config.hostname, namespace_of=self._namespace_of,
                init_program=self._init_program, cgroup_parent=self._groups.parent,
                unshare_network=mode != "host" and not mode.startswith("container:"), mounts=mounts, link_env=self._link_env(record),
            ),
        )  # fmt: skip
        with open(f"{folder}/config.json", "wb") as file:
            file.write(msgspec.json.encode(config))

    def _link_env(self, record: ContainerRecord) -> list[str]:
        if not record.host_config.links:
            return []
        return [entry for link, other in links.resolve(record, self._containers.find) for entry in links.environment(link, other)]

    def _namespace_of(self, mode: str, kind: str) -> str:
        return f"/proc/{self._running(mode).state.pid}/ns/{kind}"

    def _running(self, mode: str) -> ContainerRecord:
        other = self._containers.find(mode.partition(":")[2])
        if not states.is_running(other):
            raise Invalid(f"cannot join the namespace of container {other.id}: it is not running; start it first")
        return other

    async def create_message(self, record: ContainerRecord, run_dir: str) -> messages.Create:
        """Raises LogDriverFailed."""
        return messages.Create(
            0, record.id, self._layout.container(record.id), run_dir, self._snapshots.mounts(record.id, record.diff_ids),
            await self._logs.settings(record), record.config.open_stdin, record.config.stdin_once,
            self._runtimes.command(record.host_config.runtime),
        )  # fmt: skip


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

