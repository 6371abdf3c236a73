"""What `docker build --call` asks of a Dockerfile instead of an image: its findings, its parameters, its targets. Values; whoever draws them is elsewhere.

Source: BuildKit's frontend/subrequests (lint, outline, targets), for the JSON too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from corten.builder.checks import Finding
from corten.builder.convert import carry_out, read
from corten.builder.instructions import read_program
from corten.builder.options import BuildOptions
from corten.builder.parser import parse
from corten.builder.plan import ImageSource
from corten.builder.scope import Declared
from corten.builder.source import Span
from corten.builder.stage import Asked, StageState
from corten.builder.stages import Node
from corten.errors import DockerfileError, Invalid

METHODS = ("check", "outline", "targets")


# --- check
@dataclass(frozen=True)
class CheckResult:
    """`error`: the Dockerfile cannot be built at all; findings are what came before."""

    findings: tuple[Finding, ...]
    error: Invalid | None = None

    def as_json(self) -> dict[str, Any]:
        warnings = [
            {"ruleName": each.rule.name, "description": each.rule.description, **({"url": each.rule.page} if each.rule.documented else {}),
             "detail": each.message, "location": _location(each.span)}
            for each in self.findings
        ]  # fmt: skip
        found: dict[str, Any] = {"warnings": warnings or None}
        if self.error:
            found["buildError"] = {"message": self.error.message, "location": _location(_span(self.error))}
        return found


async def check(source: str, options: BuildOptions, images: ImageSource) -> CheckResult:
    """All stages, if no target is given. Raises what the registry refuses only as a part of the result."""
    findings: list[Finding] = []
    try:
        reading = await asyncio.to_thread(read, source, replace(options, all_stages=not options.target), findings)
        await carry_out(reading, reading.table.target(options.target), images)
        reading.around.checks.enforce()
    except Invalid as error:
        return CheckResult(tuple(findings), error)
    return CheckResult(tuple(findings))


def _span(error: Invalid) -> Span | None:
    return Span(error.line, error.last_line) if isinstance(error, DockerfileError) else None


def _location(span: Span | None) -> dict[str, Any]:
    """A range for each line."""
    lines = range(span.first, span.last + 1) if span else ()
    return {"ranges": [{"start": {"line": line}, "end": {"line": line}} for line in lines]} if lines else {}


# --- outline
@dataclass(frozen=True)
class Outline:
    """What the target can be given: build arguments, secrets and SSH agents, in the order of the file."""

    name: str
    about: str
    arguments: tuple[Declared, ...]
    secrets: tuple[Asked, ...]
    agents: tuple[Asked, ...]

    def as_json(self) -> dict[str, Any]:
        arguments = [
            _filled(name=each.argument.name, description=each.argument.about, value=each.value, location=_location(each.span))
            for each in self.arguments
        ]  # fmt: skip
        return _filled(
            name=self.name,
            description=self.about,
            args=arguments,
            secrets=list(map(_asked, self.secrets)),
            ssh=list(map(_asked, self.agents)),
        )


def _asked(asked: Asked) -> dict[str, Any]:
    return _filled(name=asked.name, required=asked.required, location=_location(asked.span))


def _filled(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


async def outline(source: str, options: BuildOptions, images: ImageSource) -> Outline:
    """Raises as convert does."""
    reading = await asyncio.to_thread(read, source, options)
    target = reading.table.target(options.target)
    await carry_out(reading, target, images)
    states = [reading.around.states[node] for node in _lineage(target) if node in reading.around.states]
    origin = target.origin
    return Outline(
        target.name, origin.about if origin else "", _arguments(states),
        _in_order(asked for state in states for asked in state.secrets.values()),
        _in_order(asked for state in states for asked in state.agents.values()),
    )  # fmt: skip


def _lineage(target: Node) -> list[Node]:
    """The target and all that it needs, nearest first."""
    found: list[Node] = []
    waiting = [target]
    while waiting:
        node = waiting.pop(0)
        if node not in found:
            found.append(node)
            waiting += node.needs
    return found


def _arguments(states: list[StageState]) -> tuple[Declared, ...]:
    found: dict[str, Declared] = {}
    for state in states:
        names = _with_what_they_depend_on(state.used, state.declared)
        for name, declared in state.declared.items():
            if name in names:
                found.setdefault(name, declared)
    return tuple(sorted(found.values(), key=lambda declared: declared.span.first))


def _with_what_they_depend_on(names: Iterable[str], declared: dict[str, Declared]) -> set[str]:
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += declared[name].depends if name in declared else ()
    return seen


def _in_order(asked: Iterable[Asked]) -> tuple[Asked, ...]:
    found: dict[str, Asked] = {}
    for each in asked:
        found.setdefault(each.name, each)
    return tuple(sorted(found.values(), key=lambda each: each.span.first))


# --- targets
@dataclass(frozen=True)
class Target:
    """A stage. `base` and `platform` as written; the last stage is the default."""

    name: str
    about: str
    base: str
    platform: str
    default: bool
    span: Span

    def as_json(self) -> dict[str, Any]:
        return _filled(
            name=self.name,
            default=self.default,
            description=self.about,
            base=self.base,
            platform=self.platform,
            location=_location(self.span),
        )


def targets(source: str) -> list[Target]:
    """Raises DockerfileError."""
    stages = read_program(parse(source)).stages
    return [
        Target(stage.name, stage.origin.about, stage.origin.base, stage.origin.platform, stage is stages[-1], stage.origin.span)
        for stage in stages
    ]  # fmt: skip
