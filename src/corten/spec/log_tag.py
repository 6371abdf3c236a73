"""The log option `tag`: Docker's placeholders, and the attributes that `labels` and `env` pick. Pure.

Of Go's templates there are fields, `json`, `lower`, `upper`, `title`, `println`-free text, and no control flow: Docker documents the
fields only. Source: moby daemon/logger/loginfo.go, loggerutils/log_tag.go (28.5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from corten.errors import Invalid

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_FIELD = re.compile(r"(?:(\w+)\s+)?\.(\w+)")
_SHORT = 12
_FUNCTIONS: dict[str, Callable[[str], str]] = {
    "": str,
    "json": lambda value: msgspec.json.encode(value).decode(),
    "lower": str.lower,
    "upper": str.upper,
    "title": str.title,
    "print": str,
}


@dataclass(frozen=True)
class Subject:
    """The container as log drivers speak of it. `image_id` has its algorithm."""

    id: str
    name: str
    image_id: str
    image_name: str
    command: str
    hostname: str
    created: str

    def field(self, name: str) -> str | None:
        return {
            "ID": self.id[:_SHORT], "FullID": self.id, "Name": self.name, "ImageID": self.image_id.partition(":")[2][:_SHORT],
            "ImageFullID": self.image_id, "ImageName": self.image_name, "Command": self.command, "Hostname": self.hostname,
            "DaemonName": "docker",
        }.get(name)  # fmt: skip


def render(template: str, subject: Subject) -> str:
    """Raises Invalid with Go's texts."""
    if _ACTION.sub("", template).count("{{"):
        raise Invalid("template: log-tag:1: unclosed action")
    return _ACTION.sub(lambda action: _evaluate(action[1], subject), template)


def _evaluate(action: str, subject: Subject) -> str:
    match = _FIELD.fullmatch(action)
    if not match:
        raise Invalid(f"template: log-tag:1: {action!r} in the log option tag is not supported: use one of Docker's placeholders, such as {{{{.Name}}}}")
    function, name = _FUNCTIONS.get(match[1] or ""), match[2]
    if function is None:
        raise Invalid(f'template: log-tag:1: function "{match[1]}" not defined')
    value = subject.field(name)
    if value is None:
        raise Invalid(f"template: log-tag:1:2: executing \"log-tag\" at <.{name}>: can't evaluate field {name} in type *logger.Info")
    return function(value)


def pick_attributes(options: Mapping[str, str], labels: Mapping[str, str], environment: list[str]) -> dict[str, str]:
    """What `labels`, `labels-regex`, `env` and `env-regex` choose. Raises Invalid for a regular expression that is none."""
    variables = {name: value for name, separator, value in (entry.partition("=") for entry in environment) if separator}
    return _pick(options, "labels", labels) | _pick(options, "env", variables)


def _pick(options: Mapping[str, str], key: str, values: Mapping[str, str]) -> dict[str, str]:
    found = {name: values[name] for name in options.get(key, "").split(",") if name in values}
    expression = options.get(f"{key}-regex", "")
    if expression:
        try:
            pattern = re.compile(expression)
        except re.error as error:
            raise Invalid(f"error parsing regexp: {error}: `{expression}`") from None
        found |= {name: value for name, value in values.items() if pattern.search(name)}
    return found
