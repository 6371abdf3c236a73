"""A result's tar unpacked into a folder of the user's: over what is there, and never out of it."""

from __future__ import annotations

import io
import os
import tarfile

import pytest

from corten.cli.build_result_files import unpack
from corten.errors import Invalid


def tar(*items: tuple[str, bytes, str]) -> io.BytesIO:
    """(name, type, content or link)."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, kind, text in items:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = kind, 0o755
            if kind == tarfile.REGTYPE:
                entry.size = len(text)
            else:
                entry.linkname = text
            entry.uid, entry.gid = os.getuid(), os.getgid()
            archive.addfile(entry, io.BytesIO(text.encode()))
    output.seek(0)
    return output


FILE, FOLDER, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def test_files_and_links(tmp_path):
    unpack(tar(("d", FOLDER, ""), ("d/f", FILE, "new"), ("d/h", HARD, "d/f"), ("l", LINK, "/etc/passwd")), f"{tmp_path}/out")
    out = tmp_path / "out"
    assert (out / "d/f").read_text() == "new" and (out / "d/f").samefile(out / "d/h") and os.readlink(out / "l") == "/etc/passwd"
    unpack(tar(("l", FILE, "a file now"), ("d/f", LINK, "h")), f"{tmp_path}/out")
    assert not (out / "l").is_symlink() and os.readlink(out / "d/f") == "h" and (out / "d/h").read_text() == "new"


@pytest.mark.parametrize(
    "items", [[("../x", FILE, "")], [("l", LINK, "/"), ("l/x", FILE, "")], [("there/x", FILE, "")], [("h", HARD, "../outside")], [("h", HARD, "there/outside")]]
)
def test_nothing_leaves_the_folder(tmp_path, items):
    (tmp_path / "outside").write_text("kept")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "there").symlink_to(tmp_path)
    with pytest.raises(Invalid):
        unpack(tar(*items), f"{tmp_path}/out")
    assert sorted(os.listdir(tmp_path)) == ["out", "outside"]
