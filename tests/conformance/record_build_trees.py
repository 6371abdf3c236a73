"""Build tests/conformance/build_trees.py with the real engine's BuildKit and write recorded/build_trees.json: a part of `make record`, as root.

Of each: every path that the image has and `busybox` has not, with type, mode, owner and content; or that the build was refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import Any

from corten.api.client import ApiError, Client
from tests.builds import build, context, read_tree
from tests.conformance import build_trees
from tests.conformance.record import RECORDED, docker_engine

PATH = os.path.join(RECORDED, "build_trees.json")


def outcome(client: Client, name: str, **query: Any) -> dict[str, Any]:
    """What an engine makes of a case."""
    try:
        built = build(client, context(build_trees.files(name)), t="trees:case", **query)
    except ApiError:
        return {"refused": True}
    if built.error:
        return {"refused": True}
    base = read_tree(client, "busybox")
    found = {}
    for path, (kind, mode, uid, gid, content) in read_tree(client, "trees:case").items():
        shown = [kind, oct(mode), uid, gid, content.decode("utf-8", "replace") if len(content) < 100 else hashlib.sha256(content).hexdigest()]
        clean = path.strip("/").removeprefix("./")
        if clean not in (".", "") and base.get(path, base.get(f"./{path}")) != (kind, mode, uid, gid, content):
            found[clean] = shown
    client.delete("/images/trees:case", force=1)
    return {"tree": found}


def record(client: Client, names: list[str]) -> None:
    found: dict[str, Any] = {}
    if names and os.path.exists(PATH):
        with open(PATH, encoding="utf-8") as file:
            found = json.load(file)
    with open(f"{os.environ['CORTEN_ASSETS']}/images/busybox.tar", "rb") as image:
        for _ in client.messages("/images/load", body=image):
            continue
    for name in names or build_trees.CASES:
        found[name] = outcome(client, name, version=2)
        print(name, "refused" if "refused" in found[name] else f"{len(found[name]['tree'])} paths", flush=True)
    with open(PATH, "w", encoding="utf-8") as file:
        json.dump({name: found[name] for name in sorted(found) if name in build_trees.CASES}, file, indent=1, ensure_ascii=False, sort_keys=True)
        file.write("\n")


if __name__ == "__main__":
    with docker_engine(os.environ.get("CORTEN_ASSETS", ".corten/assets")) as engine:
        record(Client(engine), sys.argv[1:])
