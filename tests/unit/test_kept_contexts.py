"""Folders as build contexts, the parts that decide: what a listing means, what of it is known, what a build needs, what is waste."""

from __future__ import annotations

import io
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder import kept_folder
from corten.builder.context_needs import mounted_copy, needed_files
from corten.builder.entries import FILE, FOLDER, Entry
from corten.builder.graph import Bind, Copy, Exec, File, Local, Scratch, Vertex
from corten.builder.kept_context import KeptContext
from corten.builder.kept_folder import KeptFolder
from corten.builder.kept_index import EMPTY, Body, Head, check, merged, told
from corten.builder.kept_job import Content, Region, _Taker, size_of_region
from corten.builder.known_keys import KnownKeys, quick_key
from corten.builder.results import Folder, Result
from corten.cli.build_folder import listing
from corten.errors import ArchiveRefused, Invalid
from corten.spec.context_listing import Listed, is_settled
from corten.spec.ignore_file import Ignore

SECOND = 1_000_000_000
REGULAR = stat.S_IFREG | 0o644
A, B = "a" * 64, "b" * 64


def file(path: str, size: int = 1, ctime: int = 5 * SECOND + 1, **more: int) -> Listed:
    return Listed(path, REGULAR, size, ctime, ctime, 1, **more)


# --- what a status says
@pytest.mark.parametrize("time, taken, settled", [
    (5 * SECOND + 1, 6 * SECOND, True),
    (5 * SECOND + 1, 5 * SECOND + 50_000_000, False),  # the same tick
    (5 * SECOND, 6 * SECOND, False),  # a clock of whole seconds
    (5 * SECOND, 8 * SECOND, True),
    (9 * SECOND + 1, 8 * SECOND, False),  # a file system whose clock is ahead
])  # fmt: skip
def test_when_a_status_settles_the_content(time, taken, settled):
    assert is_settled(file("a", ctime=time), taken) is settled
    assert is_settled(Listed("a", REGULAR, 1, time, 0, 1), taken) is settled  # the newest of the two times


def test_what_a_new_listing_leaves_of_what_was_known():
    old = Body([file("changed"), file("gone"), file("same"), file("unsure")], {}, [A, A, A, B], {3}, {A: (0, 1), B: (1, 1)})
    new = merged(old, [file("changed", ctime=7), file("empty", 0), file("new"), file("same"), file("unsure")], {})
    assert new.digests == ["", EMPTY, "", A, B]
    assert new.unsure == {4}
    assert new.contents.keys() == {A, B, EMPTY}


def test_a_digest_that_is_told():
    body = Body([file("a")], {}, [""], set(), {})
    assert not told(body, 0, A, 6 * SECOND)
    assert not told(body, 0, A, 5 * SECOND)
    assert body.unsure == {0}
    assert told(body, 0, B, 6 * SECOND)
    assert (body.digests, body.unsure) == ([B], set())


def test_what_is_forgotten_makes_another_version():
    """A digest that has to be asked again may be another one then, and keys of steps are known by version."""
    body = Body([file("asked"), file("unsure")], {}, [A, B], {0, 1}, {A: (0, 1), B: (1, 1)})
    context = KeptContext("name", KeptFolder("/kept", Head()), None, body, Head(version="v"), 5 * SECOND)
    context._tell(0, A)
    assert context.version == "v"
    context._settle()
    assert (body.digests, body.unsure) == ([A, ""], {0})
    assert context.version != "v"


@pytest.mark.parametrize("path", ["/a", "a/", "..", "a/../b", "./a", "a//b", "a\0", ""])
def test_paths_that_a_listing_cannot_have(path):
    with pytest.raises(Invalid, match="is no path below a folder before it"):
        check([Listed(path, REGULAR)], {})


# --- what is needed
def test_what_the_steps_take_is_needed_and_nothing_else():
    listed = [Entry("", FOLDER), Entry("a", FILE), Entry("d", FOLDER), Entry("d/x.c", FILE), Entry("d/x.h", FILE), Entry("hidden", FILE), Entry("m", FILE)]
    context, base = Vertex(Local(ignore=("hidden",))), Vertex(Scratch())
    copied = Vertex(File((Copy(1, ("d", "hidden"), "/", exclude=("*.h",)), Copy(1, ("nothing",), "/"))), (base, context))
    run = Vertex(Exec(("x",), mounts=(Bind("/m", 1, "/m"),)), (copied, context))

    def excludes(patterns):
        return Ignore(patterns).ignores

    assert needed_files(copied, "context", listed, excludes) == set()  # a source that is not there ends the step before it takes anything
    fine = Vertex(File((Copy(1, ("d",), "/", exclude=("*.h",)),)), (base, context))
    assert needed_files(fine, "context", listed, excludes) == {"d/x.c"}
    assert needed_files(run, "context", listed, excludes) == {"m"}
    assert needed_files(run, "other", listed, excludes) == set()
    assert mounted_copy(Bind("/m", 1)).sources == (".",)


# --- the walk
names = st.sampled_from(["a", "b", "c.log", "d"])
paths = st.lists(st.tuples(names, names), max_size=8)
patterns = st.lists(st.sampled_from(["a", "*/b", "!a/b", "**/*.log", "d", "!d/a", "*"]), max_size=3)


@given(paths, patterns)
def test_the_listing_is_what_is_not_ignored(tmp_path_factory, paths, patterns):
    folder = tmp_path_factory.mktemp("walk")
    for parent, name in paths:
        (folder / f"folder-{parent}").mkdir(exist_ok=True)
        (folder / f"folder-{parent}" / name).write_text("x")
        (folder / name).write_text("x")
    ignore = Ignore(patterns)
    found = [row[0] for row in listing(str(folder), ignore, ())]
    every = sorted(os.path.relpath(os.path.join(at, name), folder) for at, below, files in os.walk(folder) for name in [*below, *files])
    wanted = {path for path in every if not ignore.ignores(path)}
    assert found == sorted(wanted | {os.path.dirname(path) for path in wanted} - {""})
    check([Listed(*row) for row in listing(str(folder), ignore, ())], {})


def test_the_dockerfile_is_listed_even_if_it_is_ignored(tmp_path):
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "file").write_text("FROM scratch")
    (tmp_path / "docker" / "other").write_text("")
    assert [row[0] for row in listing(str(tmp_path), Ignore(("docker",)), ("docker/file",))] == ["docker", "docker/file"]


# --- contents
def test_contents_are_taken_in_order_and_once(tmp_path):
    spool = io.BytesIO(b"old")
    spool.seek(3)
    taker = _Taker(io.BytesIO(b"onetwoone"), spool, Region(3, 0, ""))
    found = list(taker.take([3, 3, 3]))
    assert [content.place for content in found] == [3, 6, 3]
    assert spool.getvalue() == b"oldonetwo"
    assert found[0] == Content(found[2].digest, 3, 3)


@pytest.mark.parametrize("data, reason", [(b"on", "is cut off"), (b"onetwo", "more was sent")])
def test_contents_of_another_length_are_refused(data, reason):
    with pytest.raises(ArchiveRefused, match=reason):
        list(_Taker(io.BytesIO(data), io.BytesIO(), Region(0, 0, "")).take([3]))


def test_where_there_is_room():
    assert size_of_region([1, 2, 1 << 18, 1 << 20]) == (3, 2)
    folder = KeptFolder("/x", Head(offset=10, number=2))
    assert folder.reserve(5, 1) == (10, 2)
    assert folder.reserve(1, 0) == (15, 3)


def test_a_folder_is_tidied_and_read_again(tmp_path):
    folder = kept_folder.load(str(tmp_path / "kept"))
    contents = tmp_path / "kept" / "1"
    (contents / "spool").write_bytes(b"waste" + b"small")
    (contents / "0").write_bytes(b"large waste")
    (contents / "1").write_bytes(b"large")
    body = Body([file("a", 5), file("b", 5)], {}, [A, B], set(), {A: (5, 5), B: (-2, 5), "c" * 64: (0, 5), "d" * 64: (-1, 11)})
    folder.offset, folder.number = 10, 2
    assert not kept_folder.is_wasteful(folder, body)
    folder.offset = 100 << 20
    assert kept_folder.is_wasteful(folder, body)
    head, body = kept_folder.tidied(folder, Head(version="v", boot=kept_folder.boot()), body)
    os.close(kept_folder.write(folder, head, body))
    assert (head.generation, head.offset, head.number) == (2, 5, 1)
    again = kept_folder.load(str(tmp_path / "kept"))
    assert (again.head, again.is_settled, sorted(os.listdir(tmp_path / "kept"))) == (head, False, ["2", "index"])
    assert kept_folder.read_contents(again.path) == {A: (0, 5), B: (-1, 5), EMPTY: (0, 0)}
    assert (tmp_path / "kept" / "2" / "spool").read_bytes() == b"small"
    assert (tmp_path / "kept" / "2" / "0").read_bytes() == b"large"


# --- keys that are known
def test_a_step_is_known_by_what_names_its_inputs():
    op = File((Copy(1, ("a",), "/"),))
    base = Result(("sha256:1",))
    kept = Result(folder=Folder(None, None, "v1"))
    assert quick_key(op, [base, kept], 0) == quick_key(op, [base, kept], 0)
    others = [
        quick_key(File((Copy(1, ("b",), "/"),)), [base, kept], 0), quick_key(op, [Result(("sha256:2",)), kept], 0),
        quick_key(op, [base, Result(folder=Folder(None, None, "v2"))], 0), quick_key(op, [base, kept], 1),
    ]  # fmt: skip
    assert len({quick_key(op, [base, kept], 0), *others}) == 5
    assert quick_key(op, [base, Result(folder=Folder(None, None))], 0) == ""
    keys = KnownKeys()
    for number in range(5000):
        keys.put(str(number), "key")
    assert (keys.get("0"), keys.get("4999")) == ("", "key")
