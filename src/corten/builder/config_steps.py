"""Instructions that change the image's config and variables only. One function an instruction; all texts are BuildKit's history.

Source: Dockerfile reference; BuildKit's frontend/dockerfile/dockerfile2llb/convert.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from corten.builder import checks
from corten.builder.instructions import (
    Arg,
    Argument,
    Cmd,
    CommandLine,
    Entrypoint,
    Env,
    Expose,
    Health,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Shell,
    StopSignal,
    User,
    Volume,
)  # fmt: skip
from corten.builder.ports import read_port
from corten.builder.scope import NOT_IN_ENVIRONMENT, Declared
from corten.builder.stage import StageState
from corten.errors import Invalid
from corten.spec.engine import Healthcheck
from corten.spec.go_values import quote, quote_rune
from corten.spec.signals import parse_signal
from corten.spec.timestamps import duration_text

_MOST_PORTS = 3 * 65_536
DEFAULT_SHELL = ("/bin/sh", "-c")
_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)


def with_shell(stage: StageState, command: CommandLine) -> list[str]:
    """The words to execute."""
    if not command.shell:
        return list(command.words)
    return [*(stage.config.shell or DEFAULT_SHELL), " ".join(command.words)]


def set_env(entries: list[str] | None, values: Mapping[str, str]) -> list[str]:
    """Each in its place, or behind the others."""
    changed = {name: f"{name}={value}" for name, value in values.items()}
    found = [changed.pop(entry.partition("=")[0], entry) for entry in entries or []]
    return [*found, *changed.values()]


def _check_secret(stage: StageState, name: str) -> None:
    if stage.current and _SECRET.search(name) and not _NO_SECRET.search(name):
        stage.report(checks.SECRETS_USED_IN_ARG_OR_ENV, stage.current.word, name)


def _only_last_counts(stage: StageState, instruction: Instruction) -> None:
    before = stage.last.get(instruction.word)
    if before:
        comments = instruction.written.comments
        stage.around.checks.report(checks.MULTIPLE_INSTRUCTIONS_DISALLOWED, before.span, instruction.written.name, comments=comments)
    stage.last[instruction.word] = instruction


def _env(stage: StageState, env: Env) -> None:
    # All of a line see what was before it, not each other.
    pairs = [(stage.expand(pair.name), stage.expand(pair.value), pair.legacy) for pair in env.pairs]
    for name, value, legacy in pairs:
        if legacy:
            stage.report(checks.LEGACY_KEY_VALUE_FORMAT, env.written.name)
        _check_secret(stage, name)
        stage.set_variable(name, value)
    stage.set(env=set_env(stage.config.env, {name: value for name, value, _ in pairs}))
    stage.commit(" ".join(["ENV", *(f"{name}={value}" for name, value, _ in pairs)]))


def _label(stage: StageState, label: Label) -> None:
    pairs = [(stage.expand(pair.name), stage.expand(pair.value)) for pair in label.pairs]
    if any(pair.legacy for pair in label.pairs):
        stage.report(checks.LEGACY_KEY_VALUE_FORMAT, label.written.name)
    stage.set(labels={**(stage.config.labels or {}), **dict(pairs)})
    stage.commit(" ".join(["LABEL", *(f"{name}={value}" for name, value in pairs)]))


def _arg(stage: StageState, arg: Arg) -> None:
    said = []
    for argument in arg.arguments:
        _check_secret(stage, argument.name)
        value = _value(stage, arg, argument)
        if value is not None and argument.name not in NOT_IN_ENVIRONMENT:
            stage.set_variable(argument.name, value)
        stage.used.add(argument.name)
        stage.arguments[argument.name] = value
        said.append(argument.name if value is None else f"{argument.name}={value}")
    stage.commit(f"ARG {' '.join(said)}")


def _value(stage: StageState, arg: Arg, argument: Argument) -> str | None:
    """The build's argument, else the default, else what the ARGs before the first FROM say."""
    given, scope = stage.around.options.arguments, stage.around.scope.values
    if argument.name in given:
        value: str | None = given[argument.name]
    elif argument.value is not None:
        value = stage.expand(argument.value)
    elif argument.name in scope:
        return scope[argument.name]  # declared there
    else:
        value = None
    stage.declared[argument.name] = Declared(argument, arg.span, value or "")
    return value


def _maintainer(stage: StageState, maintainer: Maintainer) -> None:
    stage.report(checks.MAINTAINER_DEPRECATED)
    stage.author = maintainer.author
    stage.commit(f"MAINTAINER {maintainer.author}")


def _listed(words: list[str]) -> str:
    """Go's `%q` of a list."""
    return f"[{' '.join(map(quote, words))}]"


def _check_json(stage: StageState, instruction: Cmd | Entrypoint) -> None:
    _only_last_counts(stage, instruction)
    if instruction.command.shell and not stage.config.shell:
        stage.report(checks.JSON_ARGS_RECOMMENDED, instruction.written.name)


def _cmd(stage: StageState, cmd: Cmd) -> None:
    _check_json(stage, cmd)
    words = with_shell(stage, cmd.command)
    stage.set(cmd=words or None, args_escaped=True)  # as BuildKit marks every CMD
    stage.commit(f"CMD {_listed(words)}")


def _entrypoint(stage: StageState, entrypoint: Entrypoint) -> None:
    """A CMD of the base does not fit it; one of this stage stays."""
    _check_json(stage, entrypoint)
    words = with_shell(stage, entrypoint.command)
    stage.set(entrypoint=words or None)
    if "CMD" not in stage.last:
        stage.set(cmd=None)
    stage.commit(f"ENTRYPOINT {_listed(words)}")


def _health(stage: StageState, health: Health) -> None:
    _only_last_counts(stage, health)
    stage.set(healthcheck=health.check)
    stage.commit(f"HEALTHCHECK {_health_text(health.check)}")


def _health_text(check: Healthcheck) -> str:
    """Go's `%q` of the whole, as BuildKit of Docker 28.5 has it: the number of retries is a letter there."""
    times = (check.interval, check.timeout, check.start_period, check.start_interval)
    said = " ".join(quote(duration_text(value) if value else "0s") for value in times)
    return f"&{{{_listed(check.test or [])} {said} {quote_rune(check.retries)}}}"


def _expose(stage: StageState, expose: Expose) -> None:
    names: list[str] = []
    for word in (word for port in expose.ports for word in stage.expand_words(port)):
        found = read_port(word)
        if found.cased:
            stage.report(checks.EXPOSE_PROTO_CASING, word)
        if found.mapped:
            stage.report(checks.EXPOSE_INVALID_FORMAT, word)
        names += found.names
        if len(names) > _MOST_PORTS:
            raise Invalid(f"more than {_MOST_PORTS} ports in one instruction")
    stage.set(exposed_ports={**(stage.config.exposed_ports or {}), **{name: {} for name in names}})
    stage.commit(f"EXPOSE [{' '.join(names)}]")


def _user(stage: StageState, user: User) -> None:
    name = stage.expand(user.user)
    stage.set(user=name)
    stage.commit(f"USER {name}")


def _volume(stage: StageState, volume: Volume) -> None:
    paths = [stage.expand(path) for path in volume.paths]
    stage.set(volumes={**(stage.config.volumes or {}), **{path: {} for path in paths}})
    stage.commit(f"VOLUME [{' '.join(paths)}]")


def _stop_signal(stage: StageState, stop: StopSignal) -> None:
    name = stage.expand(stop.signal)
    parse_signal(name)
    stage.set(stop_signal=name)
    stage.commit(f"STOPSIGNAL {name}")


def _shell(stage: StageState, shell: Shell) -> None:
    stage.set(shell=list(shell.words))
    stage.commit(f"SHELL [{' '.join(shell.words)}]")


def _on_build(stage: StageState, on_build: OnBuild) -> None:
    stage.set(on_build=[*(stage.config.on_build or []), on_build.trigger])
    stage.step()


HANDLERS: dict[type[Instruction], Callable[[StageState, Any], None]] = {
    Arg: _arg, Cmd: _cmd, Entrypoint: _entrypoint, Env: _env, Expose: _expose, Health: _health, Label: _label, Maintainer: _maintainer,
    OnBuild: _on_build, Shell: _shell, StopSignal: _stop_signal, User: _user, Volume: _volume,
}  # fmt: skip
