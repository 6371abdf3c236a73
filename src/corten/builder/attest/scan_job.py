"""The scanner: reads the package databases of an image's layers and writes the SPDX document. Runs in a child of the launcher, confined to
the folder of the store's layers: what is read there was written by strangers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence

import msgspec

from corten.builder.attest.packages import Package, find_packages, read_system
from corten.builder.attest.spdx import FileSums, document
from corten.builder.entries import FILE
from corten.builder.trees import ChainTree, TooManyLinks, follow
from corten.store.confine import confine_to

SCAN_JOB = "scan-packages"
_CHUNK = 1 << 20


class ScanRequest(msgspec.Struct, frozen=True):
    """`layers` are numbers of the store's folders, topmost first. The rest is for the document."""

    layers: list[int]
    name: str
    image_id: str
    created: str


def sums_of(tree: ChainTree, packages: Iterable[Package], read: Sequence[str]) -> dict[str, FileSums]:
    """Of the packages' files that are regular and there, by the path that the database has. `read` are the layers' folders, topmost first."""
    folders: dict[str, str | None] = {}
    found: dict[str, FileSums] = {}
    by_number = {int(os.path.basename(folder)): folder for folder in read}
    for path in {path for package in packages for path in package.files}:
        parent, _, name = path.rpartition("/")
        if parent not in folders:
            folders[parent] = _followed(tree, parent)
        real = folders[parent]
        if real is None:
            continue
        inside = f"{real}/{name}" if real else name
        entry = tree.look(inside)
        if entry is not None and entry.kind == FILE:
            found[path] = _sums(f"{by_number[entry.place]}/{inside}")
    return found


def _followed(tree: ChainTree, path: str) -> str | None:
    try:
        return follow(tree, path)
    except TooManyLinks:
        return None


def _sums(path: str) -> FileSums:
    sha1, sha256 = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while data := file.read(_CHUNK):
            sha1.update(data)
            sha256.update(data)
    return FileSums(sha1.hexdigest(), sha256.hexdigest())


def scan(request: ScanRequest, base: str) -> bytes:
    """The document. `base` is the folder of the layers."""
    folders = [f"{base}/{number}" for number in request.layers]
    tree = ChainTree(folders)
    packages = find_packages(tree)
    return document(request.name, request.image_id, request.created, read_system(tree), packages, sums_of(tree, packages, folders))


def job(argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the folder of the layers and where the document goes."""
    request = msgspec.json.decode(argument, type=ScanRequest)
    confine_to(fds[0])
    with os.fdopen(fds[1], "wb", buffering=_CHUNK, closefd=False) as output:
        output.write(scan(request, ""))
    return b""
