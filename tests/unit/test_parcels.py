"""Results that wait: held while they wait and while they are sent, given away once, dropped after their time."""

from __future__ import annotations

import asyncio
import os

import pytest

from corten.builder.outputs import parcels
from corten.builder.outputs.parcels import NoSuchParcel, Parcel, Parcels


async def write_job(_entry: str, argument: bytes, fds) -> bytes:
    """Stands for a worker that writes its argument."""
    fd = os.dup(fds[1])
    await asyncio.sleep(0)
    os.write(fd, argument)
    os.close(fd)
    return b""


def own_folder(tmp_path) -> str:
    (tmp_path / "blobs").mkdir()
    return f"{tmp_path}/blobs"


def held(waiting: Parcels) -> set[str]:
    return {diff_id for hold in waiting.holds() for diff_id in hold.layers}


def test_once_and_held_until_then(tmp_path):
    async def use() -> None:
        waiting, folder = Parcels(write_job), own_folder(tmp_path)
        key = waiting.add(Parcel("tar", "job", b"content", folder, own=True, diff_ids=("sha256:1",)))
        assert held(waiting) == {"sha256:1"}
        pieces = waiting.fetch(key)
        assert await anext(pieces) == b"content" and held(waiting) == {"sha256:1"}
        with pytest.raises(NoSuchParcel):
            await anext(waiting.fetch(key))
        assert [piece async for piece in pieces] == []
        assert held(waiting) == set() and not os.path.exists(folder)

    asyncio.run(use())


def test_not_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(parcels, "PATIENCE", 0)

    async def use() -> None:
        waiting, folder = Parcels(write_job), own_folder(tmp_path)
        key = waiting.add(Parcel("oci", "job", b"", folder, own=True, diff_ids=("sha256:1",)))
        await asyncio.sleep(0.01)
        assert held(waiting) == set() and not os.path.exists(folder)
        with pytest.raises(NoSuchParcel):
            await anext(waiting.fetch(key))

    asyncio.run(use())


def test_not_longer_than_the_engine(tmp_path):
    async def use() -> None:
        waiting, folder = Parcels(write_job), own_folder(tmp_path)
        waiting.add(Parcel("oci", "job", b"", folder, own=True))
        waiting.add(Parcel("tar", "job", b"", str(tmp_path), own=False))
        waiting.close()
        assert not os.path.exists(folder) and os.path.exists(tmp_path)

    asyncio.run(use())
