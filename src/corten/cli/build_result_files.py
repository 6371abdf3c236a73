"""Files of builds' results on this machine: archives and folders that are written, caches that are read. Imported when there are some."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from corten.errors import Invalid
from corten.spec.digest import encoded, parse_digest


@contextmanager
def cache_archive(folder: str) -> Iterator[IO[bytes]]:
    """An OCI layout as a tar: what its index leads to, and nothing else that is in the folder. Raises OSError, Invalid."""
    with open(f"{folder}/index.json", "rb") as file:
        index = json.load(file)
    try:
        root = index["manifests"][0]["digest"]
        with open(_blob(folder, root), "rb") as file:
            manifest = json.load(file)
        digests = [root, manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
        paths = dict.fromkeys(_blob("", digest).lstrip("/") for digest in digests)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Invalid(f"{folder} is no cache: {error}") from None
    with tempfile.TemporaryFile() as spool:
        with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in ("oci-layout", "index.json", *paths):
                tar.add(f"{folder}/{path}", path)
        spool.seek(0)
        yield spool


def _blob(folder: str, digest: str) -> str:
    return f"{folder}/blobs/sha256/{encoded(parse_digest(digest))}"


def write_to_stdout(source: IO[bytes]) -> None:
    shutil.copyfileobj(source, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def write_whole(source: IO[bytes], path: str) -> None:
    """Whole or not at all."""
    part = f"{path}.part-{os.getpid()}"
    try:
        with open(part, "wb") as file:
            shutil.copyfileobj(source, file)
        os.rename(part, path)
    except OSError as error:
        raise Invalid(f"writing {path}: {error.strerror}") from None
    finally:
        if os.path.exists(part):
            os.unlink(part)


def unpack(source: IO[bytes], folder: str) -> None:
    """Into a folder, which may have files already. Nothing is written through a link; owners are kept by root only, as tar does; without root, devices are left out."""
    os.makedirs(folder, exist_ok=True)
    root = os.path.realpath(folder)
    is_root = os.geteuid() == 0
    with tarfile.open(fileobj=source, mode="r|") as archive:
        # Owners, modes and devices as they are: what is refused is refused here. Python before 3.11.4 knows no filters, and does just that.
        archive.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
        for item in archive:
            path = _inside(root, item.name)
            if item.islnk():
                _inside(root, item.linkname)
            if item.isdev() and not item.isfifo() and not is_root:
                continue
            if os.path.islink(path) or (os.path.isfile(path) and not item.isdir()):
                os.unlink(path)
            archive.extract(item, root, numeric_owner=True)


def _inside(root: str, name: str) -> str:
    """A path below the folder, no link on the way to it."""
    path = os.path.normpath(f"{root}/{name}")
    if not path.startswith(f"{root}/") or os.path.realpath(os.path.dirname(path)) != os.path.dirname(path):
        raise Invalid(f"{name} would be written through a link, or out of {root}")
    return path


def unpack_layout(source: IO[bytes], folder: str) -> None:
    """An OCI layout. Images that the folder has already stay in it, unless a new one has their name."""
    path = f"{folder}/index.json"
    before = _entries(path)
    with tempfile.TemporaryFile() as spool:  # an archive that is cut off leaves the folder as it was
        shutil.copyfileobj(source, spool)
        spool.seek(0)
        unpack(spool, folder)
    new = _entries(path)
    names = {_name(entry) for entry in new}
    kept = [entry for entry in before if entry not in new and _name(entry) not in names - {""}]
    if kept and new:
        part = f"{path}.part-{os.getpid()}"
        with open(path, "rb") as file:
            index = json.load(file)
        with open(part, "w", encoding="utf-8") as file:
            json.dump({**index, "manifests": [*kept, *new]}, file)
        os.rename(part, path)


def _entries(path: str) -> list[dict[str, Any]]:
    """Of an index; none where there is none. Raises Invalid for what is none."""
    try:
        with open(path, "rb") as file:
            return list(json.load(file)["manifests"])
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(f"{path} is no index of images: {error}") from None


def _name(entry: dict[str, Any]) -> str:
    marks = entry.get("annotations") or {}
    return str(marks.get("io.containerd.image.name") or marks.get("org.opencontainers.image.ref.name") or "")
