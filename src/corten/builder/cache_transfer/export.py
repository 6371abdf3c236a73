"""A build's cache, sent to a place or packed for the client: its steps, their layers, and the folders of its cache mounts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import msgspec

from corten.builder.cache import Cache, CacheRow
from corten.builder.cache_mounts import CacheMounts, folder_name
from corten.builder.cache_transfer import documents
from corten.builder.cache_transfer.mount_job import PACK_MOUNT_JOB, PackedMount
from corten.builder.cache_transfer.places import WritePlace
from corten.builder.graph import Cache as CacheMount
from corten.builder.graph import Exec, Vertex, in_order
from corten.builder.outputs.blob_folder import BlobFolder, BringBack
from corten.builder.outputs.oci_tar import OCI_JOB, OciPlan, layout_index
from corten.builder.outputs.parcels import Parcel
from corten.spec.build_cache import LOCAL
from corten.spec.build_outputs import Compression
from corten.spec.digest import digest_of, encoded
from corten.spec.image import OCI_MANIFEST, Descriptor
from corten.store.blobs import Blobs
from corten.store.layers import Layers
from corten.store.layout import Layout
from corten.store.workers import RunJob


def mounts_of(target: Vertex) -> dict[str, CacheMount]:
    """Folder's name -> one of the mounts that use it, of a graph's RUN steps."""
    execs = [vertex.op for vertex in in_order([target]) if isinstance(vertex.op, Exec)]
    return {folder_name(mount): mount for op in execs for mount in op.mounts if isinstance(mount, CacheMount)}


class CacheExport:
    def __init__(self, layout: Layout, blobs: Blobs, layers: Layers, cache: Cache, mounts: CacheMounts, run_job: RunJob,
                 bring_back: BringBack) -> None:  # fmt: skip
        self._bring_back = bring_back
        self._layout, self._blobs, self._layers, self._cache, self._mounts, self._run_job = layout, blobs, layers, cache, mounts, run_job

    async def send(self, keys: Sequence[str], mounts: Mapping[str, CacheMount], place: WritePlace) -> None:
        """Raises what the place refuses; its manifest is as it was then."""
        folder = self._folder()
        try:
            manifest = await self._collect(keys, mounts, folder)
            for blob in documents.read_manifest(manifest).layers:
                await place.write(blob.digest, folder.file(blob.digest), encoded(blob.digest)[:12])
            await place.write(digest_of(documents.EMPTY), folder.file(folder.put(documents.EMPTY)), "")
            await place.put_manifest(manifest)
        finally:
            await folder.remove()

    async def parcel(self, keys: Sequence[str], mounts: Mapping[str, CacheMount]) -> Parcel:
        """As an OCI layout for the client."""
        folder = self._folder()
        try:
            manifest = await self._collect(keys, mounts, folder)
            folder.put(documents.EMPTY)
            root = Descriptor(OCI_MANIFEST, folder.put(manifest), len(manifest))
            plan = OciPlan(layout_index(root, (), {}), folder.digests())
            return Parcel(f"cache-{LOCAL}", OCI_JOB, msgspec.json.encode(plan), folder.path, own=True)
        except BaseException:
            await folder.remove()
            raise

    def _folder(self) -> BlobFolder:
        return BlobFolder(self._layout, self._blobs, self._layers, self._bring_back)

    async def _collect(self, keys: Sequence[str], mounts: Mapping[str, CacheMount], folder: BlobFolder) -> bytes:
        """Everything in the folder; the manifest."""
        rows = [row for key in dict.fromkeys(keys) if (row := self._cache.row(key))]
        layers = {row.layer: await folder.layer(row.layer, Compression()) for row in rows if row.layer}
        packed = [await self._mount(name, mount, folder) for name, mount in sorted(mounts.items()) if os.path.isdir(self._mounts.path(name))]
        steps = documents.pack_steps(map(self._step, rows))
        folder.put(steps)
        return documents.manifest_of(steps, layers, packed)

    def _step(self, row: CacheRow) -> documents.CachedStep:
        return documents.CachedStep(row.key, row.description, row.place, row.layer, list(row.base), row.length, row.size, self._cache.inputs(row.key))

    async def _mount(self, name: str, mount: CacheMount, folder: BlobFolder) -> Descriptor:
        path, part = self._mounts.path(name), f"{folder.path}/packing"
        source = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        target = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            status = os.fstat(source)
            packed = msgspec.json.decode(await self._run_job(PACK_MOUNT_JOB, b"", (source, target)), type=PackedMount)
        finally:
            os.close(source)
            os.close(target)
        os.rename(part, folder.file(packed.digest))
        owner = f"{status.st_uid}:{status.st_gid}:{status.st_mode & 0o7777:o}"
        about = {documents.MOUNT_NAME: name, documents.MOUNT_OWNER: owner, documents.MOUNT_ABOUT: mount.target}
        return Descriptor(documents.MOUNT, packed.digest, packed.size, annotations=about)
