"""What is known of a folder that was a build context before: the listing, the digests of its files, and where contents are. Values and pure functions.

A file's digest is known while its status in a new listing is the one that it was told under. Nothing is read or written here (kept_folder.py).
"""

from __future__ import annotations

import stat
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import msgspec

from corten.builder import entries
from corten.builder.entries import Entry
from corten.errors import Invalid
from corten.spec import plain_names
from corten.spec.context_listing import Listed, is_settled

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
Place = tuple[int, int]  # Entry.place and bytes
_KINDS = {
    stat.S_IFREG: entries.FILE, stat.S_IFDIR: entries.FOLDER, stat.S_IFLNK: entries.LINK, stat.S_IFIFO: entries.FIFO, stat.S_IFCHR: entries.CHAR,
    stat.S_IFBLK: entries.BLOCK,
}  # fmt: skip


class Head(msgspec.Struct, frozen=True):
    """`generation` names the folder with the contents, `offset` is the spool's end, `number` that of the next large file.

    `listing` is the digest of the last listing, `version` changes with what is known of its content; `settled`: all of it holds while the listing is equal.
    """

    generation: int = 1
    offset: int = 0
    number: int = 0
    listing: str = ""
    version: str = ""
    settled: bool = False
    boot: str = ""


@dataclass(slots=True)
class Body:
    """`digests` by the entries' numbers, empty where not known; `unsure` are numbers of those that have to be asked again. `contents` by digest."""

    entries: Sequence[Listed] = ()
    beside: dict[str, bytes] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)
    unsure: set[int] = field(default_factory=set)
    contents: dict[str, Place] = field(default_factory=dict)

    def number(self, path: str) -> int | None:
        at = bisect_left(self.entries, path, key=lambda entry: entry.path)
        return at if at < len(self.entries) and self.entries[at].path == path else None

    def look(self, path: str) -> Entry | None:
        """As a tree's, without content."""
        number = self.number(path)
        if number is None:
            return None if path else Entry("", entries.FOLDER)
        entry = self.entries[number]
        return Entry(path, _KINDS[stat.S_IFMT(entry.mode)], link=entry.link)

    def listed(self) -> Sequence[Entry]:
        """As a tar's; sorted by path, the root first. What has not been asked for has no digest."""
        return _Entries(self)

    def entry(self, listed: Listed, digest: str) -> Entry:
        kind = _KINDS[stat.S_IFMT(listed.mode)]
        place = self.contents.get(digest)
        attributes = (("security.capability", listed.capability),) if listed.capability else ()
        return Entry(
            listed.path, kind, listed.mode & 0o7777, 0, 0, listed.size if kind == entries.FILE else 0, max(0, listed.mtime // 1_000_000_000), listed.link,
            digest if place else "", place[0] if place else 0, listed.device, attributes,
        )  # fmt: skip


class _Entries(Sequence[Entry]):
    """A body's entries, each made when it is asked for, as what is known of it is then."""

    def __init__(self, body: Body) -> None:
        self._body = body

    def __len__(self) -> int:
        return 1 + len(self._body.entries)

    def __iter__(self) -> Iterator[Entry]:
        yield Entry("", entries.FOLDER)
        yield from map(self._body.entry, self._body.entries, self._body.digests)

    @overload
    def __getitem__(self, at: int) -> Entry: ...

    @overload
    def __getitem__(self, at: slice) -> list[Entry]: ...

    def __getitem__(self, at: int | slice) -> Entry | list[Entry]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        return self._body.entry(self._body.entries[at - 1], self._body.digests[at - 1]) if at else Entry("", entries.FOLDER)


def merged(old: Body, listed: Sequence[Listed], beside: dict[str, bytes]) -> Body:
    """What a new listing leaves of what was known. Both are sorted by path, so they are gone through side by side."""
    known = enumerate(old.entries)
    before = next(known, None)
    digests: list[str] = []
    unsure: set[int] = set()
    for number, entry in enumerate(listed):
        while before and before[1].path < entry.path:
            before = next(known, None)
        if not stat.S_ISREG(entry.mode):
            digests.append("")
        elif not entry.size:
            digests.append(EMPTY)
        elif before and before[1] == entry:
            digests.append(old.digests[before[0]])
            if before[0] in old.unsure:
                unsure.add(number)
        else:
            digests.append("")
    return Body(listed, beside, digests, unsure, {**old.contents, EMPTY: (0, 0)})


def told(body: Body, number: int, digest: str, taken: int) -> bool:
    """Note a digest that was told for an entry of a listing `taken` then; whether it is another than was thought."""
    before, body.digests[number] = body.digests[number], digest
    if is_settled(body.entries[number], taken):
        body.unsure.discard(number)
    else:
        body.unsure.add(number)
    return before not in ("", digest)


def check(listed: Iterable[Listed], beside: Mapping[str, bytes]) -> None:
    """Of what a client says of a folder. Raises Invalid."""
    folders = {""}
    last = ""
    for entry in listed:
        path = entry.path
        parent, _, name = path.rpartition("/")
        if name in ("", ".", "..") or path[0] == "/" or "\0" in plain_names.raw(path) or parent not in folders or path <= last or entry.size < 0:
            raise Invalid(f"the context's listing: {path!r} is no path below a folder before it, or is not in its place")
        kind = stat.S_IFMT(entry.mode)
        if kind not in _KINDS:
            raise Invalid(f"the context's listing: {path!r} has the mode {entry.mode:o}, which is of no kind of file")
        if kind == stat.S_IFDIR:
            folders.add(path)
        last = path
    if any("/" in path for path in beside):
        raise Invalid("the context's listing: what is beside it has no folders")
