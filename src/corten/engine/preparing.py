"""What a start needs on disk before there is a process: the bundle, the network files; and the message for the monitor."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import msgspec

from corten.engine import bundle, cdi, confinement, devices, links
from corten.engine.containers import Containers
from corten.engine.groups import Groups
from corten.engine.joining import donor
from corten.engine.log_setup import LogSetup
from corten.engine.network_files import NetworkFiles
from corten.engine.records import ContainerRecord
from corten.engine.runtimes import Runtimes
from corten.linux import capabilities
from corten.runtime import messages
from corten.spec.runtime import Mount, RuntimeConfig
from corten.store.layout import Layout
from corten.store.snapshots import Snapshots


class Preparing:
    def __init__(self, containers: Containers, snapshots: Snapshots, layout: Layout, groups: Groups, logs: LogSetup,
                 network_files: NetworkFiles, init_program: str, runtimes: Runtimes, cdi_folders: Sequence[str]) -> None:  # fmt: skip
        self._containers, self._snapshots, self._layout, self._logs = containers, snapshots, layout, logs
        self._groups, self._network_files, self._init_program, self._runtimes = groups, network_files, init_program, runtimes
        self._cdi_folders = cdi_folders
        self._capabilities = tuple(capabilities.names_of(capabilities.bounding_set()))

    def write_bundle(self, record: ContainerRecord, mounts: list[Mount]) -> RuntimeConfig:
        """Raises Invalid for what only the host can judge (devices, other containers' namespaces)."""
        folder = self._layout.container(record.id)
        paths = self._network_files.write(record)
        mode = record.host_config.network_mode
        config = bundle.make_config(
            record,
            bundle.HostFacts(platform.machine(), platform.release(), self._capabilities, self._groups.unified, devices.look(record.host_config),
                             confinement.profile(record.host_config)),
            bundle.Surroundings(
                rootfs="rootfs", files=paths, hostname=record.config.hostname, namespace_of=self.namespace_of,
                init_program=self._init_program, cgroup_parent=self._groups.parent,
                unshare_network=mode != "host" and not mode.startswith("container:"), mounts=mounts, link_env=self._link_env(record),
            ),
        )  # fmt: skip
        if record.host_config.device_requests:
            found = cdi.look(self._cdi_folders)
            config = cdi.inject(config, cdi.wanted(record.host_config.device_requests, found), found)
        with open(f"{folder}/config.json", "wb") as file:
            file.write(msgspec.json.encode(config))
        return config

    def _link_env(self, record: ContainerRecord) -> list[str]:
        if not record.host_config.links:
            return []
        return [entry for link, other in links.resolve(record, self._containers.find) for entry in links.environment(link, other)]

    def namespace_of(self, mode: str, kind: str) -> str:
        """Of `container:ID`: the path of that container's namespace. Raises CannotJoin."""
        return f"/proc/{donor(self._containers, mode, kind).state.pid}/ns/{kind}"

    async def create_message(self, record: ContainerRecord, run_dir: str, config: RuntimeConfig) -> messages.Create:
        """Raises LogDriverFailed."""
        asked = record.host_config.sysctls or {}
        at_once = not any(name.startswith("net.") for name in asked)  # a link takes over what these say when it is made
        return messages.Create(
            0, record.id, self._layout.container(record.id), run_dir, self._snapshots.mounts(record.id, record.diff_ids),
            await self._logs.settings(record), record.config.open_stdin, record.config.stdin_once,
            self._runtimes.command(record.host_config.runtime, hooks=config.hooks is not None), tell_pid=at_once,
        )  # fmt: skip
