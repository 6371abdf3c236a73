"""Folders that are build contexts: what a client sends, what it does not have to, and that the image is the one that a tar gives.

What is sent is what the engine asks for, so the tests write down its questions; the images are held to those that the real docker CLI's tar makes.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import threading
import time

import msgspec
import pytest

from corten.api.client import ApiError
from corten.cli import build_folder
from corten.cli.build_folder import FolderChanged, SentFolders
from corten.spec.context_listing import MESSAGE
from tests.builds import Built, forget_builds, tree
from tests.engines import RunningEngine, eventually

LARGE = 300_000  # bytes: more than goes into the spool
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service+ep, as setcap writes it
SETTLED = 0.15  # seconds after which a file's status says that it has not been changed


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    forget_builds(engine)


class Recorded(SentFolders):
    """Writes down what is asked for, as (what, path)."""

    def __init__(self, client):
        super().__init__(client)
        self.asked: list[tuple[str, str]] = []

    def answer(self, wanted):
        rows = self._open[wanted["Id"]][1]
        self.asked += [(what, rows[number][0]) for what in ("Digests", "Contents") for number in wanted.get(what, ())]
        super().answer(wanted)


def sent(engine, folder, *, dockerfile="Dockerfile", sender=Recorded, beside=None, named=None, **query) -> tuple[Built, list[tuple[str, str]]]:
    """The build, and what was asked for."""
    sending = sender(engine.client)
    messages = []
    headers = {}
    if named:
        from corten.spec.build_extras import HEADER, BuildExtras, encode_extras

        headers[HEADER] = encode_extras(BuildExtras(contexts={name: "folder:" + sending.open(str(path), "Dockerfile", always=False) for name, path in named.items()}))
    where = {"context": sending.open(str(folder), dockerfile, beside), "dockerfile": dockerfile}
    with engine.client.open("POST", "/build", query={**where, **query}, headers=headers) as response:
        for line in response:
            message = msgspec.json.decode(line)
            messages.append(message)
            if MESSAGE in message.get("aux", {}):
                sending.answer(message["aux"][MESSAGE])
    return Built([message for message in messages if MESSAGE not in message.get("aux", {})]), sending.asked


def rows(engine):
    return [row for row in engine.client.get("/system/df")["BuildCache"] if row["Type"] == "source.local"]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "context"
    (path / "d" / "empty folder").mkdir(parents=True)
    files = {"Dockerfile": "FROM busybox\nCOPY . /all/\n", "a": "a", "d/b": "b" * 1000, "d/same": "b" * 1000, "empty": "", ".dot": "dot", "große": "utf-8",
             "large": "l" * LARGE, "x.log": "ignored", ".dockerignore": "*.log\n"}  # fmt: skip
    for name, text in files.items():
        (path / name).write_text(text)
    (path / "d" / "b").chmod(0o4755)
    (path / "d").chmod(0o711)
    (path / "link").symlink_to("d/b")
    (path / "dangling").symlink_to("/nowhere")
    os.link(path / "a", path / "hard")
    os.mkfifo(path / "fifo")
    with open(f"{path}/caf\udce9", "w", encoding="utf-8") as latin:  # a name that is no UTF-8
        latin.write("latin")
    (path / "to latin").symlink_to("caf\udce9")
    (path / "program").write_text("can")
    (path / "program").chmod(0o755)
    os.setxattr(path / "program", "security.capability", CAPABILITY)
    time.sleep(SETTLED)
    return path


def test_the_image_is_the_one_that_a_tar_gives(engine, folder, docker_cli):
    built, asked = sent(engine, folder)
    assert {path for what, path in asked if what == "Contents"} == {
        "Dockerfile", ".dockerignore", "a", "hard", "d/b", "d/same", ".dot", "große", "large", "program", "caf\0e9"}  # fmt: skip
    made = tree(engine, built.image)
    assert made["all/d/b"] == ("0", 0o4755, 0, 0, b"b" * 1000)
    assert made["all/d"][1] == 0o711
    assert made["all/dangling"][4] == b"/nowhere"
    assert made["all/fifo"][0] == "6"
    assert "all/x.log" not in made
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "sock"))  # which docker build leaves out, too
        environment = engine.environment | {"DOCKER_BUILDKIT": "0"}
        again = subprocess.run([docker_cli, "build", "-q", "--no-cache", str(folder)], env=environment, capture_output=True, text=True, check=True)
    assert again.stdout.strip() == built.image
    assert sent(engine, folder)[0].cached == 1


def test_nothing_is_sent_of_what_has_not_changed(engine, folder):
    first = sent(engine, folder)[0]
    again, asked = sent(engine, folder)
    assert asked == []
    assert again.cached == 1
    assert again.image == first.image
    without, asked = sent(engine, folder, nocache=1)
    assert asked == []
    assert (without.cached, without.image) == (0, first.image)


def test_only_what_has_changed_is_sent(engine, folder):
    first = sent(engine, folder)[0]
    (folder / "a").write_text("changed")
    (folder / "d" / "b").chmod(0o700)
    (folder / "large").rename(folder / "renamed")
    (folder / "touched").write_text("b" * 1000)
    time.sleep(SETTLED)
    again, asked = sent(engine, folder)
    assert sorted(asked) == [("Contents", "a"), ("Contents", "hard"), ("Digests", "d/b"), ("Digests", "renamed"), ("Digests", "touched")]
    made = tree(engine, again.image)
    assert made["all/a"][4] == made["all/hard"][4] == b"changed"
    assert made["all/d/b"][1] == 0o700
    assert made["all/renamed"][4] == b"l" * LARGE
    assert "all/large" not in made
    assert again.image != first.image


def test_what_another_folder_has_is_not_sent(engine, folder, tmp_path):
    first = sent(engine, folder)[0]
    subprocess.run(["cp", "-a", str(folder), str(tmp_path / "other")], check=True)
    time.sleep(SETTLED)
    again, asked = sent(engine, tmp_path / "other")
    assert {what for what, path in asked if path not in ("Dockerfile", ".dockerignore")} == {"Digests"}
    assert again.image == first.image
    forced, asked = sent(engine, tmp_path / "other", nocache=1)
    assert (asked, forced.image) == ([], first.image)


def test_only_what_the_dockerfile_takes_is_sent(engine, folder):
    text = "FROM busybox AS unused\nCOPY large /\nFROM busybox\nCOPY link /l\nCOPY d/sa* /s/\nRUN --mount=target=/m,source=.dot cat /m >/dot\n"
    (folder / "Dockerfile").write_text(text)
    time.sleep(SETTLED)
    built, asked = sent(engine, folder)
    assert {path for what, path in asked} == {"Dockerfile", ".dockerignore", "d/b", "d/same", ".dot"}
    made = tree(engine, built.image)
    assert (made["l"][4], made["s/same"][4], made["dot"][4]) == (b"b" * 1000, b"b" * 1000, b"dot")
    built, asked = sent(engine, folder, target="unused")
    assert asked == [("Contents", "large")]
    assert tree(engine, built.image)["large"][4] == b"l" * LARGE


def test_what_a_base_wants_on_build_is_sent(engine, folder):
    base = sent(engine, folder, beside={"base": b"FROM busybox\nONBUILD COPY d/b /from-trigger\n"}, dockerfile="base", t="triggers:1")
    assert not base[0].error
    built, asked = sent(engine, folder, beside={"other": b"FROM triggers:1\n"}, dockerfile="other")
    assert [path for _, path in asked] == ["d/b"]
    assert tree(engine, built.image)["from-trigger"][4] == b"b" * 1000


def test_a_file_with_a_dot_is_mounted_from_a_context(engine, folder):
    built, _ = sent(engine, folder, dockerfile="D", beside={"D": b"FROM busybox\nRUN --mount=target=/m,source=.dot cat /m >/dot\n"})
    assert tree(engine, built.image)["dot"][4] == b"dot"


def test_a_missing_file_is_told_as_always(engine, folder):
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY nothing /\n")
    assert "nothing" in sent(engine, folder)[0].error
    (folder / "Dockerfile").unlink()
    with pytest.raises(ApiError, match="Cannot locate specified Dockerfile: Dockerfile"):
        sent(engine, folder)


def test_an_edit_that_keeps_size_and_time_is_seen(engine, folder):
    sent(engine, folder)
    before = (folder / "d" / "b").stat()
    (folder / "d" / "b").write_text("c" * 1000)
    os.utime(folder / "d" / "b", ns=(before.st_atime_ns, before.st_mtime_ns))
    time.sleep(SETTLED)
    assert tree(engine, sent(engine, folder)[0].image)["all/d/b"][4] == b"c" * 1000


def test_a_file_that_was_just_written_is_looked_at_again(engine, folder, monkeypatch):
    """Its status would not show another change in the same tick."""
    status = (folder / "a").stat()
    with monkeypatch.context() as patched:
        patched.setattr(build_folder.time, "time_ns", lambda: status.st_ctime_ns + 1)
        sent(engine, folder)
    asked = sent(engine, folder)[1]
    assert ("Digests", "a") in asked
    assert not any(what == "Contents" for what, path in asked if path not in ("Dockerfile", ".dockerignore"))
    assert sent(engine, folder)[1] == []


def test_a_file_that_changes_while_it_is_read_is_an_error(engine, folder):
    class Changing(Recorded):
        def answer(self, wanted):
            if wanted.get("Contents") and any(self._open[wanted["Id"]][1][number][0] == "large" for number in wanted["Contents"]):
                (folder / "large").write_text("m" * LARGE)
            super().answer(wanted)

    with pytest.raises(FolderChanged, match="the file large of the build context changed while it was read"):
        sent(engine, folder, sender=Changing)
    time.sleep(SETTLED)
    assert tree(engine, sent(engine, folder)[0].image)["all/large"][4] == b"m" * LARGE


def test_the_cli_reads_a_changed_file_again(engine, folder, monkeypatch, capfd):
    from corten.cli.main import corten

    changed = []
    original = build_folder._Contents

    def changing(path, asked):
        if any(row[0] == "large" for row in asked) and not changed:
            changed.append(True)
            (folder / "large").write_text("n" * LARGE)
            time.sleep(SETTLED)
        return original(path, asked)

    monkeypatch.setattr(build_folder, "_Contents", changing)
    corten(["-H", f"unix://{engine.socket}", "build", "-q", "-t", "again:1", str(folder)], standalone_mode=False)
    assert "changed while it was read: build again when nobody writes to it; reading it again" in capfd.readouterr().err
    assert tree(engine, "again:1")["all/large"][4] == b"n" * LARGE


class Lying(Recorded):
    """Tells a digest and sends something else; `cut`: or less than it should."""

    cut = False

    def answer(self, wanted):
        rows = self._open[wanted["Id"]][1]
        numbers = wanted.get("Contents", ())
        if not any(rows[number][0] == "large" for number in numbers):
            super().answer(wanted)
            return
        size = sum(rows[number][2] for number in numbers)
        body = b"?" * (size // 2 if self.cut else size)
        with self._client.open("POST", f"/corten/build/contexts/{wanted['Id']}/contents", body=body):
            pass


def test_content_that_is_not_what_was_told_is_refused(engine, folder):
    sent(engine, folder)
    (folder / "large").write_text("other" * (LARGE // 5))  # its digest is asked for, as something of its size is here
    time.sleep(SETTLED)
    with pytest.raises(ApiError, match="the file large of the build context changed while it was read"):
        sent(engine, folder, sender=Lying)
    assert tree(engine, sent(engine, folder)[0].image)["all/large"][4] == b"other" * (LARGE // 5)


def test_content_that_is_cut_off_is_refused(engine, folder):
    class Cutting(Lying):
        cut = True

    with pytest.raises(ApiError, match="what was sent of the build context is cut off"):
        sent(engine, folder, sender=Cutting)
    assert tree(engine, sent(engine, folder)[0].image)["all/large"][4] == b"l" * LARGE


class _Vanished(Exception):
    """The client is no more."""


def test_a_client_that_vanishes_leaves_nothing_in_use(engine, folder):
    class Vanishing(Recorded):
        def answer(self, wanted):
            rows = self._open[wanted["Id"]][1]
            size = sum(rows[number][2] for number in wanted.get("Contents", ()))
            if size < LARGE:
                super().answer(wanted)
                return
            with socket.socket(socket.AF_UNIX) as half:
                half.connect(engine.socket)
                half.sendall(f"POST /corten/build/contexts/{wanted['Id']}/contents HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
                half.sendall(b"?" * (size // 2))
            raise _Vanished

    (folder / "Dockerfile").write_text("FROM busybox\nCOPY d /d\n")
    first = sent(engine, folder)[0]
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY . /all/\n")
    time.sleep(SETTLED)
    with pytest.raises(_Vanished):
        sent(engine, folder, sender=Vanishing)
    eventually(lambda: not rows(engine)[0]["InUse"])
    assert tree(engine, sent(engine, folder)[0].image)["all/large"][4] == b"l" * LARGE
    assert tree(engine, first.image)["d/b"][4] == b"b" * 1000


@pytest.mark.parametrize("entries, reason", [
    ([["../x", 0o100644]], "is no path below a folder before it"), ([["a/b", 0o100644]], "is no path below a folder before it"),
    ([["a", 0o100644], ["a/b", 0o100644]], "is no path below a folder before it"), ([["b", 0o100644], ["a", 0o100644]], "is no path below"),
    ([["a", 0o100644, -1]], "is no path below"), ([["/a", 0o100644]], "is no path below"), ([["a", 0o140644]], "is of no kind of file"),
    ([["a"]], "the listing of the build context"), ("no list", "the listing of the build context"),
])  # fmt: skip
def test_listings_that_cannot_be_are_refused(engine, entries, reason):
    data = msgspec.json.encode({"Entries": entries, "Beside": {}})
    query = {"folder": "f", "listing": hashlib.sha256(data).hexdigest()}
    with pytest.raises(ApiError, match=reason) as refused:
        engine.client.call("POST", "/corten/build/contexts", query=query, body=data)
    assert refused.value.http_status == 400
    assert rows(engine) == []


def test_requests_out_of_turn_are_refused(engine, folder):
    paths = "/corten/build/contexts"
    with pytest.raises(ApiError, match="needs `folder`"):
        engine.client.post(paths)
    with pytest.raises(ApiError, match="is not known: send it") as unknown:
        engine.client.post(paths, folder="f", listing="0" * 64)
    assert unknown.value.http_status == 404
    with pytest.raises(ApiError, match="has another SHA-256"):
        engine.client.call("POST", paths, query={"folder": "f", "listing": "0" * 64}, body=b"{}")
    with pytest.raises(ApiError, match="there is no build context nosuch"):
        engine.client.post(f"{paths}/nosuch/digests", {"Digests": []})
    with pytest.raises(ApiError, match="there is no build context nosuch"):
        engine.client.post("/build", context="nosuch")
    sending = Recorded(engine.client)
    context_id = sending.open(str(folder), "Dockerfile")
    with pytest.raises(ApiError, match=r"nothing of the build context .* is being waited for") as waited:
        engine.client.open("POST", f"{paths}/{context_id}/contents", body=b"x")
    assert waited.value.http_status == 409
    with pytest.raises(ApiError, match="Cannot locate"):
        engine.client.post("/build", context=context_id, dockerfile="nosuch")
    with pytest.raises(ApiError, match="it has been used"):
        engine.client.post("/build", context=context_id)


def test_a_dockerfile_that_was_not_sent_is_missed_once(engine, folder):
    """Who opens a context for one Dockerfile and builds with another is told, and nothing of it is remembered."""
    (folder / "other").write_text("FROM busybox\nCOPY a /a\n")
    time.sleep(SETTLED)
    context_id = Recorded(engine.client).open(str(folder), "Dockerfile")
    with pytest.raises(ApiError, match="Cannot locate specified Dockerfile: other"):
        engine.client.post("/build", context=context_id, dockerfile="other")
    assert tree(engine, sent(engine, folder, dockerfile="other")[0].image)["a"][4] == b"a"


def test_a_build_that_does_not_come_to_be_holds_nothing(engine, folder):
    sent(engine, folder)
    with pytest.raises(ApiError, match="invalid version"), Recorded(engine.client) as sending:
        context_id = sending.open(str(folder), "Dockerfile")
        assert rows(engine)[0]["InUse"]
        engine.client.post("/build", context=context_id, version="x")
    assert not rows(engine)[0]["InUse"]
    with pytest.raises(ApiError, match="there is no build context"):
        engine.client.delete(f"/corten/build/contexts/{context_id}")


def test_a_dockerfile_from_elsewhere_is_in_no_image(engine, folder):
    built, _ = sent(engine, folder, dockerfile=".dockerfile.corten", beside={".dockerfile.corten": b"FROM busybox\nCOPY . /all/\n"})
    made = tree(engine, built.image)
    assert "all/.dockerfile.corten" not in made
    assert "all/a" in made


def test_named_folders_are_kept_each(engine, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "o").write_text("other")
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY --from=more o /o\nCOPY a /a\n")
    time.sleep(SETTLED)
    built, asked = sent(engine, folder, named={"more": other})
    assert ("Contents", "o") in asked
    assert tree(engine, built.image)["o"][4] == b"other"
    again, asked = sent(engine, folder, named={"more": other})
    assert (asked, again.image, again.cached) == ([], built.image, 2)
    assert len(rows(engine)) == 2


def test_a_kept_file_is_linked_into_one_layer_only(engine, folder):
    """A layer has mode and owner of its own."""
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY --chmod=600 --chown=5:6 large /large\n")
    first = sent(engine, folder)[0]
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY --chmod=644 large /large\n")
    second, asked = sent(engine, folder)
    assert [path for _, path in asked] == ["Dockerfile"]
    assert tree(engine, first.image)["large"] == ("0", 0o600, 5, 6, b"l" * LARGE)
    assert tree(engine, second.image)["large"] == ("0", 0o644, 0, 0, b"l" * LARGE)
    (row,) = rows(engine)
    assert row["Size"] < LARGE  # the layer's


def test_what_is_kept_is_part_of_the_build_cache(engine, folder):
    image = sent(engine, folder)[0].image
    (row,) = rows(engine)
    assert (row["Description"], row["InUse"], row["Shared"], row["UsageCount"]) == ("local source for context", False, False, 1)
    sent(engine, folder)
    assert rows(engine)[0]["UsageCount"] == 2
    pruned = engine.client.post("/build/prune", filters='{"type":["source.local"]}')
    assert pruned["CachesDeleted"] == [row["ID"]]
    assert pruned["SpaceReclaimed"] == row["Size"]
    assert os.listdir(f"{engine.data_root}/contexts") == []
    assert tree(engine, image)["all/large"][4] == b"l" * LARGE
    assert ("Contents", "large") in sent(engine, folder)[1]


def test_builds_of_one_folder_at_the_same_time(engine, folder):
    found: dict[int, Built] = {}

    def build(number: int) -> None:
        text = f"FROM busybox\nCOPY . /all/\nLABEL number={number}\n".encode()
        found[number] = sent(engine, folder, dockerfile="D", beside={"D": text}, nocache=1)[0]

    threads = [threading.Thread(target=build, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trees = [tree(engine, found[number].image) for number in range(6)]
    assert all(made == trees[0] for made in trees)
    assert trees[0]["all/large"][4] == b"l" * LARGE
    built, asked = sent(engine, folder)
    assert asked == []
    assert tree(engine, built.image) == trees[0]


def test_waste_is_tidied(engine, folder):
    """More than what is not worth it: 16 MiB of files that are no longer there."""
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY a d/b big* /all/\n")
    for number in range(4):
        (folder / "big").write_bytes(os.urandom(8 << 20))
        (folder / "small").write_text(str(number))
        time.sleep(SETTLED)
        built = sent(engine, folder)[0]
        engine.client.delete(f"/images/{built.image}", force=1)
        engine.client.post("/build/prune", all=1, filters='{"type":["regular"]}')
    assert rows(engine)[0]["Size"] < (24 << 20)
    forced, asked = sent(engine, folder, nocache=1)
    assert asked == []
    made = tree(engine, forced.image)
    assert made["all/big"][4] == (folder / "big").read_bytes()
    assert made["all/b"][4] == b"b" * 1000


@pytest.fixture
def other_engine(assets):
    running = RunningEngine("k")
    try:
        running.load(f"{assets}/images/busybox.tar")
        yield running
    finally:
        running.stop()


def test_what_is_kept_survives_the_engine(other_engine, folder):
    engine = other_engine
    image = sent(engine, folder)[0].image
    eventually(lambda: rows(engine))
    engine.kill()
    engine.start()
    again, asked = sent(engine, folder, nocache=1)
    assert (asked, again.image) == ([], image)
    engine.terminate()
    (kept,) = os.listdir(f"{engine.data_root}/contexts")
    index = f"{engine.data_root}/contexts/{kept}/index"
    with open(index, "rb") as file:
        assert file.read(1) == b"s"  # an engine that ends has seen to it that all is on disk
    with open(index, "r+b") as file:
        file.write(b"w")
        data = file.read()
        boot = data.index(b"-") - 8
        file.seek(1 + boot)
        file.write(b"00000000")  # as if the machine had gone down before that
    engine.start()
    again, asked = sent(engine, folder, nocache=1)
    assert ("Contents", "large") in asked
    assert again.image == image
    engine.terminate()
    with open(index, "wb") as file:
        file.write(b"s\0\0\0\1no index")
    engine.start()
    again, asked = sent(engine, folder, nocache=1)
    assert ("Contents", "large") in asked
    assert again.image == image
