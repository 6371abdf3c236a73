"""The build checks: each found where it should be and nowhere else, and which of them a Dockerfile wants."""

from __future__ import annotations

import asyncio

import pytest

from corten.builder import calls, checks
from corten.builder.checks import RULES, CheckSettings, read_settings
from corten.builder.graph import Local, Vertex
from corten.builder.options import BuildOptions
from corten.errors import Invalid
from corten.spec.platform import Platform
from tests.unit.test_dockerfile_convert import Images


def findings(text: str, **options) -> list[tuple[str, str, int]]:
    options.setdefault("build_platform", Platform("amd64"))
    result = asyncio.run(calls.check(text, BuildOptions(**options), Images()))
    return [(each.rule.name, each.message, each.span.first) for each in result.findings]


def test_there_are_22_with_a_page_each():
    assert len(RULES) == 22
    assert checks.JSON_ARGS_RECOMMENDED.page.endswith("/json-args-recommended/")
    assert checks.FROM_PLATFORM_FLAG_CONST_DISALLOWED.page.endswith("/from-platform-flag-const-disallowed/")


@pytest.mark.parametrize(
    "rule, bad, line, message, good",
    [
        (checks.STAGE_NAME_CASING, "FROM a AS Name", 1, "Stage name 'Name' should be lowercase", "FROM a AS name"),
        (checks.FROM_AS_CASING, "FROM a as b", 1, "'as' and 'FROM' keywords' casing do not match", "from a as b"),
        (checks.NO_EMPTY_CONTINUATION, "FROM a\nRUN x \\\n\n  y", 4, "Empty continuation line", "FROM a\nRUN x \\\n# said\n  y"),
        (checks.CONSISTENT_INSTRUCTION_CASING, "FROM a\nrun x\nRUN y", 2, "Command 'run' should match the case of the command majority (uppercase)", "from a\nrun x"),
        (checks.DUPLICATE_STAGE_NAME, "FROM a AS b\nFROM a AS b", 2, 'Duplicate stage name "b", stage names should be unique', "FROM a AS b\nFROM a AS c"),
        (checks.RESERVED_STAGE_NAME, "FROM a AS context", 1, 'Stage name should not use the same name as reserved stage "context"', "FROM a AS contexts"),
        (checks.JSON_ARGS_RECOMMENDED, "FROM a\nENTRYPOINT x", 2, "JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals",
         'FROM a\nENTRYPOINT ["x"]'),
        (checks.JSON_ARGS_RECOMMENDED, "FROM a\nCMD x", 2, "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
         'FROM a\nSHELL ["/bin/sh", "-ec"]\nCMD x'),
        (checks.MAINTAINER_DEPRECATED, "FROM a\nMAINTAINER m", 2, "Maintainer instruction is deprecated in favor of using label", "FROM a\nLABEL maintainer=m"),
        (checks.UNDEFINED_ARG_IN_FROM, "ARG version=1\nFROM a:${versoin:-2}", 2, "FROM argument 'versoin' is not declared (did you mean version?)", "ARG version\nFROM a:${version:-1}"),
        (checks.WORKDIR_RELATIVE_PATH, "FROM a\nWORKDIR w", 2, 'Relative workdir "w" can have unexpected results if the base image changes', "FROM a\nWORKDIR /w\nWORKDIR x"),
        (checks.UNDEFINED_VAR, "FROM a\nCOPY $sorce /", 2, "Usage of undefined variable '$sorce'", "FROM a\nARG sorce\nCOPY $sorce /"),
        (checks.UNDEFINED_VAR, "FROM a\nENV x=$PAHT", 2, "Usage of undefined variable '$PAHT' (did you mean $PATH?)", "FROM a\nENV x=$PATH"),
        (checks.MULTIPLE_INSTRUCTIONS_DISALLOWED, 'FROM a\nCMD ["x"]\nCMD ["y"]', 2,
         "Multiple CMD instructions should not be used in the same stage because only the last one will be used", 'FROM a AS b\nCMD ["x"]\nFROM b\nCMD ["y"]'),
        (checks.LEGACY_KEY_VALUE_FORMAT, "FROM a\nENV x y", 2, '"ENV key=value" should be used instead of legacy "ENV key value" format', "FROM a\nENV x=y"),
        (checks.INVALID_BASE_IMAGE_PLATFORM, "FROM amdonly", 1, 'Base image amdonly was pulled with platform "linux/amd64", expected "linux/arm64" for current build', "FROM a"),
        (checks.REDUNDANT_TARGET_PLATFORM, "FROM --platform=$TARGETPLATFORM a", 1,
         "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior", "FROM --platform=$BUILDPLATFORM a"),
        (checks.SECRETS_USED_IN_ARG_OR_ENV, "FROM a\nARG API_KEY", 2, 'Do not use ARG or ENV instructions for sensitive data (ARG "API_KEY")', "FROM a\nARG KEYS PUBLIC_KEY KEY_FILE"),
        (checks.INVALID_DEFAULT_ARG_IN_FROM, "ARG v\nFROM a:${v}", 2, "Default value for ARG a:${v} results in empty or invalid base image name", "ARG v=1\nFROM a:${v}"),
        (checks.FROM_PLATFORM_FLAG_CONST_DISALLOWED, "FROM --platform=linux/arm64 a AS b", 1, 'FROM --platform flag should not use constant value "linux/arm64"',
         "FROM --platform=linux/arm64 a AS b-arm64"),
        (checks.COPY_IGNORED_FILE, "FROM a\nCOPY x.log /", 2, 'Attempting to Copy file "x.log" that is excluded by .dockerignore', "FROM a\nCOPY --from=b x.log /"),
        (checks.COPY_IGNORED_FILE, "FROM a\nADD logs/x /", 2, 'Attempting to Add file "logs/x" that is excluded by .dockerignore', "FROM a\nCOPY . /"),
        (checks.EXPOSE_PROTO_CASING, "FROM a\nEXPOSE 80/TCP", 2, "Defined protocol '80/TCP' in EXPOSE instruction should be lowercase", "FROM a\nEXPOSE 80/tcp"),
        (checks.EXPOSE_INVALID_FORMAT, "FROM a\nEXPOSE 80:81", 2, "EXPOSE instruction should not define an IP address or host-port mapping, found '80:81'", "FROM a\nEXPOSE 80-81"),
        (checks.INVALID_DEFINITION_DESCRIPTION, "# check=experimental=all\n# other\nFROM a AS b", 3, "Comment for FROM should follow the format: `# b <description>`",
         "# check=experimental=all\n# b is it\nFROM a AS b"),
    ],
)  # fmt: skip
def test_rule(rule, bad, line, message, good):
    options = {"context": Vertex(Local(ignore=("*.log", "logs"))), "arguments": {"v": "9"} if "ARG v\n" in bad else {}}
    if rule is checks.INVALID_BASE_IMAGE_PLATFORM:
        options["platform"] = Platform("arm64")
    assert (rule.name, message, line) in findings(bad, **options)
    assert rule.name not in {name for name, _, _ in findings(good, **options)}


def test_every_rule_is_tested():
    rows = next(mark for mark in test_rule.pytestmark if mark.name == "parametrize").args[1]
    assert {row[0] for row in rows} == set(RULES)


@pytest.mark.parametrize(
    "text, settings",
    [
        ("", CheckSettings()),
        ("skip=all", CheckSettings(skip_all=True)),
        ("skip=A, B;error=true", CheckSettings(skip=frozenset({"A", "B"}), error=True)),
        (" error = 0 ; experimental=all", CheckSettings(experimental_all=True)),
        ("experimental=A;skip=B", CheckSettings(experimental=frozenset({"A"}), skip=frozenset({"B"}))),
    ],
)
def test_settings(text, settings):
    assert read_settings(text) == settings


@pytest.mark.parametrize(
    "text, reason",
    [
        ("skpi=A", 'invalid check option "skpi" (did you mean skip?)'),
        ("all", 'invalid check option "all"'),
        ("error=maybe", 'failed to parse check option "error=maybe": strconv.ParseBool: parsing "maybe": invalid syntax'),
    ],
)
def test_settings_that_are_wrong(text, reason):
    with pytest.raises(Invalid) as caught:
        read_settings(text)
    assert caught.value.message == reason


def test_what_a_dockerfile_wants():
    body = "FROM a AS B\nCMD x\n"
    assert [name for name, _, _ in findings(body)] == ["StageNameCasing", "JSONArgsRecommended"]
    assert findings(f"# check=skip=all\n{body}") == []
    assert [name for name, _, _ in findings(f"# check=skip=StageNameCasing\n{body}")] == ["JSONArgsRecommended"]
    assert findings(body, check="skip=all") == []
    assert findings(body, arguments={"BUILDKIT_DOCKERFILE_CHECK": "skip=all"}) == []
    # A comment above an instruction counts for it alone.
    assert [name for name, _, _ in findings("# check=skip=StageNameCasing\n\n# b\nFROM a\n# check=skip=JSONArgsRecommended\nCMD x\nENTRYPOINT y")] == ["JSONArgsRecommended"]


def test_findings_can_be_errors():
    result = asyncio.run(calls.check("# check=error=true\nFROM a\nCMD x\nMAINTAINER y", BuildOptions(), Images()))
    assert result.error is not None
    assert result.error.message == "lint violation found for rules: JSONArgsRecommended, MaintainerDeprecated"


def test_checks_look_at_all_stages_unless_a_target_is_named():
    text = "FROM a AS b\nCMD x\nFROM a\nMAINTAINER y"
    assert {name for name, _, _ in findings(text)} == {"JSONArgsRecommended", "MaintainerDeprecated"}
    assert {name for name, _, _ in findings(text, target="b")} == {"JSONArgsRecommended"}
