"""What a RUN step of a build has around it, as an ordinary container would: a place on a network, its files, its config.

The record of a step is made for the occasion and never stored: no list shows it, no restart brings it back. What
builder.hosting.StepHost asks for, joined to it in the composition root.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from corten.engine import bundle, cdi, confinement, devices, resources
from corten.engine.endpoints import Endpoints
from corten.engine.groups import Groups
from corten.engine.network_files import NetworkFiles
from corten.engine.networks import Networks
from corten.engine.records import ContainerRecord, EndpointRecord
from corten.linux import capabilities
from corten.spec.engine import Config, HostConfig
from corten.spec.runtime import Mount, RuntimeConfig


class BuildSteps:
    """`namespace_of`: ("container:ID", "net") -> the path of its namespace. `cdi_folders` are where devices are described."""

    def __init__(self, endpoints: Endpoints, networks: Networks, files: NetworkFiles, groups: Groups,
                 namespace_of: Callable[[str, str], str], cdi_folders: Sequence[str]) -> None:  # fmt: skip
        self._endpoints, self._networks, self._files, self._groups = endpoints, networks, files, groups
        self._namespace_of, self._cdi_folders = namespace_of, cdi_folders
        self._capabilities = tuple(capabilities.names_of(capabilities.bounding_set()))

    def prepare(self, step_id: str, config: Config, settings: HostConfig, rootfs: str, mounts: Sequence[Mount],
                wanted: Sequence[tuple[str, bool]]) -> RuntimeConfig:  # fmt: skip
        """`wanted` are CDI devices, and whether they are required. Lease the step's place on its network, write its network files, and make its config. Raises Docker's errors."""
        resources.check_resources(settings)
        settings, _ = resources.fit(settings, self._groups.abilities)
        name = self._networks.name_of_mode(settings.network_mode)
        places = [EndpointRecord(self._networks.find(name).name)] if name else []
        record = ContainerRecord(step_id, f"build-{step_id[:12]}", "", "", [], config, settings, places)
        record = self._endpoints.lease_guest(record)
        made = bundle.make_config(
            record,
            bundle.HostFacts(platform.machine(), platform.release(), self._capabilities, self._groups.unified, devices.look(settings),
                             confinement.profile(settings)),
            bundle.Surroundings(
                rootfs=rootfs, files=self._files.write(record), hostname=config.hostname or os.uname().nodename, namespace_of=self._namespace_of,
                init_program="", cgroup_parent=self._groups.parent,
                unshare_network=name != "host" and not settings.network_mode.startswith("container:"), mounts=mounts,
            ),
        )  # fmt: skip
        if wanted:
            found = cdi.look(self._cdi_folders)
            names = dict.fromkeys(each for name, required in wanted for each in cdi.of_build(name, found, required=required))
            made = cdi.inject(made, list(names), found)
        return replace(made, process=replace(made.process, env=_without_hostname(made.process.env or []))) if made.process else made

    async def attach(self, step_id: str, namespace: str) -> None:
        await self._endpoints.attach_guest(step_id, namespace)

    def release(self, step_id: str) -> None:
        self._endpoints.release_guest(step_id)


def _without_hostname(env: Sequence[str]) -> list[str]:
    """A container has it, a step of BuildKit's has not, and what a step sees may end up in its layer."""
    return [entry for entry in env if not entry.startswith("HOSTNAME=")]
