"""Names whose bytes are no UTF-8: they come through contexts, layers, cache and archives as they are, from every client."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile

import pytest

from corten.api.client import ApiError
from tests.builds import build, context, read_tree
from tests.system.conftest import need
from tests.system.test_cli_build import corten, nothing_stays  # noqa: F401 - a fixture that holds for every test here

ODD = os.fsdecode(b"lat-\xe9")
DOCKERFILE = """FROM busybox AS made
RUN mkdir -p /made && printf x >"/made/$(printf 'caf\\351')" && ln -s "$(printf 'caf\\351')" /made/link
FROM busybox
COPY odd /odd
COPY odd/lat-* /one/
COPY --from=made /made /made
COPY --from=made /made/caf* /two/
RUN --mount=target=/ctx test "$(cat /ctx/odd/lat-*)" = content
"""


def by_python(tar_format: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tar_format, encoding="utf-8", errors="surrogateescape") as archive:
        for name, data in (("Dockerfile", DOCKERFILE.encode()), (f"odd/{ODD}", b"content")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("odd/link")
        link.type, link.linkname = tarfile.SYMTYPE, ODD
        archive.addfile(link)
        hard = tarfile.TarInfo(f"odd/hard-{ODD}")
        hard.type, hard.linkname = tarfile.LNKTYPE, f"odd/{ODD}"
        archive.addfile(hard)
    return packed.getvalue()


def check(engine, image: str) -> None:
    made = read_tree(engine.client, image)
    assert made[f"odd/{ODD}"][4] == made[f"one/{ODD}"][4] == b"content"
    cafe = os.fsdecode(b"caf\xe9")
    assert made[f"made/{cafe}"][4] == made[f"two/{cafe}"][4] == b"x"
    assert made["made/link"][4] == b"caf\xe9"


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_in_a_tar(engine, tar_format):
    body = by_python(tar_format)
    first = build(engine, body, explain=1)
    check(engine, first.image)
    assert build(engine, body).cached == 6
    changed = body.replace(b"content\0", b"changed\0")
    assert "Not in the cache: file" in build(engine, changed, explain=1).text


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / ODD).write_bytes(b"content")
    return tmp_path


def test_from_a_folder_by_corten(engine, folder):
    corten(engine, "build", "-q", "-t", "odd:1", str(folder))
    check(engine, "odd:1")


def test_from_a_folder_by_docker(engine, docker_cli, folder):
    done = subprocess.run([docker_cli, "build", "-q", "-t", "odd:2", str(folder)], env=engine.environment | {"DOCKER_BUILDKIT": "0"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check(engine, "odd:2")


def test_from_gnu_tar(engine, folder):
    packed = subprocess.run([need("tar"), "-C", str(folder), "-cf", "-", "."], capture_output=True, check=True).stdout
    check(engine, build(engine, packed).image)


@pytest.mark.parametrize("key", ["path", "linkpath"])
@pytest.mark.parametrize("name", ["a\0b", "a\0e9"])
def test_a_name_with_a_nul_is_refused(engine, key, name):
    entry = tarfile.TarInfo("odd")
    entry.type, entry.linkname, entry.pax_headers = tarfile.SYMTYPE, "x", {key: name}
    with pytest.raises(ApiError, match="NUL in its name") as refused:
        build(engine, context({"Dockerfile": "FROM busybox\nCOPY . /x\n", "odd": (entry, b"")}))
    assert refused.value.http_status == 400
