"""What a build is asked for besides its Dockerfile. Values only; the fronts (API, CLI) fill them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from corten.builder.graph import Device, Limits, Local, Vertex
from corten.spec.platform import Platform, normalized, this_platform


@dataclass(frozen=True)
class BuildOptions:
    """`platform` is the one to build for; None: this machine's, or the base image's.

    `context` is the main context's tree, `contexts` the named ones: a tree, or the reference of an image. `hosts`: (name, address). `check`
    is BUILDKIT_DOCKERFILE_CHECK's kind of text, and replaces the Dockerfile's directive. `all_stages`: also those that
    the target does not need (for checks).
    """

    arguments: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    platform: Platform | None = None
    build_platform: Platform = field(default_factory=this_platform)
    context: Vertex = field(default=Vertex(Local()))
    contexts: Mapping[str, Vertex | str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    network: str = "default"
    hosts: tuple[tuple[str, str], ...] = ()
    limits: Limits = field(default=Limits())
    devices: tuple[Device, ...] = ()
    check: str | None = None
    all_stages: bool = False
    file: str = "Dockerfile"

    @property
    def target_platform(self) -> Platform:
        return normalized(self.platform or self.build_platform)
