"""Image references by Docker's grammar: `[domain/]path[:tag][@digest]`, with Docker's defaults.

Source: distribution/reference grammar (github.com/distribution/reference, reference.go). Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from corten.errors import Invalid, InvalidReference, UppercaseReference

DEFAULT_DOMAIN = "docker.io"
OFFICIAL_PREFIX = "library/"
DEFAULT_TAG = "latest"
NAME_LIMIT = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?")
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"([A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*):([0-9a-fA-F]{32,})")
_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}  # of the algorithms that Docker knows
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True)
class Reference:
    """A parsed reference. `domain` and `path` are normalised; `tag` and `digest` may be empty."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The repository in full: `docker.io/library/debian`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as Docker shows it: `debian`, `user/app`, `registry:5000/app`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        return self.path.removeprefix(OFFICIAL_PREFIX) if self.path.count("/") == 1 else self.path

    @property
    def familiar(self) -> str:
        """As Docker shows it, with tag and digest."""
        return self.familiar_name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> Reference:
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)


def _split_domain(name: str) -> tuple[str, str]:
    head, slash, rest = name.partition("/")
    if not slash or (not any(mark in head for mark in ".:") and head != "localhost" and head.lower() == head):
        return DEFAULT_DOMAIN, name if "/" in name else OFFICIAL_PREFIX + name
    if head == "index.docker.io":
        head = DEFAULT_DOMAIN
    if head == DEFAULT_DOMAIN and "/" not in rest:
        rest = OFFICIAL_PREFIX + rest
    return head, rest


def _check_digest(text: str) -> None:
    """By the grammar first, then by its algorithm. The texts are go-digest's."""
    found = _DIGEST.fullmatch(text)
    if not found:
        raise InvalidReference
    digits = _DIGITS.get(found[1])
    if digits is None:
        raise Invalid("unsupported digest algorithm")
    if len(found[2]) != digits:
        raise Invalid("invalid checksum digest length")
    if found[2] != found[2].lower():
        raise Invalid("invalid checksum digest format")


def is_identifier(text: str) -> bool:
    """Whether it is an image's id in full, which no reference can be."""
    return _IDENTIFIER.fullmatch(text) is not None


def parse_tag(text: str) -> str:
    """A tag that stands by itself. Raises Invalid."""
    if not _TAG.fullmatch(text):
        raise Invalid("invalid tag format")
    return text


def parse_reference(text: str) -> Reference:
    """Parse a familiar reference. Raises Invalid with Docker's text."""
    if is_identifier(text):
        raise Invalid(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    name, at, digest = text.partition("@")
    if at:
        _check_digest(digest)
    tag = ""
    colon = name.rfind(":")
    if colon > name.rfind("/"):
        name, tag = name[:colon], name[colon + 1 :]
        if not _TAG.fullmatch(tag):
            raise InvalidReference
    domain, path = _split_domain(name)
    if path.lower() != path:
        raise UppercaseReference(name=path)
    if not _DOMAIN.fullmatch(domain) or not _PATH.fullmatch(path):
        raise InvalidReference
    if len(path) > NAME_LIMIT:
        raise Invalid(f"repository name must not be more than {NAME_LIMIT} characters")
    return Reference(domain, path, tag, digest)


def familiar_name(text: str) -> str:
    """The repository of a reference as Docker shows it, or the text itself if it is none."""
    try:
        return parse_reference(text).familiar_name
    except Invalid:
        return text
