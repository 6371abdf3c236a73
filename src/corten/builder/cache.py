"""The build cache: which step, of which ingredients, made which layer; and the folders that cache mounts keep. Rows in the state database.

Finding is by key alone. What the nearest other run had instead is told by `explain`. Layers that a row names are not removed with the
images that use them (`holds`); they go with the row, if nobody else has them.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
import zstandard

from corten.builder.progress import Difference
from corten.spec.timestamps import now_ns
from corten.store.database import Database
from corten.store.holds import Hold
from corten.store.layers import Layers

if TYPE_CHECKING:  # an engine that does not build reads these rows, too
    from corten.builder.ingredients import Ingredients

REGULAR, MOUNT, SOURCE = "regular", "exec.cachemount", "source.local"  # BuildKit's names
DOWNLOAD = "source.http"  # it has none for these
_NEAREST = 12  # rows that a miss is compared with


class CacheRow(msgspec.Struct, frozen=True):
    """`layer` is the diff id that the step put on `base`; empty if it changed nothing. `length` is its tar's bytes, `size` its files'.

    `kind` REGULAR, or what has a `folder` instead: MOUNT, SOURCE (a kept context), DOWNLOAD (url_files.py). `place` is where in a Dockerfile the step stood. Times in nanoseconds.
    """

    key: str
    kind: str
    description: str
    place: str
    created: int
    used: int
    uses: int
    layer: str = ""
    base: tuple[str, ...] = ()
    length: int = 0
    size: int = 0
    folder: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        return (*self.base, self.layer) if self.layer else self.base


_decode = msgspec.json.Decoder(CacheRow).decode
_decode_inputs = msgspec.msgpack.Decoder(list[tuple[str, str]]).decode
_encode_pair, _decode_pair = msgspec.json.Encoder().encode, msgspec.json.Decoder(tuple[str, str]).decode
_BATCH = 1 << 16  # bytes


class Cache:
    def __init__(self, database: Database, layers: Layers) -> None:
        self._database, self._layers = database, layers
        self._rows = {row.key: row for row in map(_decode, database.build_cache())}

    def rows(self) -> list[CacheRow]:
        return list(self._rows.values())

    def holds(self) -> list[Hold]:
        """What each row keeps in the store."""
        return [Hold("build-cache", row.key, frozenset(row.needs), self.blobs(row)) for row in self._rows.values() if row.needs]

    def blobs(self, row: CacheRow) -> frozenset[str]:
        """Of its layers."""
        return frozenset(layer.blob for layer in map(self._layers.find, row.needs) if layer)

    def row(self, key: str) -> CacheRow | None:
        return self._rows.get(key)

    def find(self, key: str) -> CacheRow | None:
        """A row whose layers are all there; counted as a use."""
        row = self._rows.get(key)
        if row is None or not all(self._layers.find(diff_id) for diff_id in row.needs):
            return None
        return self.touch(row)

    def touch(self, row: CacheRow) -> CacheRow:
        row = msgspec.structs.replace(row, used=now_ns(), uses=row.uses + 1)
        self._rows[row.key] = row
        self._database.update_build_cache(row.key, msgspec.json.encode(row))
        return row

    def put(self, row: CacheRow, packed: bytes = b"") -> None:
        """`packed` are its ingredients as pack() makes them."""
        self._database.put_build_cache(row.key, msgspec.json.encode(row), packed)
        self._rows[row.key] = row

    def remove(self, rows: Iterable[CacheRow]) -> None:
        """The rows only; what they held is the pruner's."""
        keys = [row.key for row in rows]
        self._database.delete_build_cache(keys)
        for key in keys:
            self._rows.pop(key, None)

    def nearest(self, place: str, description: str) -> list[PackedIngredients]:
        """Of the runs that a step may be compared with; the latest first."""
        return [PackedIngredients(self._database.build_inputs(row.key)) for row in self._near(place, description)]

    def _near(self, place: str, description: str) -> Sequence[CacheRow]:
        same = [row for row in self._rows.values() if row.kind == REGULAR and row.place == place]
        same = [row for row in same if row.description == description] or same
        return sorted(same, key=lambda row: -row.used)[:_NEAREST]

    def inputs(self, key: str) -> list[tuple[str, str]]:
        """What a row was made from; none where that is not known."""
        return list(PackedIngredients(self._database.build_inputs(key)))


def pack(ingredients: Ingredients) -> bytes:
    """A line of JSON each, compressed; neither is ever there as a whole."""
    compressor, found, batch = zstandard.ZstdCompressor().compressobj(), [], bytearray()
    for pair in ingredients:
        batch += _encode_pair(pair) + b"\n"
        if len(batch) > _BATCH:
            found.append(compressor.compress(bytes(batch)))
            batch.clear()
    return b"".join([*found, compressor.compress(bytes(batch)), compressor.flush()])


class PackedIngredients:
    """What pack() has made, gone through without unpacking all of it. Empty bytes are no ingredients."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def __iter__(self) -> Iterator[tuple[str, str]]:
        if not self._packed:
            return
        with io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(self._packed), _BATCH) as lines:
            if lines.peek(1)[:1] == b"[":
                yield from map(_decode_pair, lines)
            else:  # a row of an earlier Corten: one list in msgpack
                yield from _decode_inputs(lines.read())


def explain(now: Ingredients, others: Sequence[PackedIngredients]) -> Difference | None:
    """Pure, for threads. The first ingredient in which the nearest run differs; None if nothing like it has been run."""
    if not others:
        return None
    ours = {hash(pair) for pair in now}
    return first_difference(now, max(others, key=lambda theirs: sum(hash(pair) in ours for pair in theirs)))


def first_difference(now: Ingredients, cached: Ingredients) -> Difference | None:
    """Pure. Of several differences the first in the order of `now`; what is only in `cached` comes last. Hashes are kept, not texts."""
    theirs = {hash(name): hash(value) for name, value in cached}
    for name, value in now:
        if theirs.get(hash(name)) != hash(value):
            return Difference(name, value, next((other for known, other in cached if known == name), ""))
    ours = {hash(name) for name, _ in now}
    return next((Difference(name, "", value) for name, value in cached if hash(name) not in ours), None)
