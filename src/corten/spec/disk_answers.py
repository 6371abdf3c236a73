"""What `/corten/disk` answers: usage, collector, fsck. Types only; Corten's own (docs/own-api.md)."""

from __future__ import annotations

import msgspec


class _Answer(msgspec.Struct, frozen=True, rename="pascal"):
    """Base: Docker's PascalCase keys."""


class FileSystem(_Answer, frozen=True):
    """Bytes: of the file system that the store is on, what of it anybody uses, and what the store itself takes."""

    total: int
    used: int
    store: int


class CollectorState(_Answer, frozen=True):
    automatic: bool
    high: str
    low: str
    kinds: list[str]
    unused_for: dict[str, str]


class DiskRow(_Answer, frozen=True):
    """`size`: bytes of all that it holds; `unique`: of what nothing else holds; `kept`: why it does not go; `next`: its place in the order, or 0."""

    kind: str
    id: str
    names: list[str]
    last_used: str
    size: int
    unique: int
    kept: str
    next: int


class Holder(_Answer, frozen=True):
    kind: str
    id: str


class HeldLayer(_Answer, frozen=True):
    diff_id: str = msgspec.field(name="DiffID")
    size: int
    holders: list[Holder]


class DiskDetail(_Answer, frozen=True):
    file_system: FileSystem
    collector: CollectorState
    rows: list[DiskRow]
    layers: list[HeldLayer]


class CollectStep(_Answer, frozen=True):
    kind: str
    id: str
    names: list[str]
    last_used: str
    frees: int


class Collected(_Answer, frozen=True):
    """`done` is False for a dry run."""

    done: bool
    freed: int
    steps: list[CollectStep]


class StoreProblem(_Answer, frozen=True):
    """`kind`: blob or layer; `images`: ids of those that need it; `how`: what was done, or why nothing could be."""

    kind: str
    id: str
    problem: str
    images: list[str]
    repaired: bool
    how: str


class StoreChecked(_Answer, frozen=True):
    """How many blobs and layers were looked at, and what is wrong."""

    blobs: int
    layers: int
    problems: list[StoreProblem]
