"""The build checks: one row a rule, what was found, and which rules a build wants. Pure.

Source: Docker's build checks reference; BuildKit's frontend/dockerfile/linter/ruleset.go for names and texts. Whoever reads or converts a
Dockerfile reports to a Checks; nobody else decides what is shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from corten.builder.directives import read_directives
from corten.builder.near_miss import did_you_mean
from corten.builder.source import Span, Written
from corten.errors import Invalid
from corten.spec.go_values import parse_bool

_PAGES = "https://docs.docker.com/go/dockerfile/rule/"


@dataclass(frozen=True)
class Rule:
    """`message` is formatted with the operands that a report gives. Experimental rules are off unless asked for."""

    name: str
    description: str
    message: str
    experimental: bool = False
    documented: bool = True

    @property
    def page(self) -> str:
        return f"{_PAGES}{re.sub('(?<=[a-z])(?=[A-Z])|(?<=JSON)(?=[A-Z])', '-', self.name).lower()}/"


STAGE_NAME_CASING = Rule("StageNameCasing", "Stage names should be lowercase", "Stage name '{0}' should be lowercase")
FROM_AS_CASING = Rule(
    "FromAsCasing",
    "The 'as' keyword should match the case of the 'from' keyword",
    "'{1}' and '{0}' keywords' casing do not match",
)
NO_EMPTY_CONTINUATION = Rule(
    "NoEmptyContinuation", "Empty continuation lines will become errors in a future release", "Empty continuation line"
)
CONSISTENT_INSTRUCTION_CASING = Rule(
    "ConsistentInstructionCasing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
    "Command '{0}' should match the case of the command majority ({1})",
)
DUPLICATE_STAGE_NAME = Rule(
    "DuplicateStageName", "Stage names should be unique", 'Duplicate stage name "{0}", stage names should be unique'
)
RESERVED_STAGE_NAME = Rule(
    "ReservedStageName",
    "Reserved words should not be used as stage names",
    'Stage name should not use the same name as reserved stage "{0}"',
)
JSON_ARGS_RECOMMENDED = Rule(
    "JSONArgsRecommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    "JSON arguments recommended for {0} to prevent unintended behavior related to OS signals",
)
MAINTAINER_DEPRECATED = Rule(
    "MaintainerDeprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    "Maintainer instruction is deprecated in favor of using label",
)
UNDEFINED_ARG_IN_FROM = Rule(
    "UndefinedArgInFrom", "FROM command must use declared ARGs", "FROM argument '{0}' is not declared{1}"
)
WORKDIR_RELATIVE_PATH = Rule(
    "WorkdirRelativePath",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    'Relative workdir "{0}" can have unexpected results if the base image changes',
)
UNDEFINED_VAR = Rule(
    "UndefinedVar", "Variables should be defined before their use", "Usage of undefined variable '${0}'{1}"
)
MULTIPLE_INSTRUCTIONS_DISALLOWED = Rule(
    "MultipleInstructionsDisallowed",
    "Multiple instructions of the same type should not be used in the same stage",
    "Multiple {0} instructions should not be used in the same stage because only the last one will be used",
)
LEGACY_KEY_VALUE_FORMAT = Rule(
    "LegacyKeyValueFormat",
    "Legacy key/value format with whitespace separator should not be used",
    '"{0} key=value" should be used instead of legacy "{0} key value" format',
)
INVALID_BASE_IMAGE_PLATFORM = Rule(
    "InvalidBaseImagePlatform",
    "Base image platform does not match expected target platform",
    'Base image {0} was pulled with platform "{2}", expected "{1}" for current build',
    documented=False,
)
REDUNDANT_TARGET_PLATFORM = Rule(
    "RedundantTargetPlatform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    "Setting platform to predefined {0} in FROM is redundant as this is the default behavior",
)
SECRETS_USED_IN_ARG_OR_ENV = Rule(
    "SecretsUsedInArgOrEnv",
    "Sensitive data should not be used in the ARG or ENV commands",
    'Do not use ARG or ENV instructions for sensitive data ({0} "{1}")',
)
INVALID_DEFAULT_ARG_IN_FROM = Rule(
    "InvalidDefaultArgInFrom",
    "Default value for global ARG results in an empty or invalid base image name",
    "Default value for ARG {0} results in empty or invalid base image name",
)
FROM_PLATFORM_FLAG_CONST_DISALLOWED = Rule(
    "FromPlatformFlagConstDisallowed",
    "FROM --platform flag should not use a constant value",
    'FROM --platform flag should not use constant value "{0}"',
)
COPY_IGNORED_FILE = Rule(
    "CopyIgnoredFile",
    "Attempting to Copy file that is excluded by .dockerignore",
    'Attempting to {0} file "{1}" that is excluded by .dockerignore',
)
INVALID_DEFINITION_DESCRIPTION = Rule(
    "InvalidDefinitionDescription",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a "
    "description comment, add an empty line or comment between the instruction and the comment.",
    "Comment for {0} should follow the format: `# {1} <description>`",
    experimental=True,
)
EXPOSE_PROTO_CASING = Rule(
    "ExposeProtoCasing",
    "Protocol in EXPOSE instruction should be lowercase",
    "Defined protocol '{0}' in EXPOSE instruction should be lowercase",
)
EXPOSE_INVALID_FORMAT = Rule(
    "ExposeInvalidFormat",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
    "EXPOSE instruction should not define an IP address or host-port mapping, found '{0}'",
)
RULES = tuple(value for value in list(vars().values()) if isinstance(value, Rule))


@dataclass(frozen=True)
class Finding:
    rule: Rule
    message: str
    span: Span


@dataclass(frozen=True)
class CheckSettings:
    """Which rules count. `error`: a build with findings fails."""

    skip_all: bool = False
    skip: frozenset[str] = frozenset()
    experimental_all: bool = False
    experimental: frozenset[str] = frozenset()
    error: bool = False

    def wants(self, rule: Rule) -> bool:
        if rule.experimental:
            return self.experimental_all or rule.name in self.experimental
        return not self.skip_all and rule.name not in self.skip

    def joined(self, other: CheckSettings) -> CheckSettings:
        """With what a comment above an instruction adds. Whether findings are errors is said for the whole file only."""
        return replace(
            self,
            skip_all=self.skip_all or other.skip_all,
            skip=self.skip | other.skip,
            experimental_all=self.experimental_all or other.experimental_all,
            experimental=self.experimental | other.experimental,
        )


def read_settings(text: str) -> CheckSettings:
    """The value of the directive `check`: `skip=A,B;error=true`. Raises Invalid."""
    settings = CheckSettings()
    for part in filter(None, text.strip().split(";", 2)):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        names = frozenset(name.strip() for name in value.split(","))
        if not equals or key not in ("skip", "experimental", "error"):
            raise Invalid(f'invalid check option "{key}"{did_you_mean(key, ("skip", "experimental", "error"))}')
        if key == "error":
            settings = replace(settings, error=_bool(part, value))
        elif key == "skip":
            settings = replace(settings, skip_all=True) if value == "all" else replace(settings, skip=names)
        else:
            settings = (
                replace(settings, experimental_all=True) if value == "all" else replace(settings, experimental=names)
            )
    return settings


def _bool(part: str, value: str) -> bool:
    try:
        return parse_bool(value)
    except Invalid as error:
        raise Invalid(f'failed to parse check option "{part}": {error}') from None


@dataclass
class Checks:
    """What one reading of a Dockerfile has found, in the order in which it was found."""

    settings: CheckSettings = CheckSettings()
    findings: list[Finding] = field(default_factory=list)
    _seen: set[Finding] = field(default_factory=set)

    def report(self, rule: Rule, span: Span, *operands: str, comments: tuple[str, ...] = ()) -> None:
        """`comments` are the instruction's: one of them may be a check directive of its own."""
        if _above(self.settings, comments).wants(rule):
            finding = Finding(rule, rule.message.format(*operands), span)
            if finding not in self._seen:
                self._seen.add(finding)
                self.findings.append(finding)

    def report_on(self, written: Written, rule: Rule, *operands: str) -> None:
        self.report(rule, written.span, *operands, comments=written.comments)

    def enforce(self) -> None:
        """Raises Invalid if findings are errors and there are some."""
        if self.settings.error and self.findings:
            names = dict.fromkeys(finding.rule.name for finding in self.findings)
            raise Invalid(f"lint violation found for rules: {', '.join(names)}")


def _above(settings: CheckSettings, comments: tuple[str, ...]) -> CheckSettings:
    for comment in comments:
        directive = read_directives(f"# {comment}").get("check")
        if directive:
            try:
                return settings.joined(read_settings(directive.value.partition(" ")[0]))
            except Invalid:
                return settings  # a comment that only looks like a directive
    return settings
