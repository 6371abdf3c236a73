"""What of a tree a COPY takes: its sources resolved to entries, excludes left out. Pure but for what the tree reads.

Source: BuildKit's file op (solver/llbsolver/file, fsutil copy): a source's own path follows links, what is in a folder is taken as it is.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from corten.builder import entries
from corten.builder.entries import Entry
from corten.builder.graph import Copy
from corten.builder.near_miss import did_you_mean
from corten.builder.packed import Packed
from corten.builder.trees import ContextTree, Tree, follow
from corten.errors import NotFound
from corten.spec.wildcards import compiled, is_pattern


class NoSuchSource(NotFound):
    """Docker's text of the classic builder, and what may have been meant."""

    template = "COPY failed: file not found in build context or excluded by .dockerignore: stat {path}: file does not exist{hint}"


class NothingMatches(NotFound):
    template = "COPY failed: no source files were specified{hint}"


@dataclass(frozen=True)
class Group:
    """One source: an entry and, of a folder, all below it. `items` are (path below the target, entry), a folder before its content.

    `name` is what the source adds to a target that is a folder; empty for a folder's content.
    """

    name: str
    items: Sequence[tuple[str, Entry]]

    @property
    def is_folder(self) -> bool:
        return not self.name


class Excludes(Protocol):
    def __call__(self, path: str) -> bool: ...


def select(tree: Tree, copy: Copy, excludes: Callable[[tuple[str, ...]], Excludes]) -> list[Group]:
    """In the order of the sources; a pattern's matches are sorted. Raises NoSuchSource, NothingMatches, TooManyLinks."""
    hidden = excludes(copy.exclude) if copy.exclude else None
    found: list[Group] = []
    for source in copy.sources:
        matched = list(_matches(tree, source)) if copy.wildcard and is_pattern(source) else [_plain(tree, source, required=copy.required)]
        found += [_group(tree, source, path, copy, hidden) for path in matched if path is not None]
    if not any(group.items for group in found) and copy.required and not found:
        raise NothingMatches(hint=_hint(tree, copy.sources[0]) if copy.sources else "")
    return found


def _plain(tree: Tree, source: str, *, required: bool) -> str | None:
    path = _clean(source)
    if follow(tree, path) is None:
        if not required:
            return None
        raise NoSuchSource(path=path, hint=_hint(tree, path))
    return path


def _clean(source: str) -> str:
    """Below the root, whatever its dots say; a pivot (`/./`) is not a part of the path."""
    return posixpath.normpath("/" + source.lstrip("/")).lstrip("/")


def _matches(tree: Tree, source: str) -> Iterator[str]:
    """Every path that the pattern matches, component by component; links on the way are followed."""
    parts = [part for part in _clean(source).split("/") if part]

    def descend(at: str, rest: list[str]) -> Iterator[str]:
        if not rest:
            yield at
            return
        folder = follow(tree, at)
        if folder is None:
            return
        part = rest[0]
        if not is_pattern(part):
            path = f"{at}/{part}".lstrip("/")
            if tree.look(f"{folder}/{part}".lstrip("/")):
                yield from descend(path, rest[1:])
            return
        expression = compiled(part)
        for name in tree.names(folder):
            if expression.fullmatch(name):
                yield from descend(f"{at}/{name}".lstrip("/"), rest[1:])

    yield from descend("", parts)


def _group(tree: Tree, source: str, path: str, copy: Copy, hidden: Excludes | None) -> Group:
    real = follow(tree, path)
    entry = tree.look(real) if real is not None else None
    if entry is None:
        raise NoSuchSource(path=path, hint="")
    if copy.parents:
        return _with_parents(tree, source, path, entry, hidden)
    if entry.kind == entries.FOLDER:
        return Group("", _packed(chain([("", entry)], _below(tree, entry.path, "", "", hidden))))
    name = posixpath.basename(path)
    return Group(name, ((name, tree.digested(entry)),))


def _with_parents(tree: Tree, source: str, path: str, entry: Entry, hidden: Excludes | None) -> Group:
    """The source's folders stay: those after the `./` in it, if it has one."""
    before, pivot, _ = source.partition("/./")
    dropped = _clean(before) if pivot else ""
    kept = path[len(dropped) :].lstrip("/")
    items: list[tuple[str, Entry]] = [("", Entry("", entries.FOLDER))]
    below: Iterable[tuple[str, Entry]] = ()
    parts = kept.split("/") if kept else []
    for count in range(1, len(parts)):
        above = follow(tree, f"{dropped}/{'/'.join(parts[:count])}")
        folder = tree.look(above) if above is not None else None
        if folder:
            items.append(("/".join(parts[:count]), folder))
    if entry.kind == entries.FOLDER:
        items += [(kept, entry)] if kept else []
        below = ((f"{kept}/{name}".lstrip("/"), inside) for name, inside in _below(tree, entry.path, "", kept, hidden))
    elif not (hidden and hidden(kept)):
        items.append((kept, tree.digested(entry)))
    return Group("", _packed(chain(items, below)))


def _packed(items: Iterable[tuple[str, Entry]]) -> Packed[tuple[str, Entry]]:
    return Packed(tuple[str, Entry], items)


def _below(tree: Tree, folder: str, prefix: str, called: str, hidden: Excludes | None) -> Iterator[tuple[str, Entry]]:
    """(path below the source, entry). Excludes are matched against that path, with `called` before it. A folder that is excluded stays
    where something in it does not.
    """
    for entry in tree.inside(folder):
        name = posixpath.basename(entry.path)
        inside, shown = f"{prefix}/{name}".lstrip("/"), f"{called}/{name}".lstrip("/")
        excluded = hidden is not None and hidden(shown)
        if entry.kind == entries.FOLDER:
            below = _below(tree, entry.path, inside, shown, hidden)
            first = next(below, None) if excluded else None
            if first or not excluded:
                yield inside, entry
            if first:
                yield first
            yield from below
        elif not excluded:
            yield inside, tree.digested(entry)


def _hint(tree: Tree, path: str) -> str:
    clean = _clean(path)
    if isinstance(tree, ContextTree) and tree.is_ignored(clean):
        return " (the ignore file excludes it)"
    parts = clean.split("/")
    for count, name in enumerate(parts):  # the first that is not there is the one that was misspelt
        folder = follow(tree, "/".join(parts[:count]))
        if folder is not None and tree.look(f"{folder}/{name}".lstrip("/")) is None:
            return did_you_mean(name, tree.names(folder))
    return ""
