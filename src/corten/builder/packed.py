"""Many values of one kind as the bytes that they are encoded to: a large context's entries take a quarter of the memory that they take as objects.

What is asked for is decoded each time, in about a microsecond. Nothing is written here, and nothing is known of what the values mean.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Generic, Self, TypeVar, overload

import msgspec

from corten.linux.memory import give_back

T = TypeVar("T")
_MANY = 20_000  # values that leave enough free memory behind, when they have been gone through, to be worth milliseconds
_encoder = msgspec.msgpack.Encoder()
_split = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decoder = lru_cache(maxsize=16)(msgspec.msgpack.Decoder[Any])


class Packed(Sequence[T], Generic[T]):
    """`kind` is what msgspec decodes them as. They do not change."""

    def __init__(self, kind: Any, values: Iterable[T] = ()) -> None:
        data, ends = bytearray(), array("Q", [0])
        for value in values:
            _encoder.encode_into(value, data, -1)
            ends.append(len(data))
        self._set(kind, data, ends)

    def _set(self, kind: Any, data: bytes | bytearray, ends: array[int]) -> None:
        self._kind, self._decode, self._data, self._ends = kind, _decoder(kind).decode, memoryview(data), ends

    @classmethod
    def of_array(cls, kind: Any, encoded: bytes | msgspec.Raw) -> Self:
        """Of a list in msgpack. Raises msgspec.MsgspecError, which it does of a value that is no `kind` when that is asked for."""
        parts, ends, end = _split(encoded), array("Q", [0]), 0
        for part in parts:
            end += memoryview(part).nbytes
            ends.append(end)
        packed = cls(kind)
        packed._set(kind, b"".join(parts), ends)
        return packed

    def as_array(self) -> Iterator[bytes | memoryview]:
        """As a list in msgpack, piece by piece."""
        yield b"\xdd" + len(self).to_bytes(4, "big")
        yield self._data

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[T]:
        decode, data, start = self._decode, self._data, 0
        for end in self._ends:
            if end:
                yield decode(data[start:end])
            start = end

    @overload
    def __getitem__(self, at: int) -> T: ...

    @overload
    def __getitem__(self, at: slice) -> list[T]: ...

    def __getitem__(self, at: int | slice) -> T | list[T]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        found: T = self._decode(self._data[self._ends[at] : self._ends[at + 1]])
        return found


def gone_through(count: int) -> None:
    """So many values have been decoded, encoded or sorted: where that was much, the memory that it took goes back to the kernel. For threads."""
    if count > _MANY:
        give_back()
