"""Who holds what: the one place that is asked before a layer or a blob is removed, and told who works on some.

Whoever stores things on layers (images, containers, a build cache) joins with a function that says what each of them holds. A lease
is held by work that has content which nothing holds yet: as long as there is one, nothing is removed. Must not remove anything itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Hold:
    """`kind`: image, container, build-cache. `layers` are diff ids, `blobs` digests."""

    kind: str
    id: str
    layers: frozenset[str] = frozenset()
    blobs: frozenset[str] = frozenset()


Source = Callable[[], Iterable[Hold]]


class Holds:
    def __init__(self) -> None:
        self._sources: list[Source] = []
        self._leases = 0
        self._on_last: list[Callable[[], None]] = []

    def join(self, source: Source) -> None:
        self._sources.append(source)

    def all(self) -> list[Hold]:
        return [hold for source in self._sources for hold in source()]

    def held(self) -> tuple[set[str], set[str]]:
        """(diff ids, blob digests) that somebody holds."""
        layers: set[str] = set()
        blobs: set[str] = set()
        for hold in self.all():
            layers |= hold.layers
            blobs |= hold.blobs
        return layers, blobs

    @property
    def leased(self) -> bool:
        return self._leases > 0

    @contextmanager
    def lease(self) -> Iterator[None]:
        """For work that takes in or reads content: a pull, a load, a push, a save, a commit, a build."""
        self._leases += 1
        try:
            yield
        finally:
            self._leases -= 1
            if not self._leases:
                for call in self._on_last:
                    call()

    def when_free(self, call: Callable[[], None]) -> None:
        """Have `call` called whenever the last lease has ended."""
        self._on_last.append(call)
