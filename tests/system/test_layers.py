"""A writable layer is what the kernel says: random changes on a real overlay, listed, packed, and applied again.

The tree of a changed overlay must be the tree of the lower layer with the packed difference unpacked over it.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import subprocess
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corten.linux import syscalls
from corten.store import overlay_view
from corten.store.changes import changes
from corten.store.layer_diff import write_diff
from corten.store.tar_writer import TarWriter
from corten.store.unpack import Unpacker

NAMES = st.sampled_from(["a", "b", "c", "ü", "long" * 30])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
NUMBERS = st.integers(0, 3)
STEPS = st.tuples(
    st.sampled_from(["file", "folder", "link", "hard", "device", "fifo", "mode", "owner", "attribute", "remove", "time", "sparse", "rename", "capability"]), PATHS, PATHS, NUMBERS
)
TREE = st.lists(STEPS, max_size=14)
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def perform(root: str, step: tuple[str, str, str, int]) -> None:
    """One change to a tree; what cannot be done there is left."""
    kind, path, other, number = step
    target, second = f"{root}/{path}", f"{root}/{other}"
    try:
        if kind not in ("mode", "owner", "attribute", "remove", "time", "rename", "capability"):
            os.makedirs(os.path.dirname(target), exist_ok=True)
        if kind == "file":
            with open(target, "w") as file:
                file.write("x" * number)
        elif kind == "folder":
            os.mkdir(target, 0o700 + number)
        elif kind == "link":
            os.symlink("../" * number + "a", target)
        elif kind == "hard":
            os.link(second, target, follow_symlinks=False)
        elif kind == "device":
            os.mknod(target, (stat.S_IFCHR if number % 2 else stat.S_IFBLK) | 0o600, os.makedev(number + 1, 5))
        elif kind == "fifo":
            os.mkfifo(target)
        elif kind == "mode":
            os.chmod(target, 0o4700 + number, follow_symlinks=True)
        elif kind == "owner":
            os.chown(target, number, number + 1, follow_symlinks=False)
        elif kind == "attribute":
            os.setxattr(target, f"user.n{number}", bytes([number, 255, 0]), follow_symlinks=False)
        elif kind == "capability":
            os.setxattr(target, "security.capability", CAPABILITY, follow_symlinks=False)
        elif kind == "remove":
            shutil.rmtree(target) if os.path.isdir(target) and not os.path.islink(target) else os.unlink(target)
        elif kind == "time":
            os.utime(target, ns=(0, number * 1_000_000_007), follow_symlinks=False)
        elif kind == "sparse":
            with open(target, "wb") as file:
                file.truncate(300_000 + number)
                file.seek(100_000 * number)
                file.write(b"data")
        elif kind == "rename":
            os.rename(target, second)
    except OSError:
        pass


def tree(root: str) -> dict[str, tuple]:
    """Everything that a layer carries of a tree; names that are one file share their first name."""
    found, first = {}, {}
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(folders + files):
            path = f"{folder}/{name}"
            status = os.lstat(path)
            inside = os.path.relpath(path, root)
            kind = stat.S_IFMT(status.st_mode)
            content: object = None
            if kind == stat.S_IFREG:
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            elif kind == stat.S_IFLNK:
                content = os.readlink(path)
            attributes = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False) if not key.startswith("trusted.")}
            linked = first.setdefault(status.st_ino, inside) if not stat.S_ISDIR(status.st_mode) else ""
            found[inside] = (kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_rdev, content, attributes, linked,
                             None if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns // 1_000_000_000)  # fmt: skip
    return found


class Overlay:
    """A real overlay mount in a folder of its own."""

    def __init__(self, base: str, *lower: str) -> None:
        self.upper, self.merged = f"{base}/upper", f"{base}/merged"
        for name in ("upper", "work", "merged"):
            os.makedirs(f"{base}/{name}")
        syscalls.mount("overlay", self.merged, "overlay", 0, f"lowerdir={':'.join(lower)},upperdir={self.upper},workdir={base}/work")

    def __enter__(self) -> Overlay:
        return self

    def __exit__(self, *_error: object) -> None:
        syscalls.umount2(self.merged, syscalls.MNT_DETACH)


def packed(upper: str) -> bytes:
    output = io.BytesIO()
    write_diff(upper, TarWriter(output))
    return output.getvalue()


def expected_changes(old: dict[str, tuple], new: dict[str, tuple]) -> dict[str, int]:
    """Docker's rule, from two whole trees: the second opinion on what the walk of the writable layer says."""
    found: dict[str, int] = {}
    for path, entry in new.items():
        if path not in old:
            found[path] = 1
        elif old[path] != entry:
            found[path] = 0
    for path in old:
        parent = os.path.dirname(path)
        if path not in new and (not parent or (parent in new and new[parent][0] == stat.S_IFDIR)):
            found[path] = 2
    for path in tuple(found):
        while path := os.path.dirname(path):
            found.setdefault(path, 0)
    return found


def stats_only(found: dict[str, tuple], root: str) -> dict[str, tuple]:
    """What Docker compares: mode, owner, device, capability; size and time of what is no folder."""
    return {
        path: (kind, mode, uid, gid, rdev, attributes.get("security.capability"),
               None if kind == stat.S_IFDIR else (os.lstat(f"{root}/{path}").st_mtime_ns, os.lstat(f"{root}/{path}").st_size))
        for path, (kind, mode, uid, gid, rdev, _, attributes, _, _) in found.items()
    }  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(before=TREE, after=TREE)
def test_a_difference_applied_gives_the_tree(tmp_path_factory, before, after):
    base = str(tmp_path_factory.mktemp(f"cortest-{os.getpid()}-diff"))
    lower, layer = f"{base}/lower", f"{base}/layer"
    os.makedirs(lower)
    os.makedirs(layer)
    for step in before:
        perform(lower, step)
    with Overlay(f"{base}/one", lower) as one:
        for step in after:
            perform(one.merged, step)
        wanted = tree(one.merged)
        old = stats_only(tree(lower), lower)
        listed = {change.path[1:]: int(change.kind) for change in changes(one.upper, [lower])}
        new = stats_only(wanted, one.merged)
        data = packed(one.upper)
        assert packed(one.upper) == data
    assert listed == expected_changes(old, new)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as archive:
        Unpacker(layer).apply(archive)
    assert packed(layer) == data, "the unpacked layer is not the tar that it came from"
    with Overlay(f"{base}/two", layer, lower) as two:
        assert tree(two.merged) == wanted
    assert {name: node.status.st_mode for name, node in _all(overlay_view.root([layer, lower]))} == {
        name: entry[0] | entry[1] for name, entry in wanted.items()
    }
    shutil.rmtree(base)


def _all(folder: overlay_view.Node, path: str = "") -> list[tuple[str, overlay_view.Node]]:
    found = []
    for name, node in overlay_view.children(folder).items():
        inside = f"{path}/{name}".lstrip("/")
        found.append((inside, node))
        if node.is_folder:
            found += _all(node, inside)
    return found


def test_gnu_tar_reads_what_is_written_and_holes_come_back(tmp_path):
    upper = tmp_path / "upper"
    (upper / "deep").mkdir(parents=True)
    with open(upper / "deep" / "sparse", "wb") as file:
        file.truncate(40 << 20)
        file.seek(20 << 20)
        file.write(b"middle")
    (upper / ("n" * 150)).write_text("long")
    os.setxattr(upper / ("n" * 150), "user.a", b"\xff\0b")
    os.link(upper / ("n" * 150), upper / "zz")
    os.symlink("deep/sparse", upper / "link")
    os.mkfifo(upper / "fifo")
    archive, out = tmp_path / "x.tar", tmp_path / "out"
    archive.write_bytes(packed(str(upper)))
    out.mkdir()
    subprocess.run(["tar", "--xattrs", "--xattrs-include=*", "-xf", str(archive), "-C", str(out)], check=True)
    assert tree(str(out)) == tree(str(upper))
    again = tmp_path / "again"
    again.mkdir()
    with tarfile.open(archive, mode="r|") as stream:
        Unpacker(str(again)).apply(stream)
    assert tree(str(again)) == tree(str(upper))
    assert (again / "deep/sparse").stat().st_blocks * 512 <= 1 << 20


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=TREE)
def test_gnu_tar_and_this_one_read_each_other(tmp_path_factory, steps):
    """A random tree written here and read by GNU tar, written by GNU tar and read here, is the tree."""
    base = str(tmp_path_factory.mktemp(f"cortest-{os.getpid()}-gnu"))
    upper, theirs, ours = f"{base}/upper", f"{base}/theirs", f"{base}/ours"
    for folder in (upper, theirs, ours):
        os.mkdir(folder)
    for step in steps:
        perform(upper, step)
    for folder, names, files in os.walk(upper):  # a device 0/0 would be a whiteout, and this is no overlay's layer
        assert not any(os.lstat(f"{folder}/{name}").st_rdev == 0 and stat.S_ISCHR(os.lstat(f"{folder}/{name}").st_mode) for name in names + files)
    wanted = tree(upper)
    attributes = ["--xattrs", "--xattrs-include=*"]
    subprocess.run(["tar", *attributes, "-xpf", "-", "-C", theirs], input=packed(upper), check=True)
    assert tree(theirs) == wanted
    written = subprocess.run(["tar", *attributes, "--format=pax", "--sparse", "-cf", "-", "-C", upper, "."], stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(written), mode="r|") as archive:
        Unpacker(ours).apply(archive)
    assert tree(ours) == wanted
    shutil.rmtree(base)


@pytest.mark.parametrize("level", [2, 5])
def test_whiteouts_are_the_images(tmp_path, level):
    lower = tmp_path / "lower"
    for number in range(level):
        (lower / f"f{number}").mkdir(parents=True)
        (lower / f"f{number}" / "in").write_text("")
    with Overlay(str(tmp_path / "o"), str(lower)) as overlay:
        shutil.rmtree(f"{overlay.merged}/f0")
        shutil.rmtree(f"{overlay.merged}/f1")
        os.mkdir(f"{overlay.merged}/f1")
        with tarfile.open(fileobj=io.BytesIO(packed(overlay.upper))) as archive:
            assert archive.getnames() == [".wh.f0", "f1", "f1/.wh..wh..opq"]
            assert archive.getmember(".wh.f0").isreg()
