"""What the file worker (file_job.py) is told to do, as values: actions whose sources are entries and whose targets are paths inside the root."""

from __future__ import annotations

import msgspec

from corten.builder.entries import Entry
from corten.spec.runtime import Mount


class Source(msgspec.Struct, frozen=True, array_like=True):
    """One source of a copy: entries by their path below the target, a folder before its content. See select.Group for `name`.

    `origin` is where their bytes are: a context's folder, or empty for the layers' own folders.
    """

    name: str
    origin: str
    items: list[tuple[str, Entry]]
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


class FilePlan(msgspec.Struct, frozen=True):
    """`mounts` go on `root`; without any, the root is `upper` itself, and owners' names are in `passwd` and `group`.

    `layers` is the folder that has the layers' by number; `time` (nanoseconds) is that of all that the step makes itself.
    """

    root: str
    mounts: list[Mount]
    upper: str
    layers: str
    time: int
    actions: list[PutCopy | PutFolder | PutFile]
    passwd: str = ""
    group: str = ""


encode_plan = msgspec.msgpack.Encoder().encode
decode_plan = msgspec.msgpack.Decoder(FilePlan).decode
