"""The quick tar reader against Python's own, and against damage."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import ArchiveRefused
from corten.store.tar_reader import TarReader
from corten.store.tar_writer import plain_header

NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=("Cs",)), min_size=1, max_size=120).filter(lambda name: name not in (".", ".."))
TYPES = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)
ENTRIES = st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.sampled_from(TYPES), st.integers(0, 0o7777),
                             st.integers(0, 1 << 40), st.binary(max_size=1500), NAMES), max_size=8)  # fmt: skip


def packed(entries, form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8") as archive:
        for name, kind, mode, mtime, data, link in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.mtime = kind, mode, mtime
            if kind == tarfile.REGTYPE:
                entry.size = len(data)
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                entry.linkname = link
            if kind == tarfile.CHRTYPE:
                entry.devmajor, entry.devminor = 3, 4
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@given(ENTRIES, st.sampled_from((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)))
def test_it_reads_what_tarfile_writes(entries, form):
    reader = TarReader(io.BytesIO(packed(entries, form)), "it")
    found = []
    for head in reader:
        data = b""
        while piece := reader.read(100):
            data += piece
        found.append((head.name.rstrip("/"), head.type.encode(), head.mode, head.time, data, head.link, head.device))
    wanted = [
        (name, kind, mode, mtime, data if kind == tarfile.REGTYPE else b"", link if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else "",
         (3, 4) if kind == tarfile.CHRTYPE else (0, 0))
        for name, kind, mode, mtime, data, link in entries
    ]  # fmt: skip
    assert found == wanted


@given(st.binary(max_size=3000))
def test_noise_is_refused_or_empty(data):
    try:
        assert list(TarReader(io.BytesIO(data), "it")) == []
    except ArchiveRefused:
        return


@given(ENTRIES, st.integers(0, 20_000), st.integers(0, 255))
def test_damage_is_refused_or_read(entries, at, value):
    data = bytearray(packed(entries, tarfile.PAX_FORMAT))
    data[at % len(data)] = value
    try:
        for _ in TarReader(io.BytesIO(bytes(data)), "it"):
            continue
    except ArchiveRefused:
        return


def test_what_is_cut_off_is_refused():
    data = packed([("a", tarfile.REGTYPE, 0o644, 0, b"x" * 2000, "")], tarfile.PAX_FORMAT)
    with pytest.raises(ArchiveRefused, match="cut off"):
        list(TarReader(io.BytesIO(data[:1000]), "it"))


@given(NAMES, st.sampled_from(TYPES[:5]), st.integers(0, 0o7777), st.integers(-1, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 1 << 25), NAMES)
def test_plain_headers_are_tarfiles_byte_for_byte(name, kind, mode, mtime, size, uid, link):
    name += "/" if kind == tarfile.DIRTYPE else ""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime, entry.size, entry.uid, entry.linkname = kind, mode, mtime, size, uid, link
    made = plain_header(entry)
    assert made in (b"", entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    plain = name.isascii() and link.isascii() and max(len(name), len(link)) <= 100 and 0 <= mtime < 1 << 33 and size < 1 << 33 and uid < 1 << 21
    assert bool(made) == plain
