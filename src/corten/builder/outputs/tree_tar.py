"""The root file system of a result as a tar, or several beside each other, with what is attested of them as files.

Runs in a child of the launcher, confined to the folder of the store's layers: nothing is mounted, the layers are read merged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import msgspec

from corten.spec.platform import Platform
from corten.store import overlay_view
from corten.store.confine import confine_to
from corten.store.tar_writer import TarWriter

TREE_JOB = "tree-tar"
_CHUNK = 1 << 20


class TreeFile(msgspec.Struct, frozen=True):
    name: str
    data: bytes


class TreePart(msgspec.Struct, frozen=True):
    """`folder` is empty or ends with a slash. `layers` are numbers of the store's folders, topmost first."""

    folder: str
    layers: list[int]
    files: list[TreeFile]


def platform_folder(platform: Platform) -> str:
    """As BuildKit calls it: `linux_arm64_v8/`."""
    return f"{str(platform).replace('/', '_')}/"


def entries(layers: Sequence[str]) -> Iterator[tuple[str, overlay_view.Node]]:
    """All that the merged layers (topmost first) show, with its path from the root; a folder before what is in it, names sorted."""
    todo = [("", overlay_view.root(layers))] if layers else []
    while todo:
        path, node = todo.pop()
        if path:
            yield path, node
        if node.is_folder:
            todo += [(f"{path}/{name}" if path else name, below) for name, below in sorted(overlay_view.children(node).items(), reverse=True)]


def write_trees(parts: Sequence[TreePart], base: str, writer: TarWriter) -> None:
    """`base` is the folder of the layers."""
    for part in parts:
        if part.folder:
            writer.folder(part.folder.rstrip("/"), 0)
        for path, node in entries([f"{base}/{number}" for number in part.layers]):
            writer.add(node.path, part.folder + path, node.status)
        for file in part.files:
            writer.document(part.folder + file.name, file.data, 0)
    writer.finish()


def job(argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the folder of the layers and where the tar goes."""
    parts = msgspec.msgpack.decode(argument, type=list[TreePart])
    confine_to(fds[0])
    with os.fdopen(fds[1], "wb", buffering=_CHUNK, closefd=False) as output:
        write_trees(parts, "", TarWriter(output))
    return b""
