"""What the instructions of a stage have made so far: its tree, its config, its variables, its history. One step of it is one call.

Must not know any instruction; config_steps.py and file_steps.py do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from corten.builder import checks
from corten.builder.checks import Checks, Rule
from corten.builder.graph import Operation, Scratch, Shown, Vertex
from corten.builder.instructions import Instruction
from corten.builder.near_miss import near_miss
from corten.builder.options import BuildOptions
from corten.builder.plan import FoundImage, HistoryLine, Step
from corten.builder.scope import NOT_IN_ENVIRONMENT, Declared, GlobalScope
from corten.builder.source import Span
from corten.builder.stages import Node
from corten.errors import Invalid
from corten.spec.image import RunConfig
from corten.spec.paths import joined
from corten.spec.platform import Platform
from corten.spec.shell_words import Lexer

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMMENT = "buildkit.dockerfile.v0"


@dataclass(frozen=True)
class Around:
    """What is the same for all stages of a conversion."""

    options: BuildOptions
    scope: GlobalScope
    lexer: Lexer
    checks: Checks
    proxies: tuple[str, ...] = ()
    states: dict[Node, StageState] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A secret or an SSH agent that a RUN mounts, and where the first is that does."""

    name: str
    span: Span
    required: bool


@dataclass
class StageState:
    """`variables` are ENV's and ARG's together, as words are expanded with them and RUN gets them.

    `steps` and `history` are this stage's own and, of the history, those of the stages below it. `base` is the image at the bottom.
    """

    around: Around
    label: str
    platform: Platform
    vertex: Vertex = field(default=Vertex(Scratch()))
    config: RunConfig = field(default=RunConfig())
    base: FoundImage | None = None
    author: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str | None] = field(default_factory=dict)
    history: list[HistoryLine] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    declared: dict[str, Declared] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    secrets: dict[str, Asked] = field(default_factory=dict)
    agents: dict[str, Asked] = field(default_factory=dict)
    last: dict[str, Instruction] = field(
        default_factory=dict
    )  # of CMD, ENTRYPOINT and HEALTHCHECK: only the last counts
    workdir_given: bool = False
    counted: int = 0
    total: int = 0
    current: Instruction | None = None
    on_build: bool = False

    def child(self, label: str) -> StageState:
        """What a stage begins with that is built on this one. Triggers do not come along."""
        return StageState(
            self.around, label, self.platform, self.vertex, msgspec.structs.replace(self.config, on_build=None), self.base, self.author,
            dict(self.variables), dict(self.arguments), list(self.history), declared=dict(self.declared), used=set(self.used),
            workdir_given=self.workdir_given,
        )  # fmt: skip

    # --- words
    def expand(self, text: str) -> str:
        return self.expand_with(self.around.lexer, text)

    def expand_with(self, lexer: Lexer, text: str) -> str:
        """Reports variables that there are not. Raises Invalid."""
        found = lexer.process(text, self.variables)
        self._undefined(found.unmatched)
        return found.text

    def expand_words(self, text: str) -> tuple[str, ...]:
        return self.around.lexer.process(text, self.variables).words

    def _undefined(self, names: frozenset[str]) -> None:
        for name in sorted(names - self.arguments.keys()):
            if name not in NOT_IN_ENVIRONMENT:
                meant = near_miss(name, self.variables)
                self.report(checks.UNDEFINED_VAR, name, f" (did you mean ${meant}?)" if meant else "")

    def report(self, rule: Rule, *operands: str) -> None:
        if self.current:
            self.around.checks.report_on(self.current.written, rule, *operands)

    # --- changes
    def set(self, **changes: Any) -> None:
        """Of the config."""
        self.config = msgspec.structs.replace(self.config, **changes)

    def set_variable(self, name: str, value: str) -> None:
        self.variables.pop(name, None)
        self.variables[name] = value

    @property
    def folder(self) -> str:
        return joined("/", self.config.working_dir)

    def commit(self, created_by: str) -> None:
        """A step that changes the config only."""
        self.history.append(HistoryLine(created_by, comment=COMMENT))
        self.step()

    def commit_layer(self, created_by: str, operation: Operation, inputs: tuple[Vertex, ...], shown: str) -> None:
        """A step that makes a layer on what is there."""
        self.vertex = Vertex(operation, (self.vertex, *inputs), self.shown(shown))
        self.history.append(HistoryLine(created_by, self.vertex, COMMENT))
        self.step(self.vertex)

    def step(self, vertex: Vertex | None = None) -> None:
        if self.current:
            self.steps.append(Step(self.current.written.text, self.label, vertex))

    # --- how a step is called
    def shown(self, text: str) -> Shown:
        """`[stage 2/5] RUN make`, as BuildKit shows it."""
        self.counted += 1
        width = len(str(self.total))
        where = f"{self.label} " if self.label else ""
        trigger = "ONBUILD " if self.on_build else ""
        head = f"[{where}{self.counted:{width}d}/{self.total}] " if self.total else ""
        return self.placed(f"{head}{trigger}{text}")

    def placed(self, text: str) -> Shown:
        """At the instruction that is carried out now."""
        span = self.current.span if self.current else Span(0, 0)
        return Shown(text, self.label, span.first, self.around.options.file, span.last)

    def described(self, text: str, masked: Mapping[str, str] | None = None, *, quotes: bool = False) -> str:
        """An instruction's text with its name in capitals and variables put in. `quotes`: they stay, and so do unknown variables."""
        lexer = Lexer(self.around.lexer.escape, raw_quotes=quotes, keep_unset=quotes)
        try:
            text = lexer.expand(text, {**self.variables, **(masked or {})})
        except Invalid:
            return _capital(text)
        return _capital(text)


def _capital(text: str) -> str:
    name, blank, rest = text.partition(" ")
    return name.upper() + blank + rest
