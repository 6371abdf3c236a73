"""Dockerfile to build plan: the stages that the target needs, instruction by instruction, become a graph and an image config.

    parse > read_program > global scope > table of stages > bases (images are asked for) > triggers > instructions > BuildPlan

The order is Dockerfile's own: an ARG is seen by what comes after it, a stage by stages below it. Nothing runs here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace

import msgspec

from corten.builder import checks, config_steps, file_steps, run_step
from corten.builder.bases import Base, find_bases
from corten.builder.checks import Checks, CheckSettings, Finding, read_settings
from corten.builder.graph import Vertex
from corten.builder.instructions import (
    Add,
    Arg,
    Copy,
    From,
    Instruction,
    OnBuild,
    Program,
    Run,
    Workdir,
    read_program,
    read_trigger,
)
from corten.builder.options import BuildOptions
from corten.builder.parser import Dockerfile, parse
from corten.builder.plan import BuildPlan, ImageSource, Step
from corten.builder.scope import PROXIES, global_scope, platform_arguments, proxy_environment
from corten.builder.source import Span, located
from corten.builder.stage import DEFAULT_PATH, Around, StageState
from corten.builder.stages import (
    SCRATCH,
    Node,
    Planned,
    Table,
    check_default_bases,
    check_descriptions,
    check_instruction_casing,
    check_names,
)  # fmt: skip
from corten.errors import DockerfileError, Invalid
from corten.spec.go_values import parse_number
from corten.spec.platform import normalized
from corten.spec.reference import DEFAULT_DOMAIN, parse_reference
from corten.spec.shell_words import Lexer

_SERVED = ("docker/dockerfile", "docker/dockerfile-upstream")
# Build arguments that mean something without an ARG. Others of BuildKit's own have no effect here, which is said.
_UNDERSTOOD = frozenset({
    "BUILDKIT_SYNTAX", "BUILDKIT_CACHE_MOUNT_NS", "BUILDKIT_SANDBOX_HOSTNAME", "BUILDKIT_DOCKERFILE_CHECK", "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "SOURCE_DATE_EPOCH",
})  # fmt: skip
_COUNTED = (Add, Copy, Run, Workdir)  # instructions that BuildKit numbers


async def convert(source: str, options: BuildOptions, images: ImageSource) -> BuildPlan:
    """Raises DockerfileError (with the line), or Invalid for what is wrong with the options."""
    return await finish(await asyncio.to_thread(read, source, options), images)


async def finish(reading: Reading, images: ImageSource) -> BuildPlan:
    """The rest of convert(), for who has read the Dockerfile before. Once for each reading."""
    target = reading.table.target(reading.around.options.target)
    await carry_out(reading, target, images)
    reading.around.checks.enforce()
    return _plan(reading, target)


@dataclass(frozen=True)
class Reading:
    """All that is known of a Dockerfile without any image."""

    dockerfile: Dockerfile
    program: Program
    around: Around
    table: Table


def read(source: str, options: BuildOptions, findings: list[Finding] | None = None) -> Reading:
    """`findings` is filled as they are found: whoever hands in a list has them also when the rest fails. Raises DockerfileError."""
    dockerfile = parse(source)
    check_syntax(dockerfile, options)
    found = Checks(_check_settings(dockerfile, options), [] if findings is None else findings)
    for line in dockerfile.empty_continuations:
        found.report(checks.NO_EMPTY_CONTINUATION, Span(line, line))
    program = read_program(dockerfile)
    check_names(program, found)
    check_instruction_casing(program, found)
    check_descriptions(_definitions(program), found)
    lexer = Lexer(dockerfile.escape)
    predefined = platform_arguments(options, program.stages[-1].name)
    check_default_bases(program, predefined, lexer, found)
    scope = global_scope(predefined, program.arguments, options.arguments, lexer)
    around = Around(options, scope, lexer, found, proxy_environment(options.arguments))
    return Reading(dockerfile, program, around, Table(program, scope, options, lexer, found))


def check_syntax(dockerfile: Dockerfile, options: BuildOptions) -> None:
    """`# syntax=` names an image that reads the Dockerfile. Docker's own are served by this package, nothing is pulled. Raises DockerfileError."""
    directive = dockerfile.directives.get("syntax")
    name = options.arguments.get("BUILDKIT_SYNTAX") or (directive.value if directive else "")
    frontend = name.split(" ")[0]
    if frontend and not _is_served(frontend):
        line = directive.line if directive else 1
        reason = f"the frontend {frontend} is not supported: Corten reads Dockerfiles itself, as docker/dockerfile:1 does; leave the syntax line out"
        raise DockerfileError(reason=reason, line=line, last_line=line, word=frontend)


def _is_served(frontend: str) -> bool:
    """Docker's own frontends, also where another registry has a copy of them, below a folder of its own or not."""
    try:
        reference = parse_reference(frontend)
    except Invalid:
        return False
    return reference.path in _SERVED or (reference.domain != DEFAULT_DOMAIN and reference.path.endswith(tuple(f"/{name}" for name in _SERVED)))


def _check_settings(dockerfile: Dockerfile, options: BuildOptions) -> CheckSettings:
    directive = dockerfile.directives.get("check")
    text = options.arguments.get("BUILDKIT_DOCKERFILE_CHECK", options.check)
    try:
        return read_settings(text if text is not None else directive.value if directive else "")
    except Invalid as error:
        line = directive.line if directive else 1
        raise located(Invalid(f"failed to parse check options: {error}"), Span(line, line)) from None


def _definitions(program: Program) -> Iterator[tuple[Instruction, str, list[str]]]:
    bodies = [*program.arguments, *(each for stage in program.stages for each in (stage.origin, *stage.instructions))]
    for each in bodies:
        if isinstance(each, From):
            yield each, "FROM", [each.stage] if each.stage else []
        elif isinstance(each, Arg):
            yield each, "ARG", [argument.name for argument in each.arguments]


# --- stage after stage
async def carry_out(reading: Reading, target: Node, images: ImageSource) -> None:
    """Afterwards `around.states` has every stage that the target needs (or all). Raises DockerfileError."""
    table, around = reading.table, reading.around
    bases: dict[Node, Base] = {}
    while True:
        needed = set(table.nodes) if around.options.all_stages else table.needed(target)
        missing = [node for node in table.nodes if node in needed and not node.parent and node not in bases]
        bases |= await find_bases(missing, around, images, table.names)
        more = [
            _take_triggers(table, node, bases.get(node))
            for node in list(table.nodes)
            if node in needed and node.is_stage
        ]
        if not any(more):
            break
        table.refuse_circles()  # a trigger may copy from another stage
    await asyncio.to_thread(
        _carry_out, around, [node for node in table.nodes if node in needed and node.is_stage], bases
    )


def _carry_out(around: Around, nodes: list[Node], bases: dict[Node, Base]) -> None:
    for node in nodes:
        around.states[node] = _Stage(around, node, bases).carried_out()


def _take_triggers(table: Table, node: Node, base: Base | None) -> bool:
    """Whether the ONBUILD triggers of what it stands on, which come first, need more than was needed before."""
    if node.triggered or node.replaced:
        return False
    node.triggered = True
    triggers = (
        [each.instruction.trigger for each in node.parent.body if isinstance(each.instruction, OnBuild)]
        if node.parent
        else []
    )
    triggers += (base.config.on_build or []) if base else []
    planned = [_trigger(table, node, text) for text in triggers]
    node.body[:0] = planned
    return any(source for each in planned for source in each.sources)


def _trigger(table: Table, node: Node, text: str) -> Planned:
    try:
        nodes = parse(text).nodes
        if len(nodes) != 1:
            raise Invalid("onbuild trigger should be a single expression")
        return table.planned(read_trigger(replace(nodes[0], span=node.span)), on_build=True)
    except Invalid as error:
        reason = error.reason if isinstance(error, DockerfileError) else error.message
        raise located(
            Invalid(f"ONBUILD trigger `{text}` of {node.reference}: {reason}"), node.span, node.reference
        ) from None


class _Stage:
    """One stage being carried out."""

    def __init__(self, around: Around, node: Node, bases: dict[Node, Base]) -> None:
        self._around, self._node, self._bases = around, node, bases

    def carried_out(self) -> StageState:
        state = self._begun()
        for planned in self._node.body if not self._node.replaced else []:
            state.current, state.on_build = planned.instruction, planned.on_build
            try:
                self._step(state, planned)
            except Invalid as error:
                raise located(error, planned.instruction.span) from None
        return state

    def _begun(self) -> StageState:
        """What FROM gives: the base's tree and config. PATH is always set."""
        node, parent = self._node, self._node.parent
        if parent:
            state = self._around.states[parent].child(node.label)
        else:
            base = self._bases[node]
            config = msgspec.structs.replace(base.config, on_build=None)
            state = StageState(
                self._around,
                node.label,
                base.platform,
                base.ground,
                config,
                base.image,
                base.image.config.author if base.image else "",
            )
            state.declared = dict(self._around.scope.declared)
        state.used |= node.used
        state.total = sum(isinstance(planned.instruction, _COUNTED) for planned in node.body) + self._shows_base
        if self._shows_base and state.total:
            state.current = node.origin
            state.vertex = replace(state.vertex, shown=state.shown(state.vertex.shown.text))
        state.steps.append(Step(node.origin.written.text if node.origin else "", node.label, state.vertex))
        if not any(entry.startswith("PATH=") for entry in state.config.env or []):
            state.set(env=[*(state.config.env or []), f"PATH={DEFAULT_PATH}"])
        for entry in state.config.env or []:
            state.set_variable(*entry.partition("=")[::2])
        if state.config.working_dir and not state.config.working_dir.startswith("/"):
            state.set(working_dir=state.folder)
        return state

    @property
    def _shows_base(self) -> bool:
        return not self._node.parent and self._node.reference != SCRATCH

    def _step(self, state: StageState, planned: Planned) -> None:
        instruction = planned.instruction
        if isinstance(instruction, Run):
            run_step.run(state, instruction, planned.sources, self._tree_of)
        elif isinstance(instruction, Copy | Add):
            source = planned.sources[0] if planned.sources else None
            file_steps.copy(
                state, instruction, self._tree_of(state, source) if source else self._around.options.context
            )
        elif isinstance(instruction, Workdir):
            file_steps.workdir(state, instruction)
        else:
            config_steps.HANDLERS[type(instruction)](state, instruction)

    def _tree_of(self, state: StageState, source: Node) -> Vertex:
        if source.is_stage and not source.replaced:
            if source not in self._around.states:
                raise Invalid(
                    f'cannot copy from stage "{source.label}", it needs to be defined before current stage "{state.label}"'
                )
            return self._around.states[source].vertex
        return self._bases[source].tree


# --- the result
def _plan(reading: Reading, target: Node) -> BuildPlan:
    around, options = reading.around, reading.around.options
    state = around.states[target]
    config = state.config
    if options.labels:
        config = msgspec.structs.replace(config, labels={**(config.labels or {}), **options.labels})
    platform = options.platform or (state.base.config.platform if state.base else state.platform)
    findings = tuple(sorted(around.checks.findings, key=lambda finding: finding.span.first))
    return BuildPlan(
        state.vertex, tuple(step for node in reading.table.nodes if node in around.states for step in around.states[node].steps), config,
        normalized(platform), tuple(state.history), state.base, state.author,
        (*(f"{each.rule.name}: {each.message} (line {each.span.first})" for each in findings), *_unused(reading)), findings, _epoch(around),
    )  # fmt: skip


def _unused(reading: Reading) -> Iterator[str]:
    """Build arguments that no ARG declares: mostly a slip of the pen."""
    options, program = reading.around.options, reading.program
    arguments = [
        *program.arguments,
        *(each for stage in program.stages for each in stage.instructions if isinstance(each, Arg)),
    ]
    known = {argument.name for arg in arguments for argument in arg.arguments} | reading.around.scope.values.keys()
    known |= _UNDERSTOOD
    unused = [name for name in sorted(options.arguments) if name not in known and name.lower() not in PROXIES]
    if unused:
        yield f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed"


def _epoch(around: Around) -> int | None:
    """SOURCE_DATE_EPOCH, as build argument or as an ARG's default before the first FROM: seconds. Raises Invalid."""
    text = around.options.arguments.get("SOURCE_DATE_EPOCH") or around.scope.values.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    try:
        return parse_number(text)
    except Invalid:
        raise Invalid(f"invalid SOURCE_DATE_EPOCH: {text}: want seconds since 1970") from None
