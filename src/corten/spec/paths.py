"""Paths as instructions write them, made absolute and clean. Pure."""

from __future__ import annotations

import posixpath


def clean(path: str) -> str:
    """Go's path.Clean: Python's, but for two slashes in front."""
    found = posixpath.normpath(path)
    return "/" + found.lstrip("/") if path.startswith("/") else found


def joined(folder: str, path: str) -> str:
    """Absolute. `..` stops at the root."""
    return clean(posixpath.join("/", folder, path))


def target(folder: str, path: str) -> str:
    """Of COPY and ADD: a slash at the end (or `.`) says that it is a folder."""
    found = joined(folder, path)
    is_folder = path.endswith(("/", "/.")) or path in ("", ".")
    return f"{found}/" if is_folder and found != "/" else found
