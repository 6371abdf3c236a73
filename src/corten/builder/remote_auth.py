"""Which of a build's secrets open an address: for whoever fetches it, and for nobody else. Pure.

Source: Dockerfile reference, "ADD", private resources; BuildKit's source/http and source/git for names and their order.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from urllib.parse import urlsplit

_GIT_USER = "x-access-token"


def http_authorization(url: str, secrets: Mapping[str, bytes]) -> str:
    """The value of the header; empty: there is none. HTTP_AUTH_HEADER_<host>, else HTTP_AUTH_TOKEN_<host>."""
    host = urlsplit(url).hostname or ""
    header, token = (_text(secrets, f"HTTP_AUTH_{kind}_{host}") for kind in ("HEADER", "TOKEN"))
    return header or (f"Bearer {token}" if token else "")


def git_authorization(url: str, secrets: Mapping[str, bytes]) -> str:
    """GIT_AUTH_HEADER.<host>, GIT_AUTH_TOKEN.<host>, and then both without the host."""
    for suffix in (f".{urlsplit(url).netloc.rpartition('@')[2]}", ""):
        header, token = (_text(secrets, f"GIT_AUTH_{kind}{suffix}") for kind in ("HEADER", "TOKEN"))
        if header or token:
            return header or f"basic {base64.b64encode(f'{_GIT_USER}:{token}'.encode()).decode()}"
    return ""


def _text(secrets: Mapping[str, bytes], name: str) -> str:
    return secrets.get(name, b"").decode("utf-8", "replace").strip()
