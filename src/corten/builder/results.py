"""What a vertex has become: a chain of layers, or a folder of a context. Values."""

from __future__ import annotations

from dataclasses import dataclass

from corten.builder.context import Context
from corten.builder.trees import ContextTree


@dataclass(frozen=True)
class Folder:
    """What can be seen of a context, and the context that has the bytes. Equal versions, if there is one, have equal content."""

    tree: ContextTree
    context: Context
    version: str = ""


@dataclass(frozen=True)
class Result:
    """`chain`: diff ids, lowest first. `time` (nanoseconds) is the newest that its inputs say of themselves, and so that of what is made here.

    A context's files say nothing: a check-out changes their times, and not what they are.
    """

    chain: tuple[str, ...] = ()
    time: int = 0
    folder: Folder | None = None


@dataclass(frozen=True)
class MadeLayer:
    """The layer of a step; an empty `diff_id` means that it changed nothing. `length` is its tar's bytes, `size` its files', `key` the step's in the cache."""

    diff_id: str = ""
    length: int = 0
    size: int = 0
    key: str = ""
