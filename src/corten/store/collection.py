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

KINDS = ("leftovers", "build-cache", "dangling", "images")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_MARK = re.compile(r"(\d+(?:\.\d+)?)\s*(%|[kmgt]?)i?b?", re.IGNORECASE)


@dataclass(frozen=True)
class Disk:
    """Bytes: of the file system that the store is on, what of it is used (by anybody), and what the store itself takes."""

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
    """Above `high` it is collected until `low` is reached. `kinds` in this order."""

    high: Mark = Mark(90, percent=True)
    low: Mark = Mark(80, percent=True)
    kinds: tuple[str, ...] = KINDS


def content_of(hold: Hold) -> frozenset[str]:
    """Keys of all that it holds. A plain tar's digest is its layer's diff id: unpacked layers have keys of their own."""
    return frozenset((*map(layer_key, hold.layers), *hold.blobs))


def layer_key(diff_id: str) -> str:
    return f"layer {diff_id}"


@dataclass(frozen=True)
class Item:
    """Something that could be collected. `content`: keys of what it holds (content_of); `used`: nanoseconds since the epoch.

    `kept`: why it must not be, or empty.
    """

    kind: str
    id: str
    names: tuple[str, ...] = ()
    used: int = 0
    content: frozenset[str] = frozenset()
    kept: str = ""


@dataclass(frozen=True)
class Step:
    """Taking an item, and the bytes that this frees: of content that nothing else holds by then."""

    item: Item
    frees: int


@dataclass(frozen=True)
class Contents:
    """`sizes` in bytes by key; `others`: how often each is held by what cannot be collected (containers)."""

    sizes: Mapping[str, int]
    others: Mapping[str, int] = field(default_factory=dict)

    def size(self, item: Item) -> int:
        return sum(self.sizes.get(each, 0) for each in item.content)


def plan(items: Sequence[Item], contents: Contents, kinds: Sequence[str], need: int) -> list[Step]:
    """What goes, in order, until `need` bytes are free or there is no more. By kind as listed, then least recently used first.

    What would go without being needed for that (an image whose layers others have too) stays.
    """
    wanted = sorted((item for item in items if item.kind in kinds and not item.kept), key=lambda item: (kinds.index(item.kind), item.used))
    holders = _holders(items, contents)
    chosen: list[Item] = []
    freed = 0
    for item in wanted:
        if freed >= need:
            break
        freed += _frees(item, holders, contents)
        holders.subtract(item.content)
        chosen.append(item)
    for item in chosen[::-1]:
        lost = sum(contents.sizes.get(each, 0) for each in item.content if holders[each] == 0)
        if freed - lost >= need:
            freed -= lost
            holders.update(item.content)
            chosen.remove(item)
    return _steps(chosen, _holders(items, contents), contents)


def _steps(chosen: Iterable[Item], holders: Counter[str], contents: Contents) -> list[Step]:
    steps: list[Step] = []
    for item in chosen:
        steps.append(Step(item, _frees(item, holders, contents)))
        holders.subtract(item.content)
    return steps


def _frees(item: Item, holders: Mapping[str, int], contents: Contents) -> int:
    return sum(contents.sizes.get(each, 0) for each in item.content if holders[each] == 1)


def unique(items: Sequence[Item], contents: Contents) -> dict[str, int]:
    """Item id -> bytes that only it holds."""
    holders = _holders(items, contents)
    return {item.id: _frees(item, holders, contents) for item in items}


def _holders(items: Iterable[Item], contents: Contents) -> Counter[str]:
    return Counter(contents.others) + Counter(each for item in items for each in item.content)
