"""The store without a kernel: names in tars, archives, blobs, the database."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.engine.hello import hello_archive
from corten.errors import ArchiveRefused
from corten.spec.digest import digest_of
from corten.spec.platform import Platform
from corten.store.arriving import ArrivedFiles, link_target
from corten.store.blobs import Blobs
from corten.store.database import Database, ImageRow, LayerRow, NameTaken
from corten.store.image_archive import LoadedImage, read_image_archive
from corten.store.layout import Layout
from corten.store.locks import NamedLocks
from corten.store.unpack import safe_name


@pytest.fixture
def layout(tmp_path):
    made = Layout(str(tmp_path / "root"), str(tmp_path / "run"))
    made.create()
    return made


@pytest.mark.parametrize(("name", "clean"), [("./a/b", "a/b"), ("/etc/passwd", "etc/passwd"), ("a/./b/../c", "a/c"), ("./", ""), ("a//b/", "a/b")])
def test_names_stay_below_the_root(name, clean):
    assert safe_name(name) == clean


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x", "..", "./../../etc/passwd", "a/b/../../../c", "x\0y"])
def test_names_that_lead_out_are_refused(name):
    with pytest.raises(ArchiveRefused):
        safe_name(name)


@given(st.text(alphabet="./ab", max_size=20))
def test_no_name_leads_out(name):
    try:
        clean = safe_name(name)
    except ArchiveRefused:
        return
    assert ".." not in clean.split("/")
    assert not clean.startswith("/")


def test_blobs_are_whole_or_absent(layout):
    blobs = Blobs(layout)
    digest = blobs.put(b"data")
    assert blobs.read(digest) == b"data"
    with pytest.raises(ArchiveRefused, match="altered or cut off"), blobs.writer() as writer:
        writer.write(b"other")
        writer.commit(digest)
    assert os.listdir(layout.temporary) == []


def test_database_keeps_names_unique_and_rolls_back(layout):
    database = Database(layout.database)
    database.put_container("1", "a", b"{}")
    with pytest.raises(NameTaken):
        database.put_container("2", "a", b"{}")
    with pytest.raises(RuntimeError), database.transaction():
        database.put_image(ImageRow("i", "m", "t", 1, 1))
        raise RuntimeError
    assert database.images() == []
    numbers = {database.next_layer_number() for _ in range(3)}
    assert len(numbers) == 3
    assert database.add_layer(LayerRow(1, "d", "b", 1))
    assert not database.add_layer(LayerRow(2, "d", "b", 1))
    database.close()


def _write(tmp_path, entries: dict[str, bytes]) -> str:
    path = tmp_path / "image.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def _read(path: str, layout: Layout) -> list[LoadedImage]:
    folder = f"{layout.temporary}/archive"
    os.mkdir(folder)
    with open(path, "rb") as source:
        return read_image_archive(source, folder, Blobs(layout))


def test_hello_is_the_same_every_time_and_loads(layout, tmp_path):
    data = hello_archive(Platform("arm64", variant="v8"))
    assert data == hello_archive(Platform("arm64", variant="v8"))
    path = tmp_path / "hello.tar"
    path.write_bytes(data)
    loaded = _read(path, layout)
    assert loaded[0].names == ("docker.io/library/hello:latest",)
    assert Blobs(layout).has(loaded[0].manifest.digest)


@pytest.mark.parametrize(
    "entries",
    [
        {"x": b"y"},
        {"manifest.json": b"{}"},
        {"manifest.json": b"[{}]"},
        {"manifest.json": json.dumps([{"Config": "missing", "Layers": []}]).encode()},
        {"manifest.json": json.dumps([{"Config": "c", "Layers": ["l"]}]).encode(), "c": b'{"architecture":"amd64","rootfs":{"diff_ids":[]}}'},
        {"manifest.json": json.dumps([{"Config": "c", "Layers": []}]).encode(), "c": b"not json"},
        {"oci-layout": b"{}", "index.json": b"[]"},
        {"oci-layout": b"{}", "index.json": b'{"manifests":[{"mediaType":"x","digest":"sha256:00","size":1}]}'},
    ],
)
def test_wrong_archives_are_refused(layout, tmp_path, entries):
    with pytest.raises(ArchiveRefused):
        _read(_write(tmp_path, entries), layout)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_cleanly(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    layout = Layout(str(folder / "root"), str(folder / "run"))
    layout.create()
    path = folder / "x.tar"
    path.write_bytes(data)
    with pytest.raises(ArchiveRefused):
        _read(path, layout)


def test_a_name_has_one_lock_for_as_long_as_somebody_waits_and_none_after():
    locks = NamedLocks()

    async def scene() -> None:
        order = []

        async def work(number: int) -> None:
            async with locks["a"]:
                order.append(number)
                await asyncio.sleep(0)
                order.append(number)

        await asyncio.gather(*map(work, range(3)))
        assert order == [0, 0, 1, 1, 2, 2]
        assert locks["a"] is not locks["b"]

    asyncio.run(scene())
    gc.collect()
    assert not locks._locks


def test_who_looks_into_the_database_of_an_engine_takes_nothing_from_it(tmp_path):
    """The locks must be there: who closes a database and thinks to be the last one removes its log."""
    import subprocess
    import sys

    path = str(tmp_path / "state.db")
    database = Database(path)
    program = f"import sqlite3; c = sqlite3.connect({path!r}); print(c.execute('SELECT count(*) FROM volumes').fetchone()[0]); c.close()"
    for number in range(3):
        database.put_volume(f"v{number}", b"{}")
        seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        assert int(seen) == number + 1
    database.close()


def _arrived(tmp_path, *members: tuple[str, bytes, str, bytes]) -> ArrivedFiles:
    """(name, type, link, content) of each."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, kind, link, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(content)
            archive.addfile(info, io.BytesIO(content))
    data.seek(0)
    folder = tmp_path / "arrived"
    folder.mkdir()
    return ArrivedFiles(data, str(folder))


def test_links_in_an_archive_are_names_in_it(tmp_path):
    files = _arrived(
        tmp_path, ("./a/layer.tar", tarfile.REGTYPE, "", b"content"), ("b/layer.tar", tarfile.SYMTYPE, "../a/layer.tar", b""), ("c", tarfile.LNKTYPE, "a/layer.tar", b""),
        ("out", tarfile.SYMTYPE, "../../../etc/passwd", b""), ("loop", tarfile.SYMTYPE, "loop", b""), ("folder", tarfile.DIRTYPE, "", b""),
    )  # fmt: skip
    assert {files.document(name) for name in ("a/layer.tar", "b/layer.tar", "c")} == {b"content"}
    for name, text in (("out", "'etc/passwd' is missing"), ("loop", "is not a file"), ("folder", "is missing"), ("d", "'d' is missing")):
        with pytest.raises(ArchiveRefused, match=text):
            files.find(name)


@given(st.text(alphabet="./ab", max_size=12), st.text(alphabet="./ab", max_size=12))
def test_no_link_leads_out(name, link):
    assert ".." not in link_target(name, link).split("/")


def test_a_file_becomes_a_blob_without_a_copy(layout, tmp_path):
    path = f"{layout.temporary}/x"
    with open(path, "wb") as file:
        file.write(b"data")
    blobs = Blobs(layout)
    digest = digest_of(b"data")
    for _ in range(2):
        blobs.adopt(path, digest)
    assert os.stat(layout.blob(digest)).st_ino == os.stat(path).st_ino
    assert blobs.read(digest) == b"data"
