"""What `corten build` tells the engine besides Docker's parameters: secrets, SSH agents, named contexts. A header, so that no address or log has it.

Source: our own; docs/own-api.md. Pure.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from corten.errors import Invalid
from corten.spec.foreign_json import decode

HEADER = "X-Corten-Build"
SENT = "sent:"  # a named context that is a folder of the tar: SENTn is below SENT_FOLDER/n
SENT_FOLDER = ".corten-contexts"
LONGEST = 1 << 20  # characters of the header


class BuildExtras(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`secrets`: content by id. `agents`: sockets on the engine's host by id. `contexts`: address by name.

    `cache_to` and `cache_from` are places as `cacheto` and `cachefrom` have them, for those whose keys no address should have.

    `known_hosts`: lines of ssh's file of that name, for git over SSH.

    An address is `docker-image://REFERENCE`, a git repository, http(s):// of a tar, or `sent:N`.
    """

    secrets: dict[str, bytes] = msgspec.field(default_factory=dict)
    agents: dict[str, str] = msgspec.field(default_factory=dict)
    contexts: dict[str, str] = msgspec.field(default_factory=dict)
    cache_to: tuple[str, ...] = ()
    cache_from: tuple[str, ...] = ()
    known_hosts: str = ""


def encode_extras(extras: BuildExtras) -> str:
    """Raises Invalid if it is too much for a header."""
    text = base64.urlsafe_b64encode(msgspec.json.encode(extras)).decode()
    if len(text) > LONGEST:
        raise Invalid(f"secrets and contexts are {len(text)} characters, and {LONGEST} can be sent")
    return text


def decode_extras(text: str) -> BuildExtras:
    """Raises Invalid. What is wrong is told without the content."""
    try:
        return decode(base64.urlsafe_b64decode(text), BuildExtras) if text else BuildExtras()
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise Invalid(f"the header {HEADER} is not what docs/own-api.md says") from None
