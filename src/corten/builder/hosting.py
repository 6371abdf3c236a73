"""What the builder needs of the engine around it, as small protocols; engine/build_steps.py and engine/build_images.py implement them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from corten.builder.graph import Exec
from corten.errors import Invalid
from corten.spec.runtime import Mount, RuntimeConfig


@dataclass(frozen=True)
class StepSettings:
    """A RUN step about to start. `files` is a folder for what the step's root shows of the network; `env` and `mounts` are complete."""

    id: str
    op: Exec
    network: str  # Docker's NetworkMode
    hostname: str
    env: Sequence[str]
    mounts: Sequence[Mount]
    rootfs: str


class StepHost(Protocol):
    """Prepares what an ordinary container has around it. `release` undoes `prepare`, whatever came of the step; it is idempotent."""

    def prepare(self, step: StepSettings) -> RuntimeConfig:
        """Lease its place on a network and write its config. Raises what Docker says of a network that is not there, NotSupported."""
        ...

    async def attach(self, step_id: str, namespace: str) -> None:
        """Bring its links into its network namespace (a path). Raises OSError."""
        ...

    def release(self, step_id: str) -> None: ...


class NoSuchAgent(Invalid):
    template = 'no SSH key "{id}" forwarded from the client'


@dataclass(frozen=True)
class Private:
    """What only the client knows: secrets by id, the sockets of its ssh agents by id, and the hosts that it knows, as ssh's known_hosts has them.

    Kept out of every key, layer and row.
    """

    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    agents: Mapping[str, str] = field(default_factory=dict, repr=False)
    known_hosts: str = field(default="", repr=False)

    def agent(self, name: str) -> str:
        """Its socket. Raises NoSuchAgent."""
        if name not in self.agents:
            raise NoSuchAgent(id=name)
        return self.agents[name]
