"""A tar comes out of its unpacked folder as it went in, byte for byte: random ones, odd ones, and those that others write."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corten.errors import ArchiveRefused
from corten.store.layer_check import Expected
from corten.store.tar_record import Recorder, TarRecord
from corten.store.unpack import Unpacker, _HashingReader

NAMES = st.sampled_from(["a", "b", "c", "ü", "long" * 40, "\udcff"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
KINDS = st.sampled_from(["file", "file", "file", "empty", "folder", "link", "hard", "whiteout", "opaque", "fifo", "device", "attribute"])
ENTRIES = st.lists(st.tuples(KINDS, PATHS, PATHS, st.integers(0, 1500)), max_size=16)
FORMATS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
TYPES = {"folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE, "device": tarfile.CHRTYPE}


def unpack(data: bytes, folder: str) -> bytes | None:
    """The record of a tar that is unpacked into the folder; None if there is none. Raises ArchiveRefused."""
    record = io.BytesIO()
    recorder = Recorder(record)
    reader = _HashingReader(io.BytesIO(data), recorder)
    with tarfile.open(fileobj=cast("Any", reader), mode="r|", bufsize=1 << 20, errorlevel=2) as archive:
        Unpacker(folder, recorder=recorder).apply(archive)
        while reader.read(1 << 20):
            continue
    assert reader.hash.digest() == hashlib.sha256(data).digest()
    return record.getvalue() if recorder.finish(f"{folder}/") else None


def put_together(record: bytes, folder: str) -> bytes:
    base = os.fsencode(folder) + b"/"
    return b"".join(TarRecord(io.BytesIO(record)).put_together(lambda path: os.open(base + path, os.O_RDONLY | os.O_NOFOLLOW)))


def write(entries: list[tuple[str, str, str, int]], form: int) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=form) as archive:
        for number, (kind, path, other, size) in enumerate(entries):
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode, entry.mtime = TYPES.get(kind, tarfile.REGTYPE), 0o755, number
            entry.uid = entry.gid = size
            if kind in ("file", "whiteout", "attribute"):
                entry.size = size
            if kind == "whiteout":
                entry.name = f"{os.path.dirname(path)}/.wh.{os.path.basename(path)}".lstrip("/")
            elif kind == "opaque":
                entry.name = f"{path}/.wh..wh..opq"
            elif kind in ("link", "hard"):
                entry.linkname = other
            elif kind == "attribute":
                entry.pax_headers = {"SCHILY.xattr.user.x": "y", "mtime": f"{number}.125"}
            elif kind == "device":
                entry.devmajor, entry.devminor = 1, 3
            archive.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    return output.getvalue()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(entries=ENTRIES, form=FORMATS, rest=st.sampled_from([b"", bytes(512), bytes(7000), b"garbage behind the end"]))
def test_a_random_tar(tmp_path_factory, entries, form, rest):
    """Names twice, files replaced by folders and the reverse, links as parents, whiteouts of what the tar itself has."""
    data = write(entries, form) + rest
    folder = str(tmp_path_factory.mktemp(f"cortest-{os.getpid()}-tar"))
    try:
        record = unpack(data, folder)
    except (ArchiveRefused, OSError):  # a hard link to nothing, a link to itself on the way: such a layer does not exist
        record = None
    else:
        if not any(kind == "link" for kind, *_ in entries):
            assert record is not None, "without links every name means one file"
    if record is not None:
        assert put_together(record, folder) == data
        assert differences(data, folder) == []
    shutil.rmtree(folder)


def differences(data: bytes, folder: str) -> list[str]:
    """What the check finds the folder to have otherwise than the tar; nothing, of a tar that leads through its own links."""
    expected = Expected()
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as archive:
        for each in archive:
            expected.take(each)
    return [] if expected.unsure else list(expected.differences(f"{folder}/"))


def tar_of(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=form) as archive:
        for entry, content in entries:
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return output.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


BIG = os.urandom(3 << 20)
CASES = {
    "a file twice": [(entry("a"), b"first"), (entry("a"), b"second")],
    "a file that has another name, replaced": [(entry("a"), b"first"), (entry("b", tarfile.LNKTYPE, "a"), b""), (entry("a"), b"second")],
    "a folder replaced by a file": [(entry("a/b/c"), b"inside"), (entry("a/x"), BIG), (entry("a"), b"a file")],
    "what its own whiteout removes": [(entry("a/b"), b"inside"), (entry(".wh.a"), b"a whiteout with content")],
    "through a link": [(entry("real", tarfile.DIRTYPE), b""), (entry("link", tarfile.SYMTYPE, "real"), b""), (entry("link/f"), b"x"), (entry("real/f"), b"y")],
    "large, with zeros": [(entry("zeros"), bytes(5 << 20)), (entry("big"), BIG), (entry("end"), bytes(1 << 20) + b"x" + bytes(1 << 20))],
    "a whiteout as large as a file": [(entry(".wh.a"), BIG + BIG), (entry("b"), b"x")],
    "nothing": [],
}


@pytest.mark.parametrize("case", CASES)
def test_an_odd_tar(tmp_path, case):
    data = tar_of(*CASES[case])
    record = unpack(data, str(tmp_path))
    assert record is not None
    assert put_together(record, str(tmp_path)) == data
    assert differences(data, str(tmp_path)) == []


SPOILS = {
    "/d/f differs in its mode": lambda base: os.chmod(f"{base}/d/f", 0o600),
    "/d/f differs in its owner": lambda base: os.chown(f"{base}/d/f", 7, 0),
    "/d/f differs in its group": lambda base: os.chown(f"{base}/d/f", 0, 7),
    "/d/f differs in its time": lambda base: os.utime(f"{base}/d/f", ns=(1, 1)),
    "/d/f differs in its extended attributes": lambda base: os.setxattr(f"{base}/d/f", "user.other", b"x"),
    "/d differs in its mode": lambda base: os.chmod(f"{base}/d", 0o700),
    "/l differs in its target": lambda base: (os.unlink(f"{base}/l"), os.symlink("else", f"{base}/l"), os.lchown(f"{base}/l", 0, 0)),
    "/l differs in its kind": lambda base: (os.unlink(f"{base}/l"), os.mkdir(f"{base}/l")),
    "/c differs in its device number": lambda base: (os.unlink(f"{base}/c"), os.mknod(f"{base}/c", 0o020644, os.makedev(1, 5))),
    "/gone differs in its kind": lambda base: (os.unlink(f"{base}/gone"), os.mknod(f"{base}/gone", 0o020644, os.makedev(1, 3))),
    "/e is missing": lambda base: os.unlink(f"{base}/e"),
    "/d/more is not in its tar": lambda base: os.mkfifo(f"{base}/d/more"),
}


@pytest.mark.parametrize("text", SPOILS)
def test_what_a_checksum_does_not_see_is_seen(tmp_path, text):
    device = entry("c", tarfile.CHRTYPE)
    device.devmajor, device.devminor = 1, 3
    data = tar_of((entry("d", tarfile.DIRTYPE), b""), (entry("d/f"), b"x"), (entry("l", tarfile.SYMTYPE, "d"), b""), (device, b""), (entry(".wh.gone"), b""), (entry("e"), b""))
    base = str(tmp_path)
    assert unpack(data, base) is not None
    assert differences(data, base) == []
    SPOILS[text](base)
    assert differences(data, base) == [text]


def test_a_name_that_comes_to_mean_another_file_is_not_recorded(tmp_path):
    """The link on the way to a file is replaced: the folder has its content, but no name that the record knows."""
    data = tar_of((entry("one", tarfile.DIRTYPE), b""), (entry("link", tarfile.SYMTYPE, "one"), b""), (entry("link/f"), b"x"), (entry("link"), b"a file now"))
    assert unpack(data, str(tmp_path)) is None


def test_too_much_that_was_replaced_is_not_recorded(tmp_path):
    large = bytes(17 << 20)
    assert unpack(tar_of((entry("a"), large), (entry("a"), b"")), str(tmp_path)) is None


def test_much_behind_the_end_and_a_tar_without_one(tmp_path):
    for number, data in enumerate((tar_of((entry("a"), b"x")) + os.urandom(9 << 20), tar_of((entry("a"), b"x"))[:1024], b"")):
        folder = str(tmp_path / str(number))
        os.mkdir(folder)
        try:
            record = unpack(data, folder)
        except tarfile.ReadError:
            assert not data
            continue
        assert record is not None
        assert put_together(record, folder) == data


@pytest.mark.parametrize("options", [["--format=gnu"], ["--format=pax"], ["--format=ustar"], ["--format=v7"], ["--format=gnu", "--sparse"], ["--format=pax", "--sparse"],
                                     ["--format=pax", "--sparse", "--sparse-version=0.0"], ["--format=pax", "--sparse", "--sparse-version=0.1"]])  # fmt: skip
def test_what_gnu_tar_writes(tmp_path, options):
    source, folder = tmp_path / "source", tmp_path / "folder"
    (source / "deep").mkdir(parents=True)
    folder.mkdir()
    with open(source / "deep/sparse", "wb") as file:
        for number in range(40):
            file.seek(number << 20)
            file.write(b"data" * number)
        file.truncate(50 << 20)
    (source / "plain").write_bytes(BIG)
    os.link(source / "plain", source / "second")
    (source / "empty").write_bytes(b"")
    if "--format=v7" not in options and "--format=ustar" not in options:
        (source / ("n" * 200)).write_text("long")
    data = subprocess.run(["tar", *options, "-cf", "-", "-C", str(source), "."], stdout=subprocess.PIPE, check=True).stdout
    record = unpack(data, str(folder))
    assert record is not None
    assert len(record) < 20_000
    assert put_together(record, str(folder)) == data


def test_a_changed_folder_is_named(tmp_path):
    data = tar_of((entry("a"), b"first"), (entry("d/b"), b"second"))
    folder = str(tmp_path)
    record = unpack(data, folder)
    (tmp_path / "d/b").write_bytes(b"Second")
    with pytest.raises(ArchiveRefused, match=r"^/d/b differs in its content"):
        put_together(record, folder)
    (tmp_path / "d/b").write_bytes(b"sec")
    with pytest.raises(ArchiveRefused, match=r"^/d/b differs in its length"):
        put_together(record, folder)
    os.unlink(tmp_path / "a")
    with pytest.raises(ArchiveRefused, match=r"^/a cannot be read: No such file"):
        put_together(record, folder)


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: b"", lambda data: data[-40:], lambda data: data[:4] + b"\xff\xff" + data[6:], lambda data: data[:-30] + b"\xff\xff" + data[-28:]])
def test_a_broken_record_is_refused(tmp_path, spoil):
    record = unpack(tar_of(*[(entry(f"file{number}"), b"content") for number in range(50)]), str(tmp_path))
    with pytest.raises(ArchiveRefused, match="the layer's record is broken"):
        put_together(spoil(record), str(tmp_path))
