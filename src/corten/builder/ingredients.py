"""What a step's result depends on, by name, in the order in which a difference is told. The cache key is the digest of them all.

A key goes by content: files with what counts of them, layers by their diff ids; never by time, place, or how something was made. Values
that may be secret (variables, files) are digests; what a Dockerfile says is there in words, so that a miss can be explained.

They can be gone through as often as one likes, and are not kept: those of a large context would take more memory than all the rest of a build.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from corten.builder.entries import digest_of_entry
from corten.builder.graph import Exec, File, definition
from corten.builder.select import Group
from corten.spec.digest import digest_of

Ingredients = Iterable[tuple[str, str]]  # (name, value)
_FORMAT = "2"  # another one makes every key another: raised when a step with the same ingredients comes to another result


def key_of(ingredients: Ingredients) -> str:
    """The digest of the JSON `["2",[[name,value],...]]`, which is not made as a whole."""
    key, separator = hashlib.sha256(msgspec.json.encode([_FORMAT])[:-1] + b",["), b""
    for pair in ingredients:
        key.update(separator + msgspec.json.encode(pair))
        separator = b","
    key.update(b"]]")
    return key.hexdigest()


class FileIngredients:
    """`head` and `tail` around what the copies take. `groups` are what each of them takes; every digest is made anew each time."""

    def __init__(self, head: Sequence[tuple[str, str]], groups: Sequence[Sequence[Group]], tail: Sequence[tuple[str, str]]) -> None:
        self._head, self._groups, self._tail = head, groups, tail

    def __iter__(self) -> Iterator[tuple[str, str]]:
        yield from self._head
        for number, taken in enumerate(self._groups):
            for group in taken:
                for below, entry in group.items:
                    yield f"file {entry.path or '.'}", f"{number}:{below}:{digest_of_entry(entry)[:32]}"
        yield from self._tail


def chain_digest(chain: Sequence[str]) -> str:
    return digest_of("\n".join(chain).encode()) if chain else "scratch"


def of_exec(op: Exec, base: Sequence[str], time: int, mounted: Sequence[tuple[str, str]]) -> Ingredients:
    """`mounted` are (target, digest of what is seen there) of its bind mounts."""
    fields = msgspec.to_builtins(definition(op))
    command = fields.pop("args")
    fields.pop("env", None)
    fields.pop("type")
    mounts = fields.pop("mounts", ())
    found = [("command", _text(command))]
    found += [(name.replace("_", " "), _text(value)) for name, value in sorted(fields.items())]
    found += [(f"mount {mount.get('target') or mount.get('id', '')}", _text(mount)) for mount in mounts]
    found += [(f"variable {name}", digest_of(value.encode())) for name, _, value in (entry.partition("=") for entry in op.env)]
    found += [(f"content of mount {target}", digest) for target, digest in mounted]
    return [*found, ("base", chain_digest(base)), ("time", str(time))]


def of_file(op: File, base: Sequence[str] | None, time: int, groups: Sequence[Sequence[Group]], owners: str) -> Ingredients:
    """`groups` are what each copy of the actions takes; `base` None where the layer does not depend on it; `owners` as looked up then."""
    head: list[tuple[str, str]] = []
    for number, action in enumerate(op.actions):
        fields = msgspec.to_builtins(action)
        if "data" in fields:
            fields["data"] = digest_of(action.data if hasattr(action, "data") else b"")
        head.append((f"action {number + 1}", _text(fields)))
    stands_on = ("owners", owners) if base is None else ("base", chain_digest(base))
    return FileIngredients(head, groups, [stands_on, ("time", str(time))])


def _text(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
