"""Which stages there are, what each stands on and takes from, and which of them a target needs. Pure; no instruction is carried out here.

Besides the Dockerfile's stages there are nodes for images and contexts that only `--from` and `--mount` name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

from corten.builder import checks
from corten.builder.checks import Checks
from corten.builder.instructions import Copy, From, Instruction, Program, Run, Stage
from corten.builder.near_miss import did_you_mean, near_miss
from corten.builder.options import BuildOptions
from corten.builder.scope import GlobalScope, global_scope
from corten.builder.source import Span, located
from corten.errors import DockerfileError, Invalid
from corten.spec.platform import Platform, parse_platform
from corten.spec.reference import parse_reference
from corten.spec.shell_words import Expanded, Lexer

SCRATCH = "scratch"
_RESERVED = ("context", SCRATCH)


@dataclass(frozen=True, eq=False)
class Planned:
    """An instruction to carry out. `sources`: what COPY's `--from`, or each of RUN's mounts, takes from; None: the build's context or nothing."""

    instruction: Instruction
    sources: tuple[Node | None, ...] = ()
    on_build: bool = False


@dataclass(eq=False)
class Node:
    """A stage, or an image or context without one. `reference` is what FROM or `--from` names, variables put in; `parent` the stage it is.

    `body` grows by the triggers of the base while stages are planned; nothing else changes.
    """

    label: str
    reference: str
    span: Span
    origin: From | None = None
    platform: Platform | None = None
    parent: Node | None = None
    body: list[Planned] = field(default_factory=list)
    used: frozenset[str] = frozenset()  # variables of the FROM line
    replaced: bool = False  # by a named context: what the stage says does not count
    triggered: bool = False

    @property
    def is_stage(self) -> bool:
        return self.origin is not None

    @property
    def name(self) -> str:
        return self.origin.stage if self.origin else ""

    @property
    def needs(self) -> list[Node]:
        sources = [source for planned in self.body for source in planned.sources if source]
        return [self.parent, *sources] if self.parent else sources

    @cached_property
    def key(self) -> str:
        """What a `--build-context` would have to be called to take its place: the image as Docker shows it."""
        try:
            found = parse_reference(self.reference)
        except Invalid:
            return self.reference
        return found.familiar.removesuffix(":latest") if not found.digest else found.familiar


class Table:
    """The nodes in the Dockerfile's order, those without a stage behind them."""

    def __init__(
        self, program: Program, scope: GlobalScope, options: BuildOptions, lexer: Lexer, found: Checks
    ) -> None:
        """Raises DockerfileError."""
        self.nodes: list[Node] = []
        self._by_name: dict[str, Node] = {}
        self._lexer = lexer
        for stage in program.stages:
            self._add(_stage_node(stage, scope, options, lexer, found))
        for node, stage in zip(list(self.nodes), program.stages, strict=True):
            if not node.replaced:
                node.body = [self.planned(instruction) for instruction in stage.instructions]
        self.refuse_circles()
        if len(self.nodes) == 1:
            self.nodes[0].label = ""

    def _add(self, node: Node) -> None:
        # Names of stages are lower case, and FROM is the one that does not look past that: it means an image otherwise, as in BuildKit.
        node.parent = None if node.replaced else self._by_name.get(node.reference)
        self.nodes.append(node)
        if node.name:
            self._by_name[node.name] = node

    @property
    def names(self) -> list[str]:
        return [node.name or node.label for node in self.nodes if node.is_stage]

    def target(self, name: str) -> Node:
        """By name or, as classic builds have it, number; the last stage without a name. Raises Invalid."""
        stages = [node for node in self.nodes if node.is_stage]
        if not name:
            return stages[-1]
        found = self._by_name.get(name.lower()) or (
            stages[int(name)] if name.isdecimal() and len(name) < 5 and int(name) < len(stages) else None
        )
        if not found:
            raise Invalid(f'target stage "{name}" could not be found{did_you_mean(name, self.names)}')
        return found

    def planned(self, instruction: Instruction, *, on_build: bool = False) -> Planned:
        """With the nodes that it takes from, made where there are none yet. Raises DockerfileError."""
        try:
            if isinstance(instruction, Copy) and instruction.origin:
                return Planned(instruction, (self._source(instruction),), on_build)
            if isinstance(instruction, Run):
                sources = tuple(
                    self._named(origin, instruction.span) if origin else None for origin in instruction.origins
                )
                return Planned(instruction, sources, on_build)
        except Invalid as error:
            raise located(error, instruction.span, "--from") from None
        return Planned(instruction, (), on_build)

    def _source(self, copy: Copy) -> Node:
        name = copy.origin
        if self._lexer.expand(name, {}) != name:
            raise Invalid(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"
            )
        if name.isdecimal():
            stages = [node for node in self.nodes if node.is_stage]
            if len(name) > 4 or int(name) >= len(stages):
                raise Invalid(f"invalid stage index {name}: the Dockerfile has {len(stages)} stages, counted from 0")
            return stages[int(name)]
        return self._named(name, copy.span)

    def _named(self, name: str, span: Span) -> Node:
        found = self._by_name.get(name.lower())
        if found:
            return found
        outside = next((node for node in self.nodes if not node.is_stage and node.reference == name), None)
        if not outside:
            outside = Node(name, name, span)
            self.nodes.append(outside)
        return outside

    def needed(self, target: Node) -> set[Node]:
        seen: set[Node] = set()
        waiting = [target]
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += node.needs
        return seen

    def refuse_circles(self) -> None:
        """Raises DockerfileError."""
        try:
            TopologicalSorter({node: node.needs for node in self.nodes}).prepare()
        except CycleError as error:
            circle: list[Node] = error.args[1]  # each is needed by the next one
            taken, taker = circle[0], circle[1]
            span = next((each.instruction.span for each in taker.body if taken in each.sources), taker.span)
            names = " -> ".join(node.label for node in circle[::-1])
            reason = f"circular dependency detected on stage: {taker.label} ({names})"
            raise DockerfileError(reason=reason, line=span.first, last_line=span.last) from None


def _stage_node(stage: Stage, scope: GlobalScope, options: BuildOptions, lexer: Lexer, found: Checks) -> Node:
    origin = stage.origin
    base = _expand_from(origin, origin.base, scope, lexer, found)
    if not base.text:
        raise located(Invalid(f"base name ({origin.base}) should not be blank"), origin.span, origin.base)
    platform, used = _platform(origin, scope, lexer, found) if origin.platform else (None, frozenset[str]())
    replaced = bool(origin.stage) and origin.stage in options.contexts
    return Node(
        origin.stage or f"stage-{stage.index}", base.text, origin.span, origin, platform, used=base.matched | used, replaced=replaced
    )  # fmt: skip


def _expand_from(origin: From, text: str, scope: GlobalScope, lexer: Lexer, found: Checks) -> Expanded:
    try:
        result = lexer.process(text, scope.values)
    except Invalid as error:
        raise located(error, origin.span, text) from None
    for name in sorted(result.unmatched):
        if name not in scope.declared:
            meant = near_miss(name, scope.names)
            hint = f" (did you mean {meant}?)" if meant else ""
            found.report_on(origin.written, checks.UNDEFINED_ARG_IN_FROM, name, hint)
    return result


def _platform(origin: From, scope: GlobalScope, lexer: Lexer, found: Checks) -> tuple[Platform, frozenset[str]]:
    result = _expand_from(origin, origin.platform, scope, lexer, found)
    hint = next(filter(None, (did_you_mean(name, scope.names) for name in sorted(result.unmatched))), "")
    if not result.text:
        raise located(
            Invalid(f"empty platform value from expression {origin.platform}{hint}"), origin.span, origin.platform
        )
    try:
        platform = parse_platform(result.text)
    except Invalid as error:
        reason = f"failed to parse platform {origin.platform}: {error}{hint}"
        raise located(Invalid(reason), origin.span, origin.platform) from None
    if result.matched == {"TARGETPLATFORM"} and not result.unmatched and result.text == scope.values["TARGETPLATFORM"]:
        found.report_on(origin.written, checks.REDUNDANT_TARGET_PLATFORM, origin.platform)
    constant = not result.matched and not result.unmatched
    if constant and platform.os not in origin.stage and platform.architecture not in origin.stage:
        found.report_on(origin.written, checks.FROM_PLATFORM_FLAG_CONST_DISALLOWED, result.text)
    return platform, result.matched


# --- checks of the stages as a whole
def check_names(program: Program, found: Checks) -> None:
    seen: set[str] = set()
    for stage in program.stages:
        origin = stage.origin
        if len(origin.as_written) == 2:
            _check_casing(origin, found)
        if stage.name in _RESERVED:
            found.report_on(origin.written, checks.RESERVED_STAGE_NAME, stage.name)
        if stage.name and stage.name in seen:
            found.report_on(origin.written, checks.DUPLICATE_STAGE_NAME, stage.name)
        seen.add(stage.name)


def _check_casing(origin: From, found: Checks) -> None:
    keyword, stage = origin.as_written
    if stage != stage.lower():
        found.report_on(origin.written, checks.STAGE_NAME_CASING, stage)
    for case in (str.lower, str.upper):
        if origin.written.name == case(origin.written.name) and keyword != case(keyword):
            found.report_on(origin.written, checks.FROM_AS_CASING, origin.written.name, keyword)


def check_instruction_casing(program: Program, found: Checks) -> None:
    """Against the majority of those that are one case throughout."""
    all_of_them: list[Instruction] = [each for stage in program.stages for each in (stage.origin, *stage.instructions)]
    names = [each.written.name for each in all_of_them]
    lower = sum(name == name.lower() for name in names) > sum(name == name.upper() for name in names)
    for each in all_of_them:
        name = each.written.name
        if name != (name.lower() if lower else name.upper()):
            found.report_on(each.written, checks.CONSISTENT_INSTRUCTION_CASING, name, "lowercase" if lower else "uppercase")


def check_default_bases(program: Program, predefined: Mapping[str, str], lexer: Lexer, found: Checks) -> None:
    """A FROM must make sense without any build argument, too."""
    try:
        values = global_scope(predefined, program.arguments, {}, lexer).values
    except Invalid:
        return  # a default that cannot be expanded fails the build, unless a build argument takes its place
    for stage in program.stages:
        try:
            parse_reference(lexer.expand(stage.origin.base, values))
        except Invalid:
            found.report_on(stage.origin.written, checks.INVALID_DEFAULT_ARG_IN_FROM, stage.origin.base)


def check_descriptions(instructions: Iterable[tuple[Instruction, str, Sequence[str]]], found: Checks) -> None:
    """(instruction, its word, the names that it defines): a comment right above must begin with one of them."""
    for instruction, word, names in instructions:
        comments = instruction.written.comments
        if comments and names and comments[-1].split(" ")[0] not in names:
            example = names[0] if len(names) == 1 else "<arg_key>"
            found.report_on(instruction.written, checks.INVALID_DEFINITION_DESCRIPTION, word, example)
