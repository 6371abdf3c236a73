"""The tars of layers whose folders are all that is kept: made again for whoever wants one, plain or packed, and held to the diff id.

A layer's tar is a blob that is there, or comes from the folder with its record, or as layer_diff.py writes the folder. Must not decide what is
kept: thinning.py does.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec

from corten.errors import ArchiveRefused, StoreCorrupt
from corten.store.blobs import Blobs
from corten.store.database import Database, LayerRow, TarRow
from corten.store.layer_check import CHECK_JOB, CheckedLayer
from corten.store.layout import Layout
from corten.store.packing import PACK_JOB, PACK_LAYER_JOB, Packed, Packing, packer
from corten.store.tar_job import TAR_JOB, MadeTar
from corten.store.workers import PIPE_BUFFER, RunJob, run_on_archive


class LayerTars:
    """`run_job` starts a confined worker."""

    def __init__(self, layout: Layout, database: Database, blobs: Blobs, run_job: RunJob) -> None:
        self._layout, self._database, self._blobs, self._run_job = layout, database, blobs, run_job
        self._packer_is_known = False

    # --- what can be made
    def find(self, diff_id: str) -> TarRow | None:
        """That the tar can be made from the folder; None also where only its length is not known yet (`settle`)."""
        return self._database.tar(diff_id)

    def sizes(self) -> dict[str, int]:
        """Diff id -> bytes of its record."""
        return {row.diff_id: row.recorded for row in self._database.tars()}

    def is_made(self, diff_id: str) -> bool:
        """Whether the layer's tar need not be there as a blob: its folder gives it."""
        row = self._database.layer(diff_id)
        return row is not None and (self.find(diff_id) is not None or (row.blob == diff_id and not self._blobs.has(diff_id)))

    def can_be_had(self, digest: str, diff_id: str) -> bool:
        """Whether a layer's blob need not be there: these very bytes come from its folder, our packer, or a registry."""
        if not self.is_made(diff_id):
            return False
        packed = self.packing(diff_id)
        return digest == diff_id or bool(self._database.origins(digest)) or (packed is not None and packed.digest == digest)

    def is_its_blob(self, digest: str, diff_id: str) -> bool:
        """Whether the store itself has seen that a blob's content is this layer. What a manifest says of that is a claim."""
        row, packed = self._database.layer(diff_id), self.packing(diff_id)
        return row is not None and (digest in (row.blob, diff_id) or (packed is not None and packed.digest == digest))

    def spare(self) -> frozenset[tuple[str, str]]:
        """(blob, diff id) of layers' blobs that nobody need bring, be they here or not: is_its_blob() and can_be_had() hold for them."""
        found: set[tuple[str, str]] = set()
        for row in self._database.layers():
            packed = self.packing(row.diff_id)
            blobs = {row.blob, row.diff_id} | ({packed.digest} if packed else set())
            found |= {(blob, row.diff_id) for blob in blobs if self.can_be_had(blob, row.diff_id)}
        return frozenset(found)

    async def settle(self, row: LayerRow) -> TarRow:
        """Find out the length of the tar of a layer that was made before lengths were kept. Raises StoreCorrupt if it cannot be made."""
        found = self.find(row.diff_id)
        if found is None:
            made = await self._made(row)
            found = TarRow(row.diff_id, made.length, 0)
            self._database.put_tar(found)
        return found

    # --- where blobs came from
    def origins(self, digest: str) -> list[str]:
        """Repositories in full that have the blob, the newest known first."""
        return [repository for repository, _ in self._database.origins(digest)]

    def blob_size(self, digest: str) -> int | None:
        """Bytes of a layer's blob that is here, or in a registry; None of one that is nowhere."""
        if self._blobs.has(digest):
            return self._blobs.size(digest)
        return next((size for _, size in self._database.origins(digest)), None)

    def add_origin(self, digest: str, repository: str, size: int) -> None:
        """Of a blob that has been verified."""
        self._database.put_origin(digest, repository, size)

    def forget(self, digest: str) -> None:
        self._database.delete_origins(digest)

    # --- making it
    async def write(self, diff_id: str, path: str) -> int:
        """The tar in a new file, in its place when it is whole; its bytes. Raises StoreCorrupt."""
        part = f"{path}.part"
        try:
            if self._blobs.has(diff_id):
                os.link(self._layout.blob(diff_id), part)
            else:
                await self._check(self._need(diff_id), os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
            os.rename(part, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(part)
        return os.stat(path).st_size

    async def difference(self, row: LayerRow) -> str:
        """What is wrong with the folder of a layer that is one: empty if it gives its tar."""
        try:
            found = self.find(row.diff_id)
            return await (self._checked(row) if found and found.recorded else self._hashed(row))
        except StoreCorrupt as error:
            return error.message.removeprefix(f"layer {row.diff_id}: ")

    async def _hashed(self, row: LayerRow) -> str:
        """Of a layer whose tar is what the folder is, in every respect."""
        await self._made(row)
        return ""

    async def _checked(self, row: LayerRow) -> str:
        """A record knows how the folder was: that is compared as well."""
        fds = self._sources(row)
        try:
            checked = msgspec.json.decode(await run_on_archive(self._run_job, CHECK_JOB, fds), type=CheckedLayer)
        except ArchiveRefused as error:
            return error.message
        finally:
            for fd in fds:
                os.close(fd)
        return checked.difference if checked.digest == row.diff_id else f"its content is {checked.digest}"

    def _need(self, diff_id: str) -> LayerRow:
        row = self._database.layer(diff_id)
        if row is None or not self.is_made(diff_id):
            raise StoreCorrupt(f"the tar of layer {diff_id} is missing from the store: pull, load or build its image again")
        return row

    async def _made(self, row: LayerRow) -> MadeTar:
        return await self._check(row, os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))

    async def of_folder(self, folder: str) -> MadeTar:
        """What the tar of a folder that is no layer yet would be."""
        fds = [os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        try:
            return await self._run(fds)
        finally:
            for fd in fds:
                os.close(fd)

    async def _run(self, fds: Sequence[int]) -> MadeTar:
        return msgspec.json.decode(await run_on_archive(self._run_job, TAR_JOB, fds), type=MadeTar)

    async def _check(self, row: LayerRow, target: int) -> MadeTar:
        """Make it into `target`, which is closed here."""
        fds = [target]
        try:
            fds += self._sources(row)
            made = await self._run(fds)
        except ArchiveRefused as error:
            raise StoreCorrupt(f"layer {row.diff_id}: {error.message}") from None
        finally:
            for fd in fds:
                os.close(fd)
        if made.digest != row.diff_id:
            raise StoreCorrupt(f"layer {row.diff_id}: its content is {made.digest}")
        return made

    def _sources(self, row: LayerRow) -> list[int]:
        """Descriptors of its folder and, if it has one, its record. Raises StoreCorrupt."""
        found, fds = self.find(row.diff_id), []
        try:
            fds.append(os.open(self._layout.layer(row.number), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            if found and found.recorded:
                fds.append(os.open(self._layout.record(row.number), os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError as error:
            for fd in fds:
                os.close(fd)
            raise StoreCorrupt(f"layer {row.diff_id}: {error.filename} is missing") from None
        return fds

    # --- packing
    def packing(self, diff_id: str) -> Packed | None:
        """What the layer is when it is gzipped, if that has been found out."""
        if not self._packer_is_known:
            self._forget_another_packers()
        found = self._database.packing(diff_id)
        return Packed(*found) if found else None

    def _forget_another_packers(self) -> None:
        """What another version of the packer made does not come out of this one."""
        if self._database.setting("packer") != packer():
            self._database.delete_packings()
            self._database.put_setting("packer", packer())
        self._packer_is_known = True

    def remember_packing(self, diff_id: str, digest: str, size: int) -> None:
        if self._database.layer(diff_id):
            self._database.put_packing(diff_id, digest, size)

    @asynccontextmanager
    async def pack(self, diff_id: str, packing: Packing | None = None, folder: str = "") -> AsyncIterator[tuple[asyncio.StreamReader, Awaitable[Packed]]]:
        """A layer's tar packed in a worker: (the packed form, what it was once it has been read). Leaving early ends the worker.

        What it was raises StoreCorrupt if the tar was not the layer's. `packing`: other than the usual one; an empty `folder` comes with it, for
        a worker to be confined to.
        """
        reading, writing = os.pipe2(os.O_CLOEXEC)
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BUFFER)
        reader = asyncio.StreamReader(limit=PIPE_BUFFER)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", buffering=0)
        )
        work = asyncio.ensure_future(self._pack(diff_id, writing, packing, folder))
        try:
            yield reader, work
        finally:
            transport.close()
            await asyncio.gather(work, return_exceptions=True)

    async def _pack(self, diff_id: str, target: int, packing: Packing | None, folder: str) -> Packed:
        """`target` is closed here. Raises StoreCorrupt."""
        fds: list[int] = [target]
        try:
            argument = msgspec.json.encode(msgspec.structs.replace(packing or Packing(), diff_id=diff_id))
            if self.is_made(diff_id) and not self._blobs.has(diff_id):
                entry, fds = PACK_LAYER_JOB, [target, *self._sources(self._need(diff_id))]
            else:
                row = self._database.layer(diff_id)
                entry, fds = PACK_JOB, [self._blobs.open(diff_id if row is None or self._blobs.has(diff_id) else row.blob), target]
                if packing:
                    fds.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                else:
                    argument = b""
            running = asyncio.ensure_future(run_on_archive(self._run_job, entry, fds, argument))
            await asyncio.sleep(0)  # the job's own copies of the descriptors are made in its first step
        finally:
            for fd in fds:
                os.close(fd)
        try:
            return msgspec.json.decode(await running, type=Packed)
        except ArchiveRefused as error:
            raise StoreCorrupt(f"layer {diff_id}: {error.message}") from None
