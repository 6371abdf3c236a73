"""Where the builder's protocols meet the engine's services: neither knows the other. Translation only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from corten.builder.graph import Limits
from corten.builder.hosting import StepSettings
from corten.builder.plan import FoundImage
from corten.engine.build_images import BuildImages
from corten.engine.build_steps import BuildSteps
from corten.errors import CortenError
from corten.registry.auth import Credentials
from corten.registry.progress import Progress, Pushed
from corten.spec.digest import is_digest
from corten.spec.engine import Config, HostConfig
from corten.spec.platform import Platform
from corten.spec.reference import parse_reference
from corten.spec.runtime import RuntimeConfig


def _host_config(step: StepSettings) -> HostConfig:
    limits: Limits = step.op.limits
    return HostConfig(
        network_mode=step.network, extra_hosts=[f"{name}:{address}" for name, address in step.op.hosts] or None,
        privileged=step.op.security == "insecure", memory=limits.memory, memory_swap=limits.memory_swap, cpu_shares=limits.cpu_shares,
        cpu_period=limits.cpu_period, cpu_quota=limits.cpu_quota, cpuset_cpus=limits.cpuset_cpus, cpuset_mems=limits.cpuset_mems,
        shm_size=limits.shm_size, ulimits=list(limits.ulimits) or None, cgroup_parent=limits.cgroup_parent,
    )  # fmt: skip


class JoinedHost:
    """builder.hosting.StepHost over the engine's BuildSteps."""

    def __init__(self, steps: BuildSteps) -> None:
        self._steps = steps

    def prepare(self, step: StepSettings) -> RuntimeConfig:
        config = Config(cmd=list(step.op.args), env=list(step.env), user=step.op.user, working_dir=step.op.cwd, hostname=step.op.hostname or step.hostname)
        return self._steps.prepare(step.id, config, _host_config(step), step.rootfs, step.mounts, [(device.name, device.required) for device in step.op.devices])

    async def attach(self, step_id: str, namespace: str) -> None:
        await self._steps.attach(step_id, namespace)

    def release(self, step_id: str) -> None:
        self._steps.release(step_id)


@dataclass(frozen=True)
class ImageNews:
    """Of a base image (in full): it is looked for, a transfer of it goes on, or the search has ended, with an error or without."""

    reference: str
    progress: Progress | Pushed | None = None
    ended: bool = False
    error: str = ""


class JoinedImages:
    """builder.plan.ImageSource of one build: what its client knows and asks for."""

    def __init__(self, images: BuildImages, config: Mapping[str, Credentials], emit: Callable[[ImageNews], None], *, pull: bool) -> None:
        self._images, self._config, self._emit, self._pull = images, config, emit, pull

    async def find(self, reference: str, platform: Platform) -> FoundImage:
        shown = _in_full(reference)
        self._emit(ImageNews(shown))
        try:
            found = await self._images.get(
                reference, platform, self._config, pull=self._pull, emit=lambda progress: self._emit(ImageNews(shown, progress))
            )
        except CortenError as error:
            self._emit(ImageNews(shown, ended=True, error=error.message))
            raise
        self._emit(ImageNews(shown, ended=True))
        return FoundImage(shown, found.id, found.config)


def _in_full(reference: str) -> str:
    if is_digest(reference):
        return reference
    found = parse_reference(reference).with_default_tag()
    return f"{found.name}@{found.digest}" if found.digest else f"{found.name}:{found.tag}"
