"""What a step's result depends on, by name, in the order in which a difference is told. The cache key is the digest of them all.

A key goes by content: files with what counts of them, layers by their diff ids; never by time, place, or how something was made. Values
that may be secret (variables, files) are digests; what a Dockerfile says is there in words, so that a miss can be explained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from corten.builder.entries import digest_of_entry
from corten.builder.graph import Exec, File, definition
from corten.builder.select import Group
from corten.spec.digest import digest_of

Ingredients = list[tuple[str, str]]
_FORMAT = "1"  # another one makes every key another


def key_of(ingredients: Iterable[tuple[str, str]]) -> str:
    return hashlib.sha256(msgspec.json.encode([_FORMAT, list(ingredients)])).hexdigest()


def chain_digest(chain: Sequence[str]) -> str:
    return digest_of("\n".join(chain).encode()) if chain else "scratch"


def of_exec(op: Exec, base: Sequence[str], time: int, mounted: Sequence[tuple[str, str]]) -> Ingredients:
    """`mounted` are (target, digest of what is seen there) of its bind mounts."""
    fields = msgspec.to_builtins(definition(op))
    command = fields.pop("args")
    fields.pop("env", None)
    fields.pop("type")
    mounts = fields.pop("mounts", ())
    found: Ingredients = [("command", _text(command))]
    found += [(name.replace("_", " "), _text(value)) for name, value in sorted(fields.items())]
    found += [(f"mount {mount.get('target') or mount.get('id', '')}", _text(mount)) for mount in mounts]
    found += [(f"variable {name}", digest_of(value.encode())) for name, _, value in (entry.partition("=") for entry in op.env)]
    found += [(f"content of mount {target}", digest) for target, digest in mounted]
    return [*found, ("base", chain_digest(base)), ("time", str(time))]


def of_file(op: File, base: Sequence[str] | None, time: int, groups: Sequence[Sequence[Group]], owners: str) -> Ingredients:
    """`groups` are what each copy of the actions takes; `base` None where the layer does not depend on it; `owners` as looked up then."""
    found: Ingredients = []
    for number, action in enumerate(op.actions):
        fields = msgspec.to_builtins(action)
        if "data" in fields:
            fields["data"] = digest_of(action.data if hasattr(action, "data") else b"")
        found.append((f"action {number + 1}", _text(fields)))
    for number, taken in enumerate(groups):
        for group in taken:
            found += [(f"file {entry.path or '.'}", f"{number}:{below}:{digest_of_entry(entry)[:32]}") for below, entry in group.items]
    if base is None:
        return [*found, ("owners", owners), ("time", str(time))]
    return [*found, ("base", chain_digest(base)), ("time", str(time))]


def _text(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
