"""What to collect when the disk fills: pure. Watermarks, what there is, and the plan of what goes, least recently used first.

Must not look at a disk nor remove anything: engine/collecting.py does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from corten.errors import Invalid
from corten.store.holds import Hold

KINDS = ("leftovers", "logs", "build-cache", "containers", "volumes", "dangling", "images")
CONTENT = ("leftovers", "build-cache", "dangling", "images")  # what can be built, pulled or loaded again: a collection by hand takes it unasked
PIN_LABEL = "dev.corten.pin"
_WEEK = 7 * 24 * 3600 * 10**9
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_MARK = re.compile(r"(\d+(?:\.\d+)?)\s*(%|[kmgt]?)i?b?", re.IGNORECASE)


@dataclass(frozen=True)
class Disk:
    """Bytes: of the file system that the store is on, what of it is used (by anybody), and what the store itself takes: all layers and
    blobs, and of what is collected beside them (containers, volumes, logs) everything.
    """

    total: int
    used: int
    store: int


@dataclass(frozen=True)
class Mark:
    """A share of the file system in percent, or bytes of the store."""

    amount: float
    percent: bool

    def excess(self, disk: Disk) -> int:
        """Bytes that there are above the mark."""
        return max(0, round(disk.used - disk.total * self.amount / 100) if self.percent else round(disk.store - self.amount))

    def __str__(self) -> str:
        return f"{self.amount:g}%" if self.percent else f"{self.amount:.0f}"


def parse_mark(text: str) -> Mark:
    """`85%`, `20GB`, or bytes. Decimal units, as Docker's. Raises Invalid."""
    found = _MARK.fullmatch(text.strip())
    if not found or (found[2] == "%" and float(found[1]) > 100):
        raise Invalid(f"watermark {text!r}: want a share of the file system such as 85%, or the store's size such as 20GB")
    unit = found[2].lower()
    return Mark(float(found[1]), percent=True) if unit == "%" else Mark(float(found[1]) * _UNITS[unit], percent=False)


@dataclass(frozen=True)
class Watermarks:
    """Above `high` it is collected until `low` is reached. `unused_for`: kind -> nanoseconds that it must have been unused for."""

    high: Mark = Mark(90, percent=True)
    low: Mark = Mark(80, percent=True)
    kinds: tuple[str, ...] = CONTENT
    unused_for: dict[str, int] = field(default_factory=lambda: {"containers": _WEEK, "volumes": _WEEK})


def check_kinds(names: Iterable[str]) -> None:
    """Raises Invalid."""
    unknown = next((name for name in names if name not in KINDS), None)
    if unknown is not None:
        raise Invalid(f"unknown kind {unknown!r}: there are {', '.join(KINDS)}")


def is_pinned(labels: Mapping[str, str] | None) -> bool:
    return (labels or {}).get(PIN_LABEL, "false").lower() not in ("", "0", "false")


def content_of(hold: Hold) -> frozenset[str]:
    """Keys of all that it holds. A plain tar's digest is its layer's diff id: unpacked layers have keys of their own."""
    return frozenset((*map(layer_key, hold.layers), *hold.blobs))


def layer_key(diff_id: str) -> str:
    return f"layer {diff_id}"


@dataclass(frozen=True)
class Item:
    """Something that could be collected. `used`: nanoseconds since the epoch, not before that of anything in `until`.

    `content`: keys of what it holds (content_of), which is free when nothing else holds it; `own`: (key, bytes) of what is gone with it
    whoever else names it (a writable layer; a log's file is its container's too). `kept`: why it must not go, or empty; that is so until
    the items in `until` (ids) have gone, for good if there are none.
    """

    kind: str
    id: str
    names: tuple[str, ...] = ()
    used: int = 0
    content: frozenset[str] = frozenset()
    kept: str = ""
    own: tuple[tuple[str, int], ...] = ()
    until: frozenset[str] = frozenset()

    @property
    def own_size(self) -> int:
        return sum(size for _, size in self.own)


@dataclass(frozen=True)
class Step:
    """Taking an item, and the bytes that this frees: of its own, and of content that nothing else holds by then."""

    item: Item
    frees: int


@dataclass(frozen=True)
class Contents:
    """`sizes` in bytes by key; `others`: how often each is held by what cannot be collected (containers that run)."""

    sizes: Mapping[str, int]
    others: Mapping[str, int] = field(default_factory=dict)

    def size(self, item: Item) -> int:
        return item.own_size + sum(self.sizes.get(each, 0) for each in item.content)


class _Tally:
    """What has been taken so far, and what that has freed."""

    def __init__(self, items: Iterable[Item], contents: Contents) -> None:
        self._sizes = contents.sizes
        self._holders = Counter(contents.others) + Counter(each for item in items for each in item.content)
        self._takers: Counter[str] = Counter()

    def take(self, item: Item) -> int:
        """Bytes that this frees."""
        freed = self.alone(item)
        self._holders.subtract(item.content)
        self._takers.update(key for key, _ in item.own)
        return freed

    def alone(self, item: Item) -> int:
        """Bytes that would be free without it."""
        own = sum(size for key, size in item.own if not self._takers[key])
        return own + sum(self._sizes.get(each, 0) for each in item.content if self._holders[each] == 1)

    def worth(self, item: Item) -> int:
        """Of one that has been taken: bytes that are free because of it alone."""
        own = sum(size for key, size in item.own if self._takers[key] == 1)
        return own + sum(self._sizes.get(each, 0) for each in item.content if self._holders[each] == 0)

    def give_back(self, item: Item) -> None:
        self._holders.update(item.content)
        self._takers.subtract(key for key, _ in item.own)


def plan(items: Sequence[Item], contents: Contents, kinds: Sequence[str], need: int) -> list[Step]:
    """What goes, in order, until `need` bytes are free or there is no more: what nothing names, then the least recently used, whatever it is.

    What would go without being needed for that (an image whose layers others have too) stays, unless something else waits for it.
    """
    wanted = sorted((item for item in items if item.kind in kinds), key=_rank)
    tally = _Tally(items, contents)
    chosen: dict[str, Item] = {}
    freed = 0
    for item in wanted:
        if freed >= need:
            break
        if not item.kept or (item.until and item.until <= chosen.keys()):
            freed += tally.take(item)
            chosen[item.id] = item
    waiting = Counter(each for item in chosen.values() for each in item.until)
    for item in [*chosen.values()][::-1]:
        lost = tally.worth(item)
        if freed - lost >= need and not waiting[item.id]:
            freed -= lost
            tally.give_back(item)
            waiting.subtract(chosen.pop(item.id).until)
    tally = _Tally(items, contents)
    return [Step(item, tally.take(item)) for item in chosen.values()]


def _rank(item: Item) -> tuple[bool, int, int]:
    return item.kind != "leftovers", item.used, KINDS.index(item.kind)


def unique(items: Sequence[Item], contents: Contents) -> dict[str, int]:
    """Item id -> bytes that only it holds."""
    tally = _Tally(items, contents)
    return {item.id: tally.alone(item) for item in items}
