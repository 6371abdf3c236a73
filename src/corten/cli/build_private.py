"""What only the user of `corten build` has, and the engine needs: secrets, agents, known hosts. From flags to values."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

import click

from corten.errors import Invalid

_KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
_MOST = 256 << 10  # characters of known hosts that are sent


def _fields(text: str) -> dict[str, str]:
    return dict(field.partition("=")[::2] for field in text.split(","))


def secrets(values: tuple[str, ...]) -> dict[str, bytes]:
    """`id=NAME,src=FILE` or `id=NAME,env=VARIABLE`; without either, the variable NAME, and else the file NAME."""
    found: dict[str, bytes] = {}
    for each in values:
        fields = _fields(each)
        unknown = fields.keys() - {"id", "src", "source", "env", "type"}
        name = fields.get("id", "")
        if unknown or not name:
            raise click.BadParameter(f"invalid secret {each!r}: want id=NAME with src=FILE or env=VARIABLE")
        file, variable = fields.get("src") or fields.get("source"), fields.get("env") or (name if fields.get("type") != "file" else "")
        if not file and variable in os.environ:
            found[name] = os.fsencode(os.environ[variable])
            continue
        try:
            with open(file or name, "rb") as source:
                found[name] = source.read()
        except OSError as error:
            raise Invalid(f"the secret {name}: {file or name}: {error.strerror}") from None
    return found


def agents(values: tuple[str, ...]) -> dict[str, str]:
    """`default` or `NAME=SOCKET`. Keys themselves are not sent: an agent is to have them."""
    found: dict[str, str] = {}
    for each in values:
        name, _, path = each.partition("=")
        path = path or os.environ.get("SSH_AUTH_SOCK", "")
        if not path or not _is_socket(path):
            raise click.BadParameter(f"{each!r}: {path or 'SSH_AUTH_SOCK'} is no agent's socket; start ssh-agent and add the key to it")
        found[name] = os.path.abspath(path)
    return found


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def known_hosts() -> str:
    """What ssh here knows of hosts. Raises Invalid where that is too much to send."""
    found = ""
    for path in _KNOWN_HOSTS:
        with suppress(FileNotFoundError, PermissionError), open(os.path.expanduser(path), encoding="utf-8", errors="replace") as file:
            found += f"{file.read().rstrip()}\n"
    if len(found) > _MOST:
        raise Invalid(f"{' and '.join(_KNOWN_HOSTS)} have {len(found)} characters, and {_MOST} can be sent: drop hosts that are no longer needed (ssh-keygen -R HOST)")
    return found
