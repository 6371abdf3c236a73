"""Results that wait to be fetched: each once, whole, and not for ever. Kept in memory; what they hold in the store is let go with them.

A build's messages name a parcel by its id; its tar is made while it is sent.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from corten.errors import NotFound
from corten.store.holds import Hold
from corten.store.worker_stream import read_from_worker
from corten.store.workers import RunJob, run_on_archive

PATIENCE = 600.0  # seconds until a parcel that nobody fetches is thrown away


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
    def __init__(self, run_job: RunJob) -> None:
        self._run_job = run_job
        self._waiting: dict[str, tuple[Parcel, asyncio.TimerHandle]] = {}
        self._sending: dict[str, Parcel] = {}

    def holds(self) -> list[Hold]:
        return [Hold("build-output", key, frozenset(parcel.diff_ids)) for key, parcel in self._all()]

    def _all(self) -> Iterator[tuple[str, Parcel]]:
        yield from ((key, parcel) for key, (parcel, _) in self._waiting.items())
        yield from self._sending.items()

    def add(self, parcel: Parcel) -> str:
        """Its id."""
        key = secrets.token_hex(16)
        self._waiting[key] = parcel, asyncio.get_running_loop().call_later(PATIENCE, self.drop, key)
        return key

    def drop(self, key: str) -> None:
        """Idempotent."""
        parcel, timer = self._waiting.pop(key, (None, None))
        if timer:
            timer.cancel()
        if parcel:
            self._let_go(parcel)

    @staticmethod
    def _let_go(parcel: Parcel) -> None:
        if parcel.own:
            shutil.rmtree(parcel.folder, ignore_errors=True)

    def close(self) -> None:
        for key in list(self._waiting):
            self.drop(key)

    async def fetch(self, key: str) -> AsyncGenerator[bytes, None]:
        """The tar in pieces. Raises NoSuchParcel; whoever begins to read has it, and it is gone afterwards."""
        parcel, timer = self._waiting.pop(key, (None, None))
        if parcel is None or timer is None:
            raise NoSuchParcel(id=key)
        timer.cancel()
        self._sending[key] = parcel
        folder = os.open(parcel.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            async for data in read_from_worker(lambda output: run_on_archive(self._run_job, parcel.job, (folder, output), parcel.argument)):
                yield data
        finally:
            os.close(folder)
            del self._sending[key]
            self._let_go(parcel)
