"""The Dockerfile instructions that commit and import take to change an image's config. Pure.

Texts are Docker Engine 28.5's (`changes` of `POST /commit` and `POST /images/create?fromSrc=`).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from corten.errors import Invalid
from corten.spec.engine import Config, Healthcheck
from corten.spec.foreign_json import decode
from corten.spec.health_flags import HEALTH_FLAGS, health_settings
from corten.spec.shell_words import expand, split_words
from corten.spec.signals import parse_signal

_DEFAULT_SHELL = ["/bin/sh", "-c"]
_CONTINUED = re.compile(r"\\[ \t]*$")
_PORT = re.compile(r"(?:.*:)?(?P<first>[^:-]*)(?:-(?P<last>[^:-]*))?")
_PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass
class _State:
    """What the instructions so far have made of the config."""

    config: Config
    own_command: bool = False

    def set(self, **changes: Any) -> None:
        self.config = msgspec.structs.replace(self.config, **changes)

    @property
    def variables(self) -> Mapping[str, str]:
        return dict(entry.partition("=")[::2] for entry in self.config.env or [])

    def expand(self, word: str) -> str:
        return expand(word, self.variables)


@dataclass(frozen=True)
class _Line:
    """One instruction: its name as written, its flags, and the rest."""

    name: str
    flags: tuple[str, ...]
    rest: str

    @property
    def word(self) -> str:
        return self.name.upper()

    def needed(self) -> str:
        if not self.rest:
            raise Invalid(f"{self.word} requires at least one argument")
        return self.rest

    def single(self) -> str:
        if not self.rest:
            raise Invalid(f"{self.word} requires exactly one argument")
        return self.rest


def apply_change_lines(config: Config, lines: Sequence[str]) -> Config:
    """Raises Invalid with Docker's text."""
    if not lines:
        return config
    parsed = list(_parse("\n".join(lines)))
    if not parsed:
        raise Invalid("file with no instructions")
    for line in parsed:
        if line.word not in _HANDLERS:
            raise Invalid(f"{line.name} is not a valid change command")
    state = _State(config)
    for line in parsed:
        if line.flags and line.word != "HEALTHCHECK":
            raise Invalid(f"unknown flag: {line.flags[0].partition('=')[0]}")
        _HANDLERS[line.word](state, line)
    return state.config


def _parse(text: str) -> Iterator[_Line]:
    pending = ""
    for line in text.split("\n"):
        if line.lstrip().startswith("#") or not (line.strip() or pending):
            continue
        if _CONTINUED.search(line):
            pending += _CONTINUED.sub("", line)
            continue
        yield _split(pending + line)
        pending = ""
    if pending.strip():
        yield _split(pending)


def _split(text: str) -> _Line:
    name, _, rest = text.strip().partition(" ")
    name, tab, after = name.partition("\t")
    rest = f"{after} {rest}".strip() if tab else rest.strip()
    flags: list[str] = []
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        rest = rest.lstrip()
        if flag == "--":
            break
        flags.append(flag)
    return _Line(name, tuple(flags), rest)


def _json_words(text: str) -> list[str] | None:
    """The words of a JSON array, or None if it is none. Raises Invalid if it has anything but strings."""
    if not text.startswith("["):
        return None
    try:
        words = decode(text, object)
    except msgspec.DecodeError:
        return None
    if not isinstance(words, list):
        return None
    if not all(isinstance(word, str) for word in words):
        raise Invalid("when using JSON array syntax, arrays must be comprised of strings only")
    return words


def _pairs(line: _Line, state: _State) -> list[tuple[str, str]]:
    """`NAME=value ...`, or the old form `NAME value`."""
    words = split_words(line.needed())
    if not words:
        raise Invalid(f"{line.word} requires at least one argument")
    if "=" not in words[0]:
        parts = line.rest.split(None, 1)
        if len(parts) < 2:
            raise Invalid(f"{line.word} must have two arguments")
        return [(state.expand(parts[0]), state.expand(parts[1]))]
    found: list[tuple[str, str]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise Invalid(f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value')
        if not name:
            raise Invalid(f"{line.word} names can not be blank")
        found.append((state.expand(name), state.expand(value)))
    return found


def _env(state: _State, line: _Line) -> None:
    entries = {entry.partition("=")[0]: entry for entry in state.config.env or []}
    entries |= {name: f"{name}={value}" for name, value in _pairs(line, state)}
    state.set(env=list(entries.values()))


def _label(state: _State, line: _Line) -> None:
    state.set(labels={**(state.config.labels or {}), **dict(_pairs(line, state))})


def _command_words(state: _State, text: str) -> list[str]:
    """A shell form gets the shell in front."""
    words = _json_words(text)
    return [*(state.config.shell or _DEFAULT_SHELL), *([text] if text else [])] if words is None else words


def _cmd(state: _State, line: _Line) -> None:
    state.set(cmd=_command_words(state, line.rest))
    state.own_command = state.own_command or bool(line.rest)


def _entrypoint(state: _State, line: _Line) -> None:
    state.set(entrypoint=(_command_words(state, line.rest) if line.rest else None) or None)
    if not state.own_command:
        state.set(cmd=None)


def _healthcheck(state: _State, line: _Line) -> None:
    kind, _, rest = line.needed().partition(" ")
    rest = rest.strip()
    if kind.upper() == "NONE":
        if rest:
            raise Invalid("HEALTHCHECK NONE takes no arguments")
        state.set(healthcheck=Healthcheck(["NONE"]))
        return
    settings = _health_flags(line.flags)
    if kind.upper() != "CMD":
        raise Invalid(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    words = _json_words(rest)
    if not rest or words == []:
        raise Invalid("Missing command after HEALTHCHECK CMD")
    test = ["CMD-SHELL", rest] if words is None else ["CMD", *words]
    state.set(healthcheck=Healthcheck(test, **settings))


def _health_flags(flags: Sequence[str]) -> dict[str, int]:
    found: dict[str, str] = {}
    for flag in flags:
        name, equals, value = flag.removeprefix("--").partition("=")
        if name not in HEALTH_FLAGS:
            raise Invalid(f"unknown flag: --{name}")
        if not equals:
            raise Invalid(f"missing a value on flag: --{name}")
        found[name] = value
    return health_settings(found)


def _expose(state: _State, line: _Line) -> None:
    ports = dict(state.config.exposed_ports or {})
    for word in line.needed().split():
        for port in split_words(state.expand(word)):
            ports |= {name: {} for name in _port_names(port)}
    state.set(exposed_ports=ports)


def _port_names(text: str) -> list[str]:
    """`80`, `80/udp`, `8000-8010/tcp`; of `host:container` the container's."""
    numbers, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    match = _PORT.fullmatch(numbers)
    first, last = (match["first"], match["last"]) if match else ("", None)
    limits = [first, first if last is None else last]
    if not all(re.fullmatch(r"[0-9]{1,5}", limit) and int(limit) <= 65535 for limit in limits) or int(limits[1]) < int(limits[0]):
        raise Invalid(f"Invalid containerPort: {numbers.rpartition(':')[2]}")
    if protocol not in _PROTOCOLS:
        raise Invalid(f"Invalid proto: {protocol}")
    return [f"{number}/{protocol}" for number in range(int(limits[0]), int(limits[1]) + 1)]


def _user(state: _State, line: _Line) -> None:
    state.set(user=state.expand(line.single()))


def _volume(state: _State, line: _Line) -> None:
    words = _json_words(line.needed())
    paths = [state.expand(word.strip()) for word in (line.rest.split() if words is None else words)]
    if not paths:
        raise Invalid("VOLUME requires at least one argument")
    if not all(paths):
        raise Invalid("VOLUME specified can not be an empty string")
    state.set(volumes={**(state.config.volumes or {}), **{path: {} for path in paths}})


def _workdir(state: _State, line: _Line) -> None:
    path = state.expand(line.single())
    state.set(working_dir=posixpath.normpath(posixpath.join("/", state.config.working_dir, path)))


def _stop_signal(state: _State, line: _Line) -> None:
    name = state.expand(line.single())
    parse_signal(name)
    state.set(stop_signal=name)


def _on_build(state: _State, line: _Line) -> None:
    trigger = line.needed().split()[0].upper()
    if trigger == "ONBUILD":
        raise Invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise Invalid(f"{trigger} isn't allowed as an ONBUILD trigger")
    state.set(on_build=[*(state.config.on_build or []), line.rest])


_HANDLERS: dict[str, Callable[[_State, _Line], None]] = {
    "CMD": _cmd, "ENTRYPOINT": _entrypoint, "HEALTHCHECK": _healthcheck, "ENV": _env, "EXPOSE": _expose, "LABEL": _label,
    "ONBUILD": _on_build, "STOPSIGNAL": _stop_signal, "USER": _user, "VOLUME": _volume, "WORKDIR": _workdir,
}  # fmt: skip
