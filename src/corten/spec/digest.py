"""Digests as OCI names them: `sha256:<64 hex>`. Pure; hashing files is the store's work.

Source: OCI image-spec, descriptor.md, "Digests".
"""

from __future__ import annotations

import hashlib
import re

from corten.errors import Invalid

_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")


def parse_digest(text: str) -> str:
    """Return `text` if it is a canonical sha256 digest; raise Invalid otherwise."""
    if not _PATTERN.fullmatch(text):
        raise Invalid(f"invalid digest {text!r}: want sha256: and 64 lower-case hexadecimal digits")
    return text


def is_digest(text: str) -> bool:
    return _PATTERN.fullmatch(text) is not None


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def encoded(digest: str) -> str:
    """The 64 hexadecimal digits of a digest."""
    return digest.partition(":")[2]
