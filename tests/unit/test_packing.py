"""The packer: the same bytes whoever packs, read back by gzip and zstd themselves, also of what is packed already."""

from __future__ import annotations

import gzip
import hashlib
import os

import pytest
import zstandard

from corten.errors import ArchiveRefused
from corten.store.compression import open_decompressed
from corten.store.packing import Packer, Packing

DATA = b"".join(os.urandom(50) + b"\0" * (number % 7000) for number in range(2500))  # eight blocks and a bit
DIFF_ID = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


def packed(tmp_path, source: bytes, packing: Packing, threads: int = 3) -> bytes:
    (tmp_path / "in").write_bytes(source)
    with open(tmp_path / "in", "rb") as tar, open(tmp_path / "out", "wb") as out:
        packer, reader = Packer(out.fileno(), packing, threads), open_decompressed(tar)
        while piece := reader.read(300_000):
            packer.write(piece)
        found = packer.finish()
    data = (tmp_path / "out").read_bytes()
    assert (found.digest, found.size) == (f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
    return data


READERS = {"gzip": gzip.decompress, "zstd": lambda data: zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read(), "uncompressed": bytes}


@pytest.mark.parametrize("before", ["uncompressed", "gzip", "zstd"])
@pytest.mark.parametrize(("kind", "level"), [("gzip", None), ("gzip", 0), ("gzip", 9), ("zstd", None), ("zstd", 0), ("zstd", 22), ("uncompressed", None)])
def test_it_is_read_back(tmp_path, kind, level, before):
    source = {"uncompressed": DATA, "gzip": gzip.compress(DATA, 1), "zstd": zstandard.compress(DATA)}[before]
    packing = Packing(kind, level, DIFF_ID)
    data = packed(tmp_path, source, packing)
    assert READERS[kind](data) == DATA
    assert packed(tmp_path, source, packing, threads=1) == data  # whoever packs
    assert packed(tmp_path, DATA, packing) == data  # whatever it was packed as


def test_a_level_says_how_well(tmp_path):
    sizes = [len(packed(tmp_path, b"".join(b"%d" % number for number in range(400_000)), Packing("zstd", level))) for level in (1, 19)]
    assert sizes[1] < sizes[0]


def test_what_is_something_else_is_refused(tmp_path):
    with pytest.raises(ArchiveRefused, match="does not match its digest"):
        packed(tmp_path, gzip.compress(b"other"), Packing("zstd", None, DIFF_ID))


def test_nothing_at_all(tmp_path):
    empty = f"sha256:{hashlib.sha256(b'').hexdigest()}"
    for kind, read in READERS.items():
        assert read(packed(tmp_path, b"", Packing(kind, None, empty))) == b""
