"""The values of RUN's flags --mount and --device: comma-separated options. Pure.

Source: Dockerfile reference, "RUN --mount", "RUN --device"; BuildKit's frontend/dockerfile/instructions for defaults and texts. What an
option's value means to the build (stages, folders, ids) is convert's business.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from corten.builder.near_miss import did_you_mean
from corten.errors import Invalid
from corten.spec.go_values import parse_bool, parse_size

Expander = Callable[[str], str]

MOUNT_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARING = ("shared", "private", "locked")
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_FLAGS = ("readonly", "readwrite", "required")  # may come without a value
_ONLY_OF = {"size": ("tmpfs",), "required": ("secret", "ssh")}
_OWNED = ("cache", "secret", "ssh")  # take mode, uid and gid
_KEYS = ("type", "from", "source", "target", "readonly", "id", "sharing", "required", "size", "mode", "uid", "gid",
         "src", "dst", "destination", "ro", "rw", "readwrite", "env")  # fmt: skip


@dataclass(frozen=True)
class MountOptions:
    """One --mount. `origin` is `from`; empty and None: not given. `size` in bytes."""

    type: str = "bind"
    origin: str = ""
    source: str = ""
    target: str = ""
    id: str = ""
    readonly: bool = True
    required: bool = False
    size: int = 0
    sharing: str = ""
    env: str | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


def mount_origin(text: str) -> str:
    """The `from` of a --mount, which is known before anything is expanded. Raises Invalid."""
    found = ""
    for key, value, _ in _fields(text, "mounts"):
        if key == "from" and value is not None:
            if 0 <= value.find("$") < len(value) - 1:
                raise Invalid("'from' doesn't support variable expansion, define alias stage instead")
            found = value
    return found


def read_mount(text: str, expand: Expander) -> MountOptions:
    """With variables put in. Raises Invalid."""
    given: dict[str, str | None] = {}
    for key, value, written in _fields(text, "mounts"):
        if key not in _KEYS:
            raise Invalid(f"unexpected key '{key}' in '{written}'{did_you_mean(key, _KEYS)}")
        key = _ALIASES.get(key, key)  # noqa: PLW2901 - the alias is the same option
        if value is None and key not in _FLAGS:
            raise Invalid(f"invalid field '{written}' must be a key=value pair")
        given.pop(key, None)  # the last one counts, in its place
        given[key] = None if value is None else expand(value)
    kind = _one_of("mount type", given.pop("type", None) or "bind", MOUNT_TYPES)
    for key, kinds in _ONLY_OF.items():
        if key in given and kind not in kinds:
            raise Invalid(f"unexpected key '{key}' for mount type '{kind}'")
    for key in ("mode", "uid", "gid"):
        if key in given and kind not in _OWNED:
            raise Invalid(f'{key} not allowed for "{kind}" type mounts')
    mount = MountOptions(
        kind, given.get("from") or "", given.get("source") or "", given.get("target") or "", given.get("id") or "",
        readonly=_readonly(given, kind), required=_flag(given, "required", otherwise=False),
        size=_number(given, "size", lambda value: parse_size(value, unit=1024)) or 0,
        sharing=_one_of("sharing value", given["sharing"], SHARING) if given.get("sharing") else "", env=given.get("env"),
        mode=_number(given, "mode", _octal), uid=_number(given, "uid", _decimal), gid=_number(given, "gid", _decimal),
    )  # fmt: skip
    _check(mount)
    return mount


def _check(mount: MountOptions) -> None:
    if mount.type == "secret":
        if mount.origin:
            raise Invalid("secret mount should not have a from")
        if mount.sharing:
            raise Invalid("secret mount should not define sharing")
        if not (mount.source or mount.target or mount.id):
            raise Invalid("invalid secret mount. one of source, target required")
        if mount.source and mount.id:
            raise Invalid("both source and id can't be set")
    elif mount.type == "ssh" and mount.source:
        raise Invalid("ssh does not support source")
    if mount.sharing and mount.type != "cache":
        raise Invalid(f"invalid cache sharing set for {mount.type} mount")


def _readonly(given: dict[str, str | None], kind: str) -> bool:
    """The last of readonly and readwrite says it; else a cache and a tmpfs can be written to."""
    said = [key for key in given if key in ("readonly", "readwrite")]
    if not said:
        return kind not in ("cache", "tmpfs")
    return _flag(given, said[-1], otherwise=False) == (said[-1] == "readonly")


def _flag(given: dict[str, str | None], key: str, *, otherwise: bool) -> bool:
    if key not in given:
        return otherwise
    value = given[key]
    try:
        return True if value is None else parse_bool(value)
    except Invalid:
        raise Invalid(f"invalid value for {key}: {value}") from None


def _number(given: dict[str, str | None], key: str, read: Callable[[str], int]) -> int | None:
    if key not in given:
        return None
    value = given[key] or ""
    try:
        return read(value)
    except (Invalid, ValueError):
        raise Invalid(
            f"invalid value for {key}: {value}" if key == "size" else f"invalid value {value} for {key}"
        ) from None


def _octal(value: str) -> int:
    if not re.fullmatch(r"[0-7]{1,11}", value):
        raise ValueError(value)
    return int(value, 8)


def _decimal(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", value) or int(value) >= 1 << 32:
        raise ValueError(value)
    return int(value)


def _one_of(what: str, value: str | None, options: tuple[str, ...]) -> str:
    found = (value or "").lower()
    if found not in options:
        raise Invalid(f'unsupported {what} "{found}"{did_you_mean(value or "", options)}')
    return found


def _fields(text: str, what: str) -> Iterator[tuple[str, str | None, str]]:
    """Key in lower case, value (None without `=`), and the field as written. A field may be quoted, as CSV has it."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise Invalid(f"failed to parse csv {what}: {error}") from None
    for written in rows[0] if rows else []:
        key, equals, value = written.partition("=")
        yield key.lower(), value if equals else None, written


@dataclass(frozen=True)
class DeviceOptions:
    """One --device: a CDI name, kind, or class. A device that is not required may be missing."""

    name: str
    required: bool = False


def read_device(text: str) -> DeviceOptions:
    """Raises Invalid."""
    name, required = "", False
    for key, value, written in _fields(text, "devices"):
        if key == "required":
            required = _flag({key: value}, key, otherwise=False)
        elif key == "name" and value is not None:
            if name:
                raise Invalid(f"device name already set to {name}")
            name = value
        elif not name:
            name = written
        elif value is None:
            raise Invalid(f"invalid field '{written}' must be a key=value pair")
        else:
            raise Invalid(f"unexpected key '{key}' in '{written}'{did_you_mean(key, ('name', 'required'))}")
    if not name:
        raise Invalid("a device needs a name")
    return DeviceOptions(name, required)
