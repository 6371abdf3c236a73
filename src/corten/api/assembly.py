"""The composition root: the only place that constructs everything, in the order of what needs what, and takes it down again.

Must not decide anything: which service does what is written in the services.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from corten.api.build_cache import BuildCacheHandlers
from corten.api.build_layouts import BuildLayoutHandlers
from corten.api.building import Building, Parts
from corten.api.container_streams import StreamHandlers
from corten.api.containers import ContainerHandlers
from corten.api.contents import ContentHandlers
from corten.api.disk import DiskHandlers
from corten.api.events import EventHandlers
from corten.api.execs import ExecHandlers
from corten.api.image_files import ImageFileHandlers
from corten.api.images import ImageHandlers
from corten.api.insight import InsightHandlers
from corten.api.lifecycle import LifecycleHandlers
from corten.api.network_insight import NetworkInsightHandlers
from corten.api.networks import NetworkHandlers
from corten.api.routes import Handlers, make_routes
from corten.api.server import Server
from corten.api.settings import Settings
from corten.api.system import SystemHandlers
from corten.api.usage import UsageHandlers
from corten.api.volume_extras import VolumeExtraHandlers
from corten.api.volume_files import VolumeFileHandlers
from corten.api.volumes import VolumeHandlers
from corten.engine.admission import Admission
from corten.engine.attaching import Attaching
from corten.engine.build_images import BuildImages
from corten.engine.build_steps import BuildSteps
from corten.engine.collectables import AnonymousVolumes, RotatedLogs, StoppedContainers
from corten.engine.collecting import Collecting, Known
from corten.engine.connecting import Connecting
from corten.engine.containers import Containers
from corten.engine.copy_up import CopyUp
from corten.engine.copying import Copying
from corten.engine.editing import Editing
from corten.engine.endpoints import Endpoints
from corten.engine.events import Events
from corten.engine.execs import Execs
from corten.engine.exits import Exits
from corten.engine.exposure import Exposure
from corten.engine.firewall import Firewall
from corten.engine.groups import Groups
from corten.engine.image_removal import ImageRemoval
from corten.engine.image_transfers import ImageTransfers
from corten.engine.images import ImageService
from corten.engine.log_setup import LogSetup
from corten.engine.lost_links import LostLinks
from corten.engine.making import Making
from corten.engine.mounting import Mounting
from corten.engine.name_service import NameService
from corten.engine.network_files import NetworkFiles
from corten.engine.network_map import NetworkMap
from corten.engine.networks import Networks
from corten.engine.preparing import Preparing
from corten.engine.probing import Probing
from corten.engine.recovery import Recovery
from corten.engine.removal import Removal
from corten.engine.repairing import Repairing
from corten.engine.restarting import Restarting
from corten.engine.restoring import Restoring
from corten.engine.runtimes import Runtimes
from corten.engine.saving import Saving
from corten.engine.starting import Starting
from corten.engine.stopping import Stopping
from corten.engine.system import System
from corten.engine.taking_over import TakingOver
from corten.engine.teardown import Teardown
from corten.engine.tool_shell import Tools
from corten.engine.tracing import Tracing
from corten.engine.updating import Updating
from corten.engine.usage import DiskUsage
from corten.engine.volume_copies import VolumeCopies
from corten.engine.volume_files import VolumeFiles
from corten.engine.volume_history import VolumeHistory
from corten.engine.volume_local import LocalDriver
from corten.engine.volume_plugins import Plugins
from corten.engine.volume_pruning import VolumePruning
from corten.engine.volume_renaming import Renaming
from corten.engine.volume_transfers import VolumeTransfers
from corten.engine.volumes import Volumes
from corten.network.apply import Kernel
from corten.registry.hosts import RegistryHosts
from corten.registry.refetch import Refetching
from corten.registry.trust import Trust
from corten.runtime import messages
from corten.runtime.launch import Launch, LauncherProcess
from corten.runtime.link import Notice
from corten.runtime.reaper import reaper_program
from corten.spec.engine import LogConfig
from corten.spec.platform import this_platform
from corten.store.blobs import Blobs
from corten.store.checking import Checking
from corten.store.container_logs import ContainerLogs
from corten.store.database import Database
from corten.store.holds import Holds
from corten.store.images import Images
from corten.store.layer_maker import LayerMaker
from corten.store.layers import Layers
from corten.store.layout import Layout
from corten.store.snapshots import Snapshots
from corten.store.sweeping import Sweeping
from corten.store.thinning import Thinning
from corten.store.volumes import VolumeFolders


def _write_program(path: str, program: bytes) -> str:
    """Left alone if it is there: an engine must start on a full disk, too."""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        if file.read() == program:
            return path
    with open(f"{path}.new", "wb") as file:
        file.write(program)
    os.chmod(f"{path}.new", 0o755)
    os.rename(f"{path}.new", path)
    return path


class Engine:
    """Everything of one running engine. Construct inside the event loop, then start()."""

    def __init__(self, settings: Settings, layout: Layout, launcher: LauncherProcess) -> None:
        self._settings, self._events = settings, Events()
        self._database = Database(layout.database)
        self._blobs = blobs = Blobs(layout)
        self._launch = Launch(launcher, settings.exec_root, self._on_notice, self._on_monitor_lost)
        self._layers = Layers(layout, self._database, blobs, self._launch.run_job)
        images = Images(layout, self._database, blobs, self._layers)
        holds = Holds()
        sweeping = self._sweeping = Sweeping(layout, blobs, self._layers, holds)
        self._thinning = Thinning(layout, blobs, self._layers, images, holds, keep=settings.keep_blobs)
        snapshots = Snapshots(layout, self._database)
        groups = Groups(settings.cgroup_parent)
        runtimes = Runtimes(settings.runtimes, settings.default_runtime, f"{settings.exec_root}/runtimes")
        self._containers = Containers(self._database, snapshots, self._events, Admission(groups.abilities, runtimes))
        holds.join(images.holds)
        holds.join(self._containers.holds)
        kernel = Kernel()
        firewall = Firewall(kernel, settings.bridge_name)
        networks = Networks(kernel, self._database, self._events, firewall, settings.network_defaults, self._containers.all)
        network_files = NetworkFiles(self._containers, layout, settings.host_gateway_ips)
        names = NameService(kernel, self._containers, self._launch)
        exposure = Exposure(kernel, networks, firewall)
        self._endpoints = Endpoints(kernel, networks, firewall, self._containers, network_files, names, exposure)
        self._lost_links = LostLinks(kernel.links, self._containers, networks, self._endpoints, exposure)
        connecting = Connecting(kernel, networks, firewall, self._containers, network_files, names, self._endpoints)
        service = ImageService(self._layers, images, self._containers, self._events)
        hosts = RegistryHosts(settings.insecure_registries, settings.mirrors)
        refetching = Refetching(hosts, blobs, self._layers)
        transfers = ImageTransfers(layout, blobs, self._layers, images, service, holds, sweeping, hosts, Trust(settings.corten_trust), refetching)
        folders = VolumeFolders(layout)
        volumes = Volumes(self._database, folders, LocalDriver(layout, folders), Plugins(settings.plugin_dir), self._events, self._containers.all)
        mounting = self._mounting = Mounting(layout, snapshots, volumes, CopyUp(layout, snapshots, self._launch), self._launch, service.find, self._containers.find, self._containers.all)
        reaper = _write_program(f"{layout.root}/docker-init", reaper_program(this_platform().architecture))
        attaching = Attaching(self._containers, self._launch)
        logs = LogSetup(layout, LogConfig(settings.log_driver, dict(settings.log_opts)))
        preparing = Preparing(self._containers, snapshots, layout, groups, logs, network_files, reaper, runtimes, settings.cdi_spec_dirs)
        self._execs = Execs(self._containers, self._launch, groups)
        self._probing = Probing(self._containers, self._execs, lambda record: self._recovery.unhealthy(record))
        stopping = Stopping(self._containers, self._launch, self._probing)
        removal = Removal(self._containers, snapshots, layout, self._events, attaching, stopping, mounting)
        starting = Starting(self._containers, self._endpoints, layout, self._launch, mounting, preparing, attaching, removal,
                            self._probing)  # fmt: skip
        self._restarting = Restarting(self._containers, starting, stopping, removal)
        self._recovery = Recovery(self._containers, self._restarting)
        history = VolumeHistory(self._database, self._containers.all)
        self._exits = Exits(self._containers, self._endpoints, mounting, layout, groups, removal, self._restarting, self._probing,
                            history)  # fmt: skip
        self._taking_over = TakingOver(self._containers, self._launch, layout, groups, logs, runtimes, self._endpoints, self._execs,
                                       self._exits)  # fmt: skip
        self._restoring = Restoring(self._containers, snapshots, self._endpoints, self._launch, groups, mounting, removal, self._exits,
                                    self._taking_over, self._restarting, self._probing)  # fmt: skip
        copying = Copying(self._containers, snapshots, mounting, layout, self._launch)
        maker = LayerMaker(self._layers, self._launch.run_job)
        making = Making(self._containers, service, images, blobs, maker, snapshots, stopping, holds)
        saving = Saving(service, images, blobs, self._layers, holds, layout, self._launch.run_job)
        files = ImageFileHandlers(transfers, making, saving, layout)
        system = System(layout, settings.shown(), self._database, self._containers, service, volumes, self._events, runtimes, hosts, groups.abilities)
        usage = DiskUsage(self._containers, service, volumes, history, snapshots)
        editing = Editing(self._containers, starting, stopping, removal, self._endpoints, mounting, self._probing, logs,
                          self._launch)  # fmt: skip
        copies, volume_files = VolumeCopies(layout, folders, volumes, self._launch), VolumeFiles(layout, volumes, self._launch)
        tools = Tools(self._containers, self._execs, service, networks, mounting, logs, snapshots)
        image_removal = ImageRemoval(service, images, self._containers, sweeping, self._events)
        self._collecting = Collecting(layout, blobs, self._layers, images, service, holds, sweeping, image_removal, settings.watermarks)
        kept_logs = ContainerLogs(layout)
        repairing = Repairing(Checking(layout, blobs, self._layers, images), blobs, self._layers, images, self._containers, holds, hosts, refetching)
        steps = BuildSteps(self._endpoints, networks, network_files, groups, preparing.namespace_of, settings.cdi_spec_dirs)
        self._building = Building(Parts(layout, self._database, blobs, self._layers, images, snapshots, maker, holds, sweeping, self._launch, steps,
                                        BuildImages(service, transfers), hosts, settings.builder))  # fmt: skip
        self._collecting.join("build-cache", Known(self._building.pruning.items, self._building.pruning.let_go))
        self._collecting.join("containers", StoppedContainers(self._containers, snapshots, kept_logs, removal))
        self._collecting.join("volumes", AnonymousVolumes(volumes, history, self._containers))
        self._collecting.join("logs", RotatedLogs(self._containers, kept_logs))
        cached = BuildCacheHandlers(self._building.pruning)
        handlers = Handlers(
            ContainerHandlers(self._containers, logs, attaching, self._execs, service, networks, volumes, mounting, snapshots, layout, groups,
                              usage, exposure),
            StreamHandlers(self._containers, attaching, logs),
            ContentHandlers(self._containers, copying, making, snapshots),
            LifecycleHandlers(self._containers, starting, stopping, self._restarting, removal, Updating(self._containers, groups), editing),
            ExecHandlers(self._containers, self._execs, tools),
            ImageHandlers(service, transfers, image_removal, snapshots, files),
            files,
            NetworkHandlers(networks, connecting, self._containers),
            NetworkInsightHandlers(self._endpoints, NetworkMap(kernel, networks, self._containers, firewall),
                                   Tracing(kernel, self._containers, networks, firewall), Teardown(self._containers, self._endpoints, networks)),
            SystemHandlers(system, hosts),
            EventHandlers(self._events),
            UsageHandlers(usage, service, volumes, cached),
            self._building,
            cached,
            BuildLayoutHandlers(transfers, blobs, self._layers),
            VolumeHandlers(volumes, VolumePruning(volumes, folders, self._events)),
            VolumeExtraHandlers(volumes, copies, Renaming(self._database, volumes, self._containers),
                                VolumeTransfers(layout, volumes, copies, volume_files, self._launch, hosts), history),
            VolumeFileHandlers(volumes, volume_files),
            InsightHandlers(service, snapshots),
            DiskHandlers(self._collecting, repairing, service),
        )  # fmt: skip
        self._server = Server(make_routes(handlers))

    def _on_notice(self, notice: Notice) -> None:
        if isinstance(notice, messages.Detached):
            record = self._containers.current(notice.container)
            if record:
                self._containers.emit("exec_detach" if notice.exec_id else "detach", record)
        elif notice.exec_id:
            self._execs.on_exit(notice)
        elif self._building.step_ended(notice):
            return
        else:
            self._execs.container_ended(notice.container)
            self._exits.on_exit(notice)

    def _on_monitor_lost(self, container_ids: list[str]) -> None:
        self._building.steps_lost(container_ids)
        self._taking_over.monitor_lost(container_ids)

    async def start(self) -> None:
        self._layers.remove_strays()
        self._blobs.remove_stale_partials(time.time())
        self._building.cache_mounts.sweep()
        self._building.contexts.sweep()
        await self._restoring.restore()
        self._lost_links.start()
        self._sweeping.remove_old_leftovers(time.time())
        await self._launch.warm()
        self._collecting.start()
        self._thinning.soon()
        await self._server.listen(list(self._settings.hosts), self._settings.group, self._settings.tls_context())

    async def stop(self) -> None:
        """Containers run on; the next engine finds them."""
        await self._server.close()
        await self._collecting.stop()
        await self._thinning.stop()
        self._probing.close()
        self._recovery.stop()
        self._restarting.stop()
        await self._exits.settle()
        self._mounting.let_go()
        self._lost_links.close()
        self._restoring.tear_down_if_idle()
        await self._building.close()
        self._launch.close()
        self._endpoints.close()
        self._database.close()
