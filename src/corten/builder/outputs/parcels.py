"""Results that wait to be fetched: each once, whole, and not for ever. Kept in memory; what they hold in the store is let go with them.

A build's messages name a parcel by its id; its tar is made while it is sent.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass

from corten.errors import NotFound
from corten.store.database import Database
from corten.store.layers import RunJob, run_on_archive
from corten.store.worker_stream import read_from_worker

PATIENCE = 600.0  # seconds until a parcel that nobody fetches is thrown away
HOLDER = "output "


class NoSuchParcel(NotFound):
    template = "no such output: {id} (it is there once, and for ten minutes)"


@dataclass(frozen=True)
class Parcel:
    """`job` writes the tar, confined to `folder`. `own`: the folder goes with the parcel. `diff_ids`: layers that it needs until then."""

    type: str
    job: str
    argument: bytes
    folder: str
    own: bool
    diff_ids: tuple[str, ...] = ()


class Parcels:
    def __init__(self, database: Database, run_job: RunJob) -> None:
        self._database, self._run_job = database, run_job
        self._waiting: dict[str, tuple[Parcel, asyncio.TimerHandle]] = {}

    def sweep(self) -> None:
        """Start-up: what an earlier engine held."""
        self._database.release_layers(HOLDER)

    def add(self, parcel: Parcel) -> str:
        """Its id."""
        key = secrets.token_hex(16)
        self._database.hold_layers(HOLDER + key, parcel.diff_ids)
        self._waiting[key] = parcel, asyncio.get_running_loop().call_later(PATIENCE, self.drop, key)
        return key

    def drop(self, key: str) -> None:
        """Idempotent."""
        parcel, timer = self._waiting.pop(key, (None, None))
        if timer:
            timer.cancel()
        if parcel:
            self._let_go(key, parcel)

    def _let_go(self, key: str, parcel: Parcel) -> None:
        self._database.release_layers(HOLDER + key)
        if parcel.own:
            shutil.rmtree(parcel.folder, ignore_errors=True)

    def close(self) -> None:
        for key in list(self._waiting):
            self.drop(key)

    async def fetch(self, key: str) -> AsyncIterator[bytes]:
        """The tar in pieces. Raises NoSuchParcel; whoever begins to read has it, and it is gone afterwards."""
        parcel, timer = self._waiting.pop(key, (None, None))
        if parcel is None or timer is None:
            raise NoSuchParcel(id=key)
        timer.cancel()
        folder = os.open(parcel.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            async for data in read_from_worker(lambda output: run_on_archive(self._run_job, parcel.job, (folder, output), parcel.argument)):
                yield data
        finally:
            os.close(folder)
            self._let_go(key, parcel)
