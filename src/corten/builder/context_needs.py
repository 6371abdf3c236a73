"""What a build's steps take of a context: the entries that a client has to send, found before anything runs. Pure.

It is found as the steps find it (select.py), so that no step can need more; what a step will not find is its own error, later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from corten.builder import entries
from corten.builder.entries import Entry
from corten.builder.graph import Bind, Copy, Exec, File, Local, Vertex, in_order
from corten.builder.graph import Cache as CacheMount
from corten.builder.select import Excludes, select
from corten.builder.trees import ContextTree
from corten.errors import CortenError


class _Listing(ContextTree):
    """A context of which nothing but its names need be known."""

    def digested(self, entry: Entry) -> Entry:
        return entry


def needed_files(target: Vertex, name: str, listed: Sequence[Entry], excludes: Callable[[tuple[str, ...]], Excludes]) -> set[str]:
    """Paths of the files that the target's steps take of the context `name`."""
    trees: dict[tuple[str, ...], _Listing] = {}
    found: set[str] = set()
    for op, copy in _copies(target, name):
        tree = trees.get(op.ignore)
        if tree is None:
            tree = trees[op.ignore] = _Listing(lambda: listed, excludes(op.ignore) if op.ignore else None)
        with suppress(CortenError):
            for group in select(tree, copy, excludes):
                found |= {entry.path for _, entry in group.items if entry.kind == entries.FILE}
    return found


def _copies(target: Vertex, name: str) -> Iterator[tuple[Local, Copy]]:
    """Every copy out of that context, with the context as the copy sees it."""
    for vertex in in_order([target]):
        copies: list[Copy] = []
        if isinstance(vertex.op, File):
            copies = [action for action in vertex.op.actions if isinstance(action, Copy)]
        elif isinstance(vertex.op, Exec):
            copies = [mounted_copy(mount) for mount in vertex.op.mounts if isinstance(mount, Bind | CacheMount) and mount.input is not None]
        for copy in copies:
            op = vertex.inputs[copy.input].op
            if isinstance(op, Local) and op.name == name:
                yield op, copy


def mounted_copy(mount: Bind | CacheMount) -> Copy:
    """What a mount takes of a context, as the copy that makes a layer of it. The mount has an input."""
    return Copy(mount.input or 0, (mount.source.strip("/") or ".",), "/", wildcard=False)
