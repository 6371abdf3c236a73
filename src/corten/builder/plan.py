"""What a Dockerfile becomes (convert.py): the graph, the image's config, and the steps as they are told to the client. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from corten.builder.checks import Finding
from corten.builder.graph import Vertex
from corten.spec.image import ImageConfig, RunConfig
from corten.spec.platform import Platform


@dataclass(frozen=True)
class FoundImage:
    """An image as the store has it. `reference` is the one asked for, in full; `chain` the diff ids, lowest first."""

    reference: str
    id: str
    config: ImageConfig

    @property
    def chain(self) -> tuple[str, ...]:
        return tuple(self.config.rootfs.diff_ids)


class ImageSource(Protocol):
    """Where FROM and `--from` get images: pulled where they are not there, or always if the build says so."""

    async def find(self, reference: str, platform: Platform) -> FoundImage:
        """Raises what the registry refuses, NoSuchImage, Invalid for what is no reference."""
        ...


@dataclass(frozen=True)
class Step:
    """One instruction. `text` is what Docker prints after `Step 2/7 : `. Of FROM `vertex` is the base; None: only the config changes."""

    text: str
    stage: str
    vertex: Vertex | None = None


@dataclass(frozen=True)
class HistoryLine:
    """One line of the image's history that this build adds. `vertex` is what made its layer; None: no layer."""

    created_by: str
    vertex: Vertex | None = None
    comment: str = ""
    author: str = ""


@dataclass(frozen=True)
class BuildPlan:
    """`steps` are those of the stages that `target` needs, in the order of the Dockerfile.

    `config` is the image's. Its lineage goes down through stages to `base` (None: scratch); `history` are the lines that the stages in
    between add to that image's. `warnings` are shown to the client; `findings` are those of them that build checks have found. `epoch`:
    SOURCE_DATE_EPOCH in seconds.
    """

    target: Vertex
    steps: tuple[Step, ...]
    config: RunConfig
    platform: Platform
    history: tuple[HistoryLine, ...] = ()
    base: FoundImage | None = None
    author: str = ""
    warnings: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    epoch: int | None = None
