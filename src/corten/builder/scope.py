"""Build arguments: the scope before the first FROM, the predefined ones, and those that reach steps without being seen. Pure.

Source: Dockerfile reference, "Understand how ARG and FROM interact", "Automatic platform ARGs in the global scope", "Predefined ARGs".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from corten.builder.instructions import Arg, Argument
from corten.builder.options import BuildOptions
from corten.builder.source import Span, located
from corten.errors import Invalid
from corten.spec.platform import normalized
from corten.spec.shell_words import Lexer

PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
# Declared with ARG they are not put into a step's environment (BuildKit's SBOM scanner reads them).
NOT_IN_ENVIRONMENT = ("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE")


@dataclass(frozen=True)
class Declared:
    """An ARG as it stands in the file, with the value that it got; `depends` are the variables of its default."""

    argument: Argument
    span: Span
    value: str = ""
    depends: frozenset[str] = frozenset()


@dataclass(frozen=True)
class GlobalScope:
    """`values`: what FROM may use and `ARG NAME` in a stage takes over. `declared`: the ARGs before the first FROM."""

    values: Mapping[str, str]
    declared: Mapping[str, Declared] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [*self.declared, *(name for name in self.values if name not in self.declared)]


def platform_arguments(options: BuildOptions, last_stage: str) -> dict[str, str]:
    """A build argument of the same name wins."""
    build, target = normalized(options.build_platform), options.target_platform
    predefined = {
        "BUILDPLATFORM": str(build), "BUILDOS": build.os, "BUILDOSVERSION": "", "BUILDARCH": build.architecture, "BUILDVARIANT": build.variant,
        "TARGETPLATFORM": str(target), "TARGETOS": target.os, "TARGETOSVERSION": "", "TARGETARCH": target.architecture,
        "TARGETVARIANT": target.variant, "TARGETSTAGE": options.target or last_stage or "default",
    }  # fmt: skip
    return {name: options.arguments.get(name, value) for name, value in predefined.items()}


def global_scope(
    predefined: Mapping[str, str], arguments: tuple[Arg, ...], given: Mapping[str, str], lexer: Lexer
) -> GlobalScope:
    """`given` are the build's arguments. Raises DockerfileError for a default that cannot be expanded."""
    values = dict(predefined)
    declared: dict[str, Declared] = {}
    for arg in arguments:
        for argument in arg.arguments:
            value, depends = _value(argument, arg.span, values, given, lexer)
            if argument.name in depends:
                before = declared.get(argument.name)
                depends = depends - {argument.name} | (before.depends if before else frozenset())
            if value is not None:
                values[argument.name] = value
            declared[argument.name] = Declared(argument, arg.span, value or "", depends)
    return GlobalScope(values, declared)


def _value(
    argument: Argument, span: Span, values: Mapping[str, str], given: Mapping[str, str], lexer: Lexer
) -> tuple[str | None, frozenset[str]]:
    if argument.name in given:
        return given[argument.name], frozenset()
    if argument.value is None:
        return None, frozenset()
    try:
        found = lexer.process(argument.value, values)
    except Invalid as error:
        raise located(error, span, argument.value) from None
    return found.text, found.matched


def proxy_environment(given: Mapping[str, str]) -> tuple[str, ...]:
    """Of RUN steps, whether declared or not; in both cases. Neither history nor cache sees them."""
    found = {name.lower(): value for name, value in sorted(given.items()) if name.lower() in PROXIES}
    return tuple(f"{spelled}={value}" for name, value in found.items() for spelled in (name.upper(), name))
