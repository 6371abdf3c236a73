"""What begins an archive: headers that GNU tar and Python wrote, and what only looks like one."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile

import pytest

from corten.spec.archive_head import BLOCK, is_archive, is_tar


def written(tar_format: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tar_format) as archive:
        archive.addfile(tarfile.TarInfo("é" * 40))
    return packed.getvalue()


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_is_told_by_its_checksum(tar_format):
    head = written(tar_format)[:BLOCK]
    assert is_tar(head)
    assert is_archive(head)
    assert not is_tar(head[:-1])
    assert not is_tar(b"X" + head[1:])


@pytest.mark.parametrize("tar_format", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_writes(tmp_path, tar_format):
    program = shutil.which("tar")
    if not program:
        pytest.skip("needs tar")
    (tmp_path / "file").write_text("x")
    packed = subprocess.run([program, f"--format={tar_format}", "-cf", "-", "-C", str(tmp_path), "file"], capture_output=True, check=True).stdout
    assert is_tar(packed[:BLOCK])


@pytest.mark.parametrize("head", [b"", bytes(BLOCK), bytes(257) + b"ustar" + bytes(250), b"FROM busybox\n" * 100])
def test_what_is_none(head):
    assert not is_archive(head)


def test_what_is_packed_is_an_archive_whatever_it_holds():
    packed = gzip.compress(b"no tar")
    assert is_archive(packed)
    assert not is_tar(packed)
