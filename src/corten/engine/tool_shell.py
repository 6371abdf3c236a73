"""A tool shell in any container, also one without a shell, or one that does not run (docs/own-api.md).

Where it runs, an exec whose root is the tool image, the container's root below it at /target (runtime/tool_root.py). Where it
does not, a helper container of the tool image over a read-only view of its writable layer. Neither changes the container.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from corten.engine import bundle, states
from corten.engine.containers import Containers
from corten.engine.execs import Execs
from corten.engine.images import ImageService
from corten.engine.log_setup import LogSetup
from corten.engine.mounting import Mounting
from corten.engine.networks import Networks
from corten.engine.records import ContainerRecord, MountRecord
from corten.engine.runtimes import BUILT_IN
from corten.errors import Conflict, Invalid
from corten.spec.engine import CreateRequest, ExecConfig, HostConfig, ToolsRequest
from corten.spec.image import RunConfig
from corten.store.images import Image
from corten.store.snapshots import Snapshots

TARGET = "/target"
LABEL = "dev.corten.tools"


@dataclass(frozen=True)
class Entered:
    """What the client attaches to: an exec to start, or (the other is empty) a container to start."""

    exec_id: str = ""
    container_id: str = ""


class Tools:
    def __init__(self, containers: Containers, execs: Execs, images: ImageService, networks: Networks, mounting: Mounting,
                 logs: LogSetup, snapshots: Snapshots) -> None:  # fmt: skip
        self._containers, self._execs, self._images, self._networks = containers, execs, images, networks
        self._mounting, self._logs, self._snapshots = mounting, logs, snapshots

    async def enter(self, record: ContainerRecord, request: ToolsRequest, called: str) -> Entered:
        """Raises NoSuchImage, Invalid, Conflict, what states.py says."""
        states.check("tools", record, called)
        image = self._images.find(request.image)
        command = request.cmd or command_of(image.config.run)
        if not command:
            raise Invalid(f"the image {request.image} names no command: give one")
        if not image.config.rootfs.diff_ids:
            raise Invalid(f"the image {request.image} has no files")
        if states.is_running(record):
            return Entered(exec_id=self._exec(record, request, image, command, called))
        return Entered(container_id=await self._helper(record, request, command))

    def _exec(self, record: ContainerRecord, request: ToolsRequest, image: Image, command: list[str], called: str) -> str:
        if record.host_config.runtime != BUILT_IN:
            raise Conflict(f"container {record.id} runs under {record.host_config.runtime}: tools need the built-in runtime")
        config = ExecConfig(
            **{name: getattr(request, name) for name in ExecConfig.__struct_fields__}
            | {
                "cmd": command, "user": request.user or "0", "env": environment(image.config.run, request.env or []),
                "working_dir": request.working_dir or image.config.run.working_dir or "/",
            }
        )  # fmt: skip
        layers = tuple(self._snapshots.lower(image.config.rootfs.diff_ids))
        return self._execs.create(record, config, called=called, tools=layers).id

    async def _helper(self, record: ContainerRecord, request: ToolsRequest, command: list[str]) -> str:
        body = CreateRequest(
            image=request.image, entrypoint=[], cmd=command, tty=request.tty, open_stdin=request.attach_stdin, stdin_once=request.attach_stdin,
            attach_stdin=request.attach_stdin, attach_stdout=request.attach_stdout, attach_stderr=request.attach_stderr, env=request.env,
            user=request.user, working_dir=request.working_dir, labels={LABEL: record.id},
            host_config=HostConfig(auto_remove=True, network_mode="none", privileged=request.privileged),
        )  # fmt: skip
        image = self._images.find(request.image)
        helper, _ = await self._containers.create(body, "", image, self._networks, self._mounting, self._logs)
        view = MountRecord("container", TARGET, source=record.id, name=record.name, rw=False, propagation="rprivate", diff_ids=list(record.diff_ids))
        self._containers.save(msgspec.structs.replace(helper, mounts=[*helper.mounts, view]))
        return helper.id


def command_of(run: RunConfig) -> list[str]:
    """Pure: what the image runs by itself."""
    return [*(run.entrypoint or []), *(run.cmd or [])]


def environment(run: RunConfig, own: list[str]) -> list[str]:
    """Pure: the tools' PATH and variables win over the container's, and the client's over both."""
    found = {"PATH": bundle.DEFAULT_ENV} | {entry.partition("=")[0]: entry for entry in [*(run.env or []), *own]}
    return list(found.values())
