"""What a start needs on disk before there is a process: the bundle, the network files; and the message for the monitor."""

from __future__ import annotations

import os
import platform
import stat
from contextlib import suppress

import msgspec

from corten.engine import bundle, states
from corten.engine.containers import Containers
from corten.engine.groups import Groups
from corten.engine.log_setup import LogSetup
from corten.engine.records import ContainerRecord, EndpointRecord
from corten.engine.runtimes import Runtimes
from corten.errors import Invalid
from corten.linux import capabilities
from corten.network import files
from corten.runtime import messages
from corten.spec.engine import HostConfig
from corten.spec.runtime import Mount
from corten.store.layout import Layout
from corten.store.snapshots import Snapshots


class Preparing:
    def __init__(self, containers: Containers, snapshots: Snapshots, layout: Layout, groups: Groups, logs: LogSetup,
                 init_program: str, runtimes: Runtimes) -> None:  # fmt: skip
        self._containers, self._snapshots, self._layout, self._logs = containers, snapshots, layout, logs
        self._groups, self._init_program, self._runtimes = groups, init_program, runtimes
        self._capabilities = tuple(capabilities.names_of(capabilities.bounding_set()))

    def write_bundle(self, record: ContainerRecord, mounts: list[Mount]) -> None:
        """Raises Invalid for what only the host can judge (devices, other containers' namespaces)."""
        folder = self._layout.container(record.id)
        hostname = record.config.hostname or os.uname().nodename
        paths = self._network_files(record, folder, hostname)
        mode = record.host_config.network_mode
        config = bundle.make_config(
            record,
            bundle.HostFacts(platform.machine(), self._capabilities, self._groups.unified, _devices(record.host_config)),
            bundle.Surroundings(
                rootfs="rootfs", files=paths, hostname=record.config.hostname, namespace_of=self._namespace_of,
                init_program=self._init_program, cgroup_parent=self._groups.parent,
                unshare_network=mode != "host" and not mode.startswith("container:"), mounts=mounts,
            ),
        )  # fmt: skip
        with open(f"{folder}/config.json", "wb") as file:
            file.write(msgspec.json.encode(config))

    def _network_files(self, record: ContainerRecord, folder: str, hostname: str) -> dict[str, str]:
        """Write hosts, hostname and resolv.conf; with another container's network, use its files."""
        settings = record.host_config
        if settings.network_mode.startswith("container:"):
            other = self._layout.container(self._running(settings.network_mode).id)
            return {f"/etc/{name}": f"{other}/{name}" for name in ("resolv.conf", "hostname", "hosts")}
        address = record.gateway.ip if record.gateway else ""
        extra = [_extra_host(text, record.gateway) for text in settings.extra_hosts or []]
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

    async def create_message(self, record: ContainerRecord, run_dir: str) -> messages.Create:
        """Raises LogDriverFailed."""
        return messages.Create(
            0, record.id, self._layout.container(record.id), run_dir, self._snapshots.mounts(record.id, record.diff_ids),
            await self._logs.settings(record), record.config.open_stdin, record.config.stdin_once,
            self._runtimes.command(record.host_config.runtime),
        )  # fmt: skip


def _extra_host(text: str, gateway: EndpointRecord | None) -> tuple[str, str]:
    name, _, address = text.replace("=", ":", 1).partition(":")
    if not name or not address:
        raise Invalid(f'invalid IP address in add-host: "{address}"')
    if address == "host-gateway":
        address = gateway.gateway if gateway else "127.0.0.1"
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

