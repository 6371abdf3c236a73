"""Writing image archives: one tar that is a `docker save` archive and an OCI layout at once, the same bytes every time.

The plan (which images, blobs, names) is pure; the worker that streams it runs in a child of the launcher, confined to the
folder of blobs. Layers are written plain, as Docker Engine 28.5 writes them: their names are their diff ids. Docker's
archives hold version-1 configs of every layer too, which nothing in them names; those are left out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

import msgspec

from corten.errors import ArchiveRefused
from corten.linux import syscalls
from corten.spec.attestations import moved
from corten.spec.digest import digest_of, encoded
from corten.spec.image import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest
from corten.spec.platform import Platform
from corten.store.compression import open_decompressed, refusing_corrupt
from corten.store.confine import confine_to
from corten.store.layer_diff import write_diff
from corten.store.tar_record import TarRecord
from corten.store.tar_writer import Output, TarWriter

SAVE_JOB = "save"
_CHUNK = 1 << 20
_BLOBS = "blobs/sha256"
_LAYOUT = b'{"imageLayoutVersion": "1.0.0"}'
_NAME, _REFERENCE = "io.containerd.image.name", "org.opencontainers.image.ref.name"


class SavedName(msgspec.Struct, frozen=True):
    """A tag: in full, as Docker shows it, and its parts."""

    full: str
    familiar: str
    repository: str
    tag: str


class SavedLayer(msgspec.Struct, frozen=True):
    """Its tar is the content of a blob; or, with a `number`, made from the layer's folder, with its record if it is `recorded`: `length` bytes."""

    blob: str
    diff_id: str
    number: int = 0
    length: int = 0
    recorded: bool = False


class SavedImage(msgspec.Struct, frozen=True):
    """`created` is seconds since the epoch; `parent` an image id, if that image is saved too."""

    id: str
    created: int
    layers: list[SavedLayer]
    names: list[SavedName]
    parent: str = ""


class SavedMember(msgspec.Struct, frozen=True):
    """One platform's image. `attested`: what the store has that speaks of it, as the index's entries (JSON), by its manifest there, `manifest`."""

    image: str
    platform: Platform
    manifest: str = ""
    attested: tuple[str, ...] = ()


class SavedIndex(msgspec.Struct, frozen=True):
    """Several platforms' images under the same names, or one of which something is attested."""

    names: list[SavedName]
    members: list[SavedMember]


class SavePlan(msgspec.Struct, frozen=True):
    """A name of an index is a name of that member's too that docker archives (manifest.json), which know no platforms, shall have under it."""

    images: list[SavedImage]
    indexes: list[SavedIndex] = []


@dataclass(frozen=True)
class _Entry:
    """A file of the archive: its bytes, or the layer whose tar it is."""

    mtime: int
    size: int
    data: bytes = b""
    layer: SavedLayer | None = None


def _descriptor(media_type: str, digest: str, size: int, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size, **more}


def documents(plan: SavePlan, sizes: Mapping[str, int], attested: Mapping[str, bytes]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Pure: (manifests and what is attested by digest, the archive's own files by name). `sizes`: bytes of configs and plain layers, by digest.

    `attested`: what the store has of attestations, by digest. They speak of the manifests that are written here.
    """
    manifests: dict[str, bytes] = {}
    heads: dict[str, dict[str, Any]] = {}
    index: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    indexed = {name.full for part in plan.indexes for name in part.names}
    inside = {member.image for part in plan.indexes for member in part.members}
    for image in plan.images:
        layers = [_descriptor(OCI_LAYER, layer.diff_id, sizes[layer.diff_id]) for layer in image.layers]
        config = _descriptor(OCI_CONFIG, image.id, sizes[image.id])
        heads[image.id] = _store({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}, manifests)
        marks = [_mark(name) for name in image.names if name.full not in indexed] or ([] if image.id in inside else [{}])
        index += [heads[image.id] | mark for mark in marks]
        for name in image.names if image.layers else ():
            repositories.setdefault(name.repository, {})[name.tag] = encoded(image.layers[-1].diff_id)
    for part in plan.indexes:
        rows = [heads[member.image] | {"platform": msgspec.to_builtins(member.platform)} for member in part.members]
        for member in part.members:
            rows += _attesting(member, heads[member.image]["digest"], attested, manifests)
        head = _store({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows}, manifests)
        index += [head | mark for mark in ([_mark(name) for name in part.names] or [{}])]
    # manifest.json knows no platforms: of an index it has the one that the names mean, as containerd's archives do
    shown = [image for image in plan.images if image.names or image.id not in inside] or plan.images
    items = [_item(image, sizes) for image in shown]
    files = {
        "index.json": msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index or None}),
        "manifest.json": msgspec.json.encode(items or None) + b"\n",
        "oci-layout": _LAYOUT,
    }
    if repositories:
        files["repositories"] = msgspec.json.encode(repositories, order="sorted") + b"\n"
    return manifests, files


def _attesting(member: SavedMember, manifest: str, attested: Mapping[str, bytes], written: dict[str, bytes]) -> list[dict[str, Any]]:
    """What the index lists of it."""
    rows: list[dict[str, Any]] = []
    for text in member.attested:
        entry = msgspec.json.decode(text, type=dict[str, Any])
        found = moved(entry, attested[entry["digest"]], attested, member.manifest, manifest)
        document = msgspec.json.decode(found.manifest, type=Manifest)
        written[found.entry["digest"]] = found.manifest
        written |= {part.digest: found.blobs[part.digest] for part in (document.config, *document.layers)}
        rows.append(found.entry)
    return rows


def _store(document: dict[str, Any], documents: dict[str, bytes]) -> dict[str, Any]:
    """Its descriptor."""
    data = msgspec.json.encode(document)
    digest = digest_of(data)
    documents[digest] = data
    return _descriptor(document["mediaType"], digest, len(data))


def _mark(name: SavedName) -> dict[str, Any]:
    return {"annotations": {_NAME: name.full, _REFERENCE: name.tag}}


def _item(image: SavedImage, sizes: Mapping[str, int]) -> dict[str, Any]:
    sources = {layer.diff_id: {"mediaType": OCI_LAYER, "size": sizes[layer.diff_id], "digest": layer.diff_id} for layer in image.layers}
    return {
        "Config": f"{_BLOBS}/{encoded(image.id)}",
        "RepoTags": [name.familiar for name in image.names] or None,
        "Layers": [f"{_BLOBS}/{encoded(layer.diff_id)}" for layer in image.layers],
        **({"Parent": image.parent} if image.parent else {}),
        **({"LayerSources": dict(sorted(sources.items()))} if sources else {}),
    }


def write_archive(plan: SavePlan, blobs: str, folders: LayerFolders | None, output: IO[bytes]) -> None:
    """`blobs` is the folder that holds the blobs by their hexadecimal digits, `folders` where layers are made from. Raises ArchiveRefused for a
    layer that is not what it was.
    """
    entries = _blob_entries(plan, blobs)
    sizes = {digest: entry.size for digest, entry in entries.items()}
    manifests, files = documents(plan, sizes, _attested(plan, blobs))
    entries |= {digest: _Entry(0, len(data), data) for digest, data in manifests.items()}
    writer = TarWriter(output)
    if plan.images:
        newest = max(image.created for image in plan.images)
        writer.folder("blobs", newest)
        writer.folder(_BLOBS, newest)
    for digest, entry in sorted(entries.items()):
        name = f"{_BLOBS}/{encoded(digest)}"
        if entry.layer and entry.layer.number and folders:
            with writer.streaming(name, entry.size, entry.mtime) as stream:
                folders.write(entry.layer, stream)
        elif entry.layer:
            writer.stream(name, entry.size, entry.mtime, _content(f"{blobs}/{encoded(entry.layer.blob)}"))
        else:
            writer.document(name, entry.data, entry.mtime)
    for name, data in sorted(files.items()):
        writer.document(name, data, 0)
    writer.finish()


def _attested(plan: SavePlan, folder: str) -> dict[str, bytes]:
    """Manifests of attestations and what they name, by digest: small ones, whole."""
    found: dict[str, bytes] = {}
    entries = [entry for part in plan.indexes for member in part.members for entry in member.attested]
    for entry in entries:
        digest = msgspec.json.decode(entry, type=Descriptor).digest
        found[digest] = _whole(folder, digest)
        document = msgspec.json.decode(found[digest], type=Manifest)
        found |= {part.digest: _whole(folder, part.digest) for part in (document.config, *document.layers)}
    return found


def _whole(folder: str, digest: str) -> bytes:
    with open(f"{folder}/{encoded(digest)}", "rb") as file:
        data = file.read()
    if digest_of(data) != digest:
        raise ArchiveRefused(f"blob {digest} does not match its digest: `corten system fsck --repair` fetches it again")
    return data


class LayerFolders:
    """The unpacked layers and their records: descriptors of the two folders, outside what the process is confined to. Nothing leads out of a layer."""

    def __init__(self, layers: int, records: int) -> None:
        self._layers, self._records = layers, records

    def write(self, layer: SavedLayer, output: Output) -> None:
        """The layer's tar. Raises ArchiveRefused."""
        folder = os.open(str(layer.number), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._layers)
        try:
            if layer.recorded:
                with open(os.open(str(layer.number), os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._records), "rb", buffering=_CHUNK) as record:
                    for data in TarRecord(record).put_together(lambda path: open_below(folder, path)):
                        output.write(data)
            else:
                os.fchdir(folder)  # write_diff walks by names, into real folders only
                write_diff(".", TarWriter(output))
        finally:
            os.chdir("/")
            os.close(folder)


def open_below(folder: int, path: bytes) -> int:
    """As if the folder were the root: what a link on the way means, and never further."""
    return syscalls.openat2(folder, os.fsdecode(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, resolve=syscalls.RESOLVE_IN_ROOT)


def _blob_entries(plan: SavePlan, folder: str) -> dict[str, _Entry]:
    """Configs and layers by digest, each once."""
    found: dict[str, _Entry] = {}
    for image in plan.images:
        with open(f"{folder}/{encoded(image.id)}", "rb") as file:
            data = file.read()
        found.setdefault(image.id, _Entry(image.created, len(data), data))
        for layer in image.layers:
            if layer.diff_id not in found:
                found[layer.diff_id] = _Entry(image.created, layer.length if layer.number else _plain_size(folder, layer), layer=layer)
    return found


def _plain_size(folder: str, layer: SavedLayer) -> int:
    """Bytes of the layer's tar; read through where it is packed, and held to its diff id then."""
    path = f"{folder}/{encoded(layer.blob)}"
    if layer.blob == layer.diff_id:
        return os.stat(path).st_size
    size, plain = 0, hashlib.sha256()
    for data in _content(path):
        size += len(data)
        plain.update(data)
    if plain.hexdigest() != encoded(layer.diff_id):
        raise ArchiveRefused(f"layer {layer.diff_id} does not match its digest: remove its image and pull it again")
    return size


def _content(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=_CHUNK) as file, refusing_corrupt(f"the blob {os.path.basename(path)}"):
        source: BinaryIO = open_decompressed(file)
        while data := source.read(_CHUNK):
            yield data


def job(argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: descriptors are the folder of blobs and where the tar goes, and where layers are kept as folders those two."""
    plan = msgspec.json.decode(argument, type=SavePlan)
    folders = LayerFolders(*fds[2:]) if len(fds) > 2 else None
    confine_to(fds[0])
    with os.fdopen(fds[1], "wb", buffering=_CHUNK, closefd=False) as output:
        write_archive(plan, "", folders, output)
    return b""


def known_parents(images: Sequence[SavedImage]) -> list[SavedImage]:
    """Parents are told only where they are in the archive too."""
    saved = {image.id for image in images}
    return [image if image.parent in saved else msgspec.structs.replace(image, parent="") for image in images]
