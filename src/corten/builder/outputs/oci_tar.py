"""An OCI layout as a tar: its blobs from a folder, its index last. The same bytes for the same content.

Runs in a child of the launcher, confined to the folder. Source: OCI image-spec image-layout.md; names as containerd and BuildKit note them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from corten.spec.digest import encoded
from corten.spec.image import OCI_INDEX, Descriptor, Index
from corten.spec.reference import Reference
from corten.store.confine import confine_to
from corten.store.tar_writer import TarWriter

OCI_JOB = "oci-tar"
_CHUNK = 1 << 20
_BLOBS = "blobs/sha256"
_LAYOUT = b'{"imageLayoutVersion": "1.0.0"}'


class OciPlan(msgspec.Struct, frozen=True):
    """`blobs` are the digests of the folder's files that belong to it."""

    index: bytes
    blobs: list[str]


def layout_index(root: Descriptor, names: Sequence[Reference], annotations: Mapping[str, str]) -> bytes:
    """Pure: `index.json`, with an entry a name; `annotations` are more of each."""
    marks = [{**annotations, "io.containerd.image.name": f"{name.name}:{name.tag}", "org.opencontainers.image.ref.name": name.tag} for name in names]
    entries = [msgspec.structs.replace(root, annotations=mark) for mark in marks] or [msgspec.structs.replace(root, annotations=dict(annotations) or None)]
    return msgspec.json.encode(Index(entries, media_type=OCI_INDEX))


def job(argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the folder of blobs and where the tar goes."""
    plan = msgspec.json.decode(argument, type=OciPlan)
    confine_to(fds[0])
    with os.fdopen(fds[1], "wb", buffering=_CHUNK, closefd=False) as output:
        writer = TarWriter(output)
        writer.folder("blobs", 0)
        writer.folder(_BLOBS, 0)
        for digest in plan.blobs:
            path = f"/{encoded(digest)}"
            writer.stream(f"{_BLOBS}/{encoded(digest)}", os.stat(path).st_size, 0, _content(path))
        writer.document("index.json", plan.index, 0)
        writer.document("oci-layout", _LAYOUT, 0)
        writer.finish()
    return b""


def _content(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while data := file.read(_CHUNK):
            yield data
