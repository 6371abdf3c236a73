"""Images for tests: busybox with one more layer, as an archive that `docker load` takes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: object) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(data), 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def layer(entries: Iterable[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def derived(base: str, path: str, name: str, added: bytes, **config: object) -> None:
    """Write to `path` the archive of an image `name`: `base` (an archive's path) with the layer `added`, and `config` in its Config."""
    with tarfile.open(base) as source, tarfile.open(path, "w") as target:
        manifest = json.load(source.extractfile("manifest.json"))[0]
        image = json.load(source.extractfile(manifest["Config"]))
        image["rootfs"]["diff_ids"].append("sha256:" + hashlib.sha256(added).hexdigest())
        image.pop("history", None)
        image["config"] |= config
        files = {"config.json": json.dumps(image).encode(), "added.tar": added}
        files["manifest.json"] = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": [*manifest["Layers"], "added.tar"]}]).encode()
        for each in manifest["Layers"]:
            target.addfile(source.getmember(each), source.extractfile(each))
        for each, data in files.items():
            info = tarfile.TarInfo(each)
            info.size = len(data)
            target.addfile(info, io.BytesIO(data))
