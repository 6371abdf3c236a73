"""Credentials, challenges, reasons: what a client sent in X-Registry-Auth, what a registry asks for, why it refuses. Pure.

Sources: Docker Engine API "Authentication"; RFC 7235 challenges; distribution token authentication specification.
"""

from __future__ import annotations

import base64
import binascii
import re

import msgspec

from corten.errors import Invalid
from corten.spec.foreign_json import decode

_PARAMETER = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"|(\w+)=([^\s,"]+)')


class Credentials(msgspec.Struct, frozen=True):
    """Empty values are anonymous. An identity token stands in for the password."""

    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""
    auth: str = ""
    serveraddress: str = ""

    def __repr__(self) -> str:  # never in a log
        return f"Credentials(username={self.username!r})"

    @property
    def basic(self) -> str:
        """The Authorization value, or empty."""
        if not self.username:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def parse_registry_auth(header: str) -> Credentials:
    """X-Registry-Auth: base64url of JSON. Raises Invalid."""
    if not header:
        return Credentials()
    try:
        # Clients send both alphabets, with and without padding.
        plain = header.translate(str.maketrans("-_", "+/")).rstrip("=")
        data = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        return decode(data, Credentials) if data.strip() else Credentials()
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise Invalid(f"invalid X-Registry-Auth header: {error}") from None


class Challenge(msgspec.Struct, frozen=True):
    scheme: str
    parameters: dict[str, str]


def parse_challenge(header: str) -> Challenge:
    """`Bearer realm="...",service="...",scope="..."`; keys in lower case."""
    scheme, _, rest = header.strip().partition(" ")
    found = {
        (quoted_key or key).lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted_key else value
        for quoted_key, quoted, key, value in _PARAMETER.findall(rest)
    }
    return Challenge(scheme.lower(), found)


class _Reason(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Refusal(msgspec.Struct):
    errors: list[_Reason]


def first_reason(body: bytes) -> str:
    """A refusal's first reason, `code: message` with Docker's lower-case code; empty where the body gives none."""
    try:
        found = decode(body, _Refusal).errors
    except msgspec.DecodeError:
        return ""
    return f"{found[0].code.lower().replace('_', '')}: {found[0].message}" if found else ""
