"""Random image layers with whiteouts, and what their merged tree is, by the image-spec's words (layer.md "Whiteouts"), without any engine.

A layer lists every folder above what it has, so that nothing depends on what an implied folder would be.
"""

from __future__ import annotations

import io
import random
import tarfile
from dataclasses import dataclass, field

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
_NAMES = ("a", "b", "c", "ü", "-", "w.wh.")


@dataclass
class Layer:
    """`entries`: path -> content, None for a folder. `gone`: what a whiteout hides. `closed`: folders that hide all that was in them."""

    entries: dict[str, str | None] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)


def above(path: str) -> list[str]:
    """The folders above a path, the topmost first."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def random_layer(chance: random.Random) -> Layer:
    layer = Layer()
    for _ in range(chance.randint(1, 8)):
        path = "/".join(chance.choices(_NAMES, k=chance.randint(1, 3)))
        if any(layer.entries.get(parent, None) is not None or parent in layer.gone for parent in above(path)):
            continue  # it would be in a file, or in what the same layer takes away
        kind = chance.choice(("file", "folder", "gone", "closed"))
        if kind == "gone":
            if path in layer.entries:
                continue
            layer.gone.add(path)
        elif path in layer.gone or (kind == "file" and path in layer.entries):
            continue
        elif kind == "file":
            layer.entries[path] = str(chance.random())
        elif layer.entries.setdefault(path, None) is None and kind == "closed":
            layer.closed.add(path)
        for parent in above(path):
            layer.entries.setdefault(parent, None)
    return layer


def merged(layers: list[Layer]) -> dict[str, str | None]:
    """The lowest first."""
    tree: dict[str, str | None] = {}

    def remove(path: str, *, inside_only: bool = False) -> None:
        for each in [each for each in tree if each.startswith(f"{path}/") or (each == path and not inside_only)]:
            del tree[each]

    for layer in layers:
        for path in layer.closed:
            remove(path, inside_only=True)
        for path in layer.gone:
            remove(path)
        for path, content in sorted(layer.entries.items()):
            if content is not None or tree.get(path) is not None:
                remove(path)
            tree[path] = content
    return tree


def packed(layer: Layer, chance: random.Random) -> bytes:
    """Its tar, in any order: a whiteout's place says nothing."""
    members = [(path, content) for path, content in layer.entries.items()]
    members += [("/".join([*path.split("/")[:-1], WHITEOUT + path.split("/")[-1]]), "") for path in layer.gone]
    members += [(f"{path}/{OPAQUE}", "") for path in layer.closed]
    chance.shuffle(members)
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in members:
            entry = tarfile.TarInfo(path)
            entry.mtime = 1_700_000_000
            entry.type, entry.mode = (tarfile.DIRTYPE, 0o755) if content is None else (tarfile.REGTYPE, 0o644)
            data = (content or "").encode()
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return output.getvalue()
