"""Building images in tests: contexts made in memory, and what an engine says of a build."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from corten.api.client import Client
from tests.engines import RunningEngine, eventually

FOLDER = None  # a context's entry that is a folder


@dataclass(frozen=True)
class Link:
    """A context's entry that is a symbolic link."""

    target: str


@dataclass(frozen=True)
class Built:
    """`error` is empty for a build that went well; then `image` is its id."""

    messages: list[dict[str, Any]]

    @property
    def text(self) -> str:
        return "".join(message.get("stream", "") for message in self.messages)

    @property
    def error(self) -> str:
        return next((message["error"] for message in self.messages if "error" in message), "")

    @property
    def image(self) -> str:
        assert not self.error, self.error
        return next(message["aux"]["ID"] for message in reversed(self.messages) if "aux" in message)

    @property
    def cached(self) -> int:
        return self.text.count(" ---> Using cache\n")


def context(files: dict[str, Any], *, mtime: int = 1_700_000_000, mode: int = 0o644) -> bytes:
    """A tar. Values are text, bytes, FOLDER, Link, or (a TarInfo of one's own, bytes)."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, value in files.items():
            entry, data = tarfile.TarInfo(name), b""
            entry.mtime, entry.mode = mtime, mode
            if isinstance(value, tuple):
                entry, data = value
            elif value is FOLDER:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(value, Link):
                entry.type, entry.linkname = tarfile.SYMTYPE, value.target
            else:
                data = value.encode() if isinstance(value, str) else value
            if entry.isreg():
                entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def build(engine: RunningEngine | Client, files: dict[str, Any] | bytes, **query: Any) -> Built:
    """Raises ApiError for what is refused before the build begins."""
    body = files if isinstance(files, bytes) else context(files)
    client = engine if isinstance(engine, Client) else engine.client
    with client.open("POST", "/build", query=_flat(query), body=body, headers={"Content-Type": "application/x-tar"}) as response:
        return Built([msgspec.json.decode(line) for line in response if line.strip()])


def _flat(query: dict[str, Any]) -> dict[str, Any]:
    return {key: value if isinstance(value, str | int) else msgspec.json.encode(value).decode() for key, value in query.items()}


def tree(engine: RunningEngine, image: str) -> dict[str, tuple[str, int, int, int, bytes]]:
    return read_tree(engine.client, image)


def read_tree(client: Client, image: str) -> dict[str, tuple[str, int, int, int, bytes]]:
    """Path -> (type, mode, uid, gid, content or link) of an image's root, read from what `save` gives."""
    found: dict[str, tuple[str, int, int, int, bytes]] = {}
    with client.open("GET", f"/images/{image}/get") as response:
        data = response.read()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        manifest = msgspec.json.decode(archive.extractfile("manifest.json").read())[0]
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=archive.extractfile(name)) as layer:
                for entry in layer:
                    _apply(found, layer, entry)
    return found


def _apply(found: dict[str, tuple[str, int, int, int, bytes]], layer: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
    folder, _, name = entry.name.rpartition("/")
    if name == ".wh..wh..opq":
        for path in [path for path in found if path.startswith(f"{folder}/")]:
            del found[path]
    elif name.startswith(".wh."):
        gone = f"{folder}/{name[4:]}".lstrip("/")
        for path in [path for path in found if path == gone or path.startswith(f"{gone}/")]:
            del found[path]
    else:
        content = os.fsencode(entry.linkname) if entry.issym() or entry.islnk() else layer.extractfile(entry).read() if entry.isreg() else b""
        found[entry.name] = (entry.type.decode(), entry.mode, entry.uid, entry.gid, content)


def forget_builds(engine: RunningEngine) -> None:
    """Take away what tests have made of containers, images and build cache. The base images of the tests stay."""
    engine.remove_all()
    for image in engine.client.get("/images/json", all=1):
        if not any(tag.startswith("busybox:") for tag in image["RepoTags"] or []):
            engine.client.delete(f"/images/{image['Id']}", force=1)
    engine.client.post("/build/prune", all=1)


@contextmanager
def leaving_nothing(engine: RunningEngine) -> Iterator[None]:
    """After the block all that was built goes; no temporary file stays, and the engine's log has no traceback of that time."""
    said = len(engine.log())
    yield
    forget_builds(engine)
    eventually(lambda: not os.listdir(f"{engine.data_root}/tmp"))
    assert "Traceback" not in engine.log()[said:]
