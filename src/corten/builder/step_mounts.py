"""What RUN --mount=type=bind shows of an input: which folders of which layers, put together without mounting anything outside the step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from corten.builder.entries import FOLDER, digest_of_entry
from corten.builder.file_plan import Source
from corten.builder.graph import Copy
from corten.builder.ingredients import chain_digest
from corten.builder.select import select
from corten.builder.trees import ChainTree, follow
from corten.errors import NotFound
from corten.spec.digest import digest_of
from corten.spec.runtime import Mount
from corten.store import overlay_view


class NoSuchMountSource(NotFound):
    template = "mount source {source}: no such file or directory"


@dataclass(frozen=True)
class Bound:
    """`folders`: those that make up the source, topmost first; of a file the one path. `digest` is of what is to be seen."""

    target: str
    folders: tuple[str, ...]
    is_folder: bool
    digest: str
    layers: tuple[str, ...] = ()
    path: str = ""

    def source_of_all(self) -> Source:
        """The source's content as something to copy. For threads: it reads folders."""
        groups = select(ChainTree(self.layers), Copy(0, (self.path,), "/", wildcard=False), lambda _patterns: lambda _path: False)
        return Source("", "", [item for group in groups for item in group.items])


def look(target: str, source: str, chain: Sequence[str], folders: Sequence[str]) -> Bound:
    """For threads: it reads folders. Raises NoSuchMountSource."""
    tree = ChainTree(folders)
    path = follow(tree, source)
    entry = tree.look(path) if path is not None else None
    if path is None or entry is None:
        raise NoSuchMountSource(source=source)
    if not path:
        return Bound(target, tuple(folders), is_folder=True, digest=chain_digest(chain), layers=tuple(folders))
    node = overlay_view.look_up(folders, path)
    if node is None:
        raise NoSuchMountSource(source=source)
    if entry.kind != FOLDER:
        return Bound(target, (node.path,), is_folder=False, digest=digest_of_entry(tree.digested(entry)))
    groups = select(tree, Copy(0, (path,), "/", wildcard=False), lambda _patterns: lambda _path: False)
    facts = [(below, digest_of_entry(inside)) for group in groups for below, inside in group.items]
    return Bound(target, node.sources, is_folder=True, digest=digest_of(msgspec.json.encode(facts)), layers=tuple(folders), path=path)


def bind_mount(bound: Bound, scratch: str, *, readonly: bool) -> Mount:
    """`scratch` is a folder for what is written and thrown away, and for sources that are empty."""
    lower = list(bound.folders)
    if not bound.is_folder:
        path = lower[0]
        if not readonly:
            path = shutil.copy2(path, f"{scratch}/file")
        return Mount(bound.target, "bind", path, ["bind", "rprivate", "ro" if readonly else "rw"])
    for name in ("empty", "upper", "work"):
        os.mkdir(f"{scratch}/{name}")
    if not readonly:
        lower = lower or [f"{scratch}/empty"]
        return Mount(bound.target, "overlay", "overlay", [f"lowerdir={':'.join(lower)}", f"upperdir={scratch}/upper", f"workdir={scratch}/work"])
    if len(lower) < 2:
        return Mount(bound.target, "bind", lower[0] if lower else f"{scratch}/empty", ["bind", "ro", "rprivate"])
    return Mount(bound.target, "overlay", "overlay", ["ro", f"lowerdir={':'.join(lower)}"])
