"""A case of the corpus, and the entries of its context."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# What tests.builds.context makes a tar of: text, bytes, FOLDER, Link, or (TarInfo, bytes).
Entries = Mapping[str, Any]


def file(name: str, mode: int, data: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime = mode, 1_700_000_000
    return entry, data


def folder(name: str, mode: int) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, mode, 1_700_000_000
    return entry, b""


@dataclass(frozen=True)
class Case:
    """Every one stands on `busybox`. `text` may have any line ends: it is written as it is."""

    text: str
    context: Entries
    arguments: dict[str, str] = field(default_factory=dict)
    target: str = ""

    @property
    def entries(self) -> dict[str, Any]:
        return {**self.context, "Dockerfile": self.text.encode()}
