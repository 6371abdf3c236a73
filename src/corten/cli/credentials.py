"""Credentials that `docker login` has kept, for the engine to use: ~/.docker/config.json and the helpers that it names.

Sources: docker/cli cli/config/configfile (which entry counts, the helper of a registry before the common one), docker-credential-helpers
"Development" (server on standard input, JSON on standard output, `<token>` for an identity token).
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from corten.errors import CortenError, Invalid
from corten.spec.reference import DEFAULT_DOMAIN, parse_reference

if TYPE_CHECKING:
    import subprocess

_HUB_KEY = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"
_NOT_FOUND = "credentials not found"


class _Entry(msgspec.Struct):
    auth: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class _Config(msgspec.Struct, rename="camel"):
    auths: dict[str, _Entry] = {}
    creds_store: str = ""
    cred_helpers: dict[str, str] = {}


class _Secret(msgspec.Struct, rename="pascal"):
    username: str
    secret: str


class HelperFailed(CortenError):
    template = "docker-credential-{helper} does not give the credentials of {server}: {reason}"


def registry_headers(image: str) -> dict[str, str]:
    """X-Registry-Auth for the image's registry, if anything is known. Raises Invalid for a bad file, HelperFailed."""
    config = _read()
    domain = parse_reference(image).domain
    server = _HUB_KEY if domain == DEFAULT_DOMAIN else domain
    found = _credentials(config, server)
    if not found:
        return {}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(msgspec.json.encode(found | {"serveraddress": server})).decode()}


def all_registries_header() -> dict[str, str]:
    """X-Registry-Config for a build, whose base images may be anywhere: all that is known. Raises Invalid, HelperFailed."""
    config = _read()
    servers = {*config.auths, *config.cred_helpers, *(_listed(config.creds_store) if config.creds_store else ())}
    found = {server: secret for server in sorted(servers) if (secret := _credentials(config, server))}
    return {"X-Registry-Config": base64.urlsafe_b64encode(msgspec.json.encode(found)).decode()} if found else {}


def _credentials(config: _Config, server: str) -> dict[str, str]:
    helper = config.cred_helpers.get(server) or config.creds_store
    return _from_helper(helper, server) if helper else _from_file(config, server)


def _path() -> str:
    return f"{os.environ.get('DOCKER_CONFIG') or os.path.expanduser('~/.docker')}/config.json"


def _read() -> _Config:
    path = _path()
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read() or b"{}", type=_Config)
    except FileNotFoundError:
        return _Config()
    except (OSError, msgspec.DecodeError) as error:
        raise Invalid(f"{path}: {error}") from None


def _from_file(config: _Config, server: str) -> dict[str, str]:
    entry = config.auths.get(server) or next((row for key, row in config.auths.items() if _host(key) == _host(server)), None)
    if entry is None:
        return {}
    try:
        username, _, password = base64.b64decode(entry.auth).decode().partition(":")
    except ValueError as error:
        raise Invalid(f"{_path()}: auth of {server}: {error}") from None
    if entry.registrytoken:
        return {"registrytoken": entry.registrytoken}
    if entry.identitytoken:
        return {"username": username, "identitytoken": entry.identitytoken}
    return {"username": username, "password": password.rstrip("\0")} if username else {}


def _host(key: str) -> str:
    """Keys are hosts, or what old clients wrote: addresses with a path."""
    return urlsplit(key).netloc if "://" in key else key.partition("/")[0]


def _ask(helper: str, verb: str, server: str) -> subprocess.CompletedProcess[bytes]:
    import subprocess  # few have a helper

    try:
        return subprocess.run([f"docker-credential-{helper}", verb], input=server.encode(), capture_output=True, check=False)
    except OSError as error:
        raise HelperFailed(helper=helper, server=server or "all registries", reason=error.strerror) from None


def _listed(helper: str) -> list[str]:
    """The servers that a helper knows."""
    done = _ask(helper, "list", "")
    try:
        return list(msgspec.json.decode(done.stdout, type=dict[str, str]))
    except msgspec.DecodeError as error:
        reason = done.stderr.decode(errors="replace").strip() or str(error)
        raise HelperFailed(helper=helper, server="all registries", reason=reason) from None


def _from_helper(helper: str, server: str) -> dict[str, str]:
    done = _ask(helper, "get", server)
    if done.returncode:
        said = (done.stdout or done.stderr).decode(errors="replace").strip()
        if _NOT_FOUND in said:
            return {}
        raise HelperFailed(helper=helper, server=server, reason=said or f"it ended with {done.returncode}")
    try:
        secret = msgspec.json.decode(done.stdout, type=_Secret)
    except msgspec.DecodeError as error:
        raise HelperFailed(helper=helper, server=server, reason=str(error)) from None
    if secret.username == _TOKEN_USER:
        return {"identitytoken": secret.secret}
    return {"username": secret.username, "password": secret.secret}
