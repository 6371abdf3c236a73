"""Keys of file steps whose files have been looked at before: a step on the same inputs has the same key, without looking at ten thousand files again.

Only what names its content can be known: layers by their diff ids, a context by its version. In memory, of the newest steps: what is not here is looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from corten.builder.graph import File, definition
from corten.builder.results import Result

_MOST = 4096


def quick_key(op: File, inputs: Sequence[Result], time: int) -> str:
    """Pure. Empty where an input does not name its content."""
    if any(result.folder and not result.folder.version for result in inputs):
        return ""
    named = [(result.chain, result.folder.version if result.folder else "") for result in inputs]
    return hashlib.sha256(msgspec.json.encode([definition(op), named, time])).hexdigest()


class KnownKeys:
    def __init__(self) -> None:
        self._keys: dict[str, str] = {}

    def get(self, quick: str) -> str:
        """The step's key, or an empty text."""
        return self._keys.get(quick, "")

    def put(self, quick: str, key: str) -> None:
        self._keys[quick] = key
        if len(self._keys) > _MOST:
            del self._keys[next(iter(self._keys))]
