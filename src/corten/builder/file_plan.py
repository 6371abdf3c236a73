"""What the file worker (file_job.py) is told to do, as values: actions whose sources are entries and whose targets are paths inside the root.

A plan travels in a file: the plan, then its actions one by one, a large copy in parts, so that neither side has all of a large context at once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import msgspec

from corten.builder.entries import Entry
from corten.spec.runtime import Mount


class Source(msgspec.Struct, frozen=True, array_like=True):
    """One source of a copy: entries by their path below the target, a folder before its content. See select.Group for `name`.

    `origin` is where their bytes are: a context's folder, or empty for the layers' own folders.
    """

    name: str
    origin: str
    items: Sequence[tuple[str, Entry]]
    linkable: list[int] = []  # of a context's large files those that this step may take as hard links (Entry.place)


class PutCopy(msgspec.Struct, frozen=True, tag="copy"):
    target: str
    sources: list[Source]
    owner: str = ""
    mode: str = ""
    unpack: bool = False


class PutFolder(msgspec.Struct, frozen=True, tag="mkdir"):
    path: str
    mode: int
    owner: str = ""


class PutFile(msgspec.Struct, frozen=True, tag="mkfile"):
    path: str
    name: str
    data: bytes
    mode: str
    owner: str = ""


Action = PutCopy | PutFolder | PutFile


class FilePlan(msgspec.Struct, frozen=True):
    """`mounts` go on `root`; without any, the root is `upper` itself, and owners' names are in `passwd` and `group`.

    `layers` is the folder that has the layers' by number; `time` (nanoseconds) is that of all that the step makes itself. `origins` are those
    of all sources; `unpack` says whether any copy unpacks archives.
    """

    root: str
    mounts: list[Mount]
    upper: str
    layers: str
    time: int
    origins: list[str]
    unpack: bool = False
    passwd: str = ""
    group: str = ""


_PART = 2048  # entries
_HEAD = struct.Struct(">I")
_encode = msgspec.msgpack.Encoder().encode
_decode_plan, _decode_action = msgspec.msgpack.Decoder(FilePlan).decode, msgspec.msgpack.Decoder(Action).decode


def write_plan(file: IO[bytes], plan: FilePlan, actions: Iterable[Action]) -> None:
    _write(file, plan)
    for action in actions:
        for part in _parts(action):
            _write(file, part)


def read_plan(file: IO[bytes]) -> tuple[FilePlan, Iterator[Action]]:
    """The actions are read as they are asked for."""
    return _decode_plan(_read(file)), map(_decode_action, iter(lambda: _read(file), b""))


def _write(file: IO[bytes], value: FilePlan | Action) -> None:
    data = _encode(value)
    file.write(_HEAD.pack(len(data)) + data)


def _read(file: IO[bytes]) -> bytes:
    """One value; nothing at the end."""
    head = file.read(_HEAD.size)
    return file.read(_HEAD.unpack(head)[0]) if head else b""


def _parts(action: Action) -> Iterator[Action]:
    """The same action, in the same order, some entries at a time."""
    if not isinstance(action, PutCopy):
        yield action
        return
    for source in action.sources:
        for start in range(0, max(1, len(source.items)), _PART):
            items = source.items[start : start + _PART]
            linkable = [entry.place for _, entry in items if entry.place in source.linkable] if source.linkable else []
            yield msgspec.structs.replace(action, sources=[msgspec.structs.replace(source, items=items, linkable=linkable)])
