"""What is in a container's root and what becomes of it: changes, commit, export, import, as Docker 28.5.2 did with the same commands."""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import http.server
import io
import json
import lzma
import os
import tarfile
import threading

import pytest
import zstandard

from corten.api.client import ApiError

CHANGE_IT = (
    "mkdir -p /a/b; echo x >/a/b/c; rm /etc/passwd; chmod 700 /home; touch /etc/new; rm -rf /var; mkdir /var; echo 1 >/var/y;"
    "rm -rf /usr/sbin; ln -s bin /usr/sbin; chown 1:1 /bin/busybox; mv /root /root2; echo 1.2.3.4 x >>/etc/hosts; ln /a/b/c /a/hard"
)
# Recorded: what Docker's `GET /containers/{id}/changes` answers after CHANGE_IT in busybox.
DOCKERS_CHANGES = {
    "/bin": 0, "/bin/busybox": 0, "/home": 0, "/root2": 1, "/var": 0, "/var/y": 1, "/var/www": 2, "/a": 1, "/a/b": 1, "/a/b/c": 1,
    "/a/hard": 1, "/etc": 0, "/etc/new": 1, "/etc/passwd": 2, "/usr": 0, "/usr/sbin": 0, "/root": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    engine.remove_all()


def changes(engine, container):
    return {change["Path"]: change["Kind"] for change in engine.client.get(f"/containers/{container}/changes") or []}


def test_changes_are_dockers(engine):
    container = engine.run("sh", "-c", f"{CHANGE_IT}; echo done; sleep 600")
    follow = engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1, "follow": 1})
    with follow:
        follow.read(9)
    assert changes(engine, container) == DOCKERS_CHANGES
    engine.client.post(f"/containers/{container}/kill")
    engine.client.post(f"/containers/{container}/wait")
    assert changes(engine, container) == DOCKERS_CHANGES


def test_what_the_engine_mounts_over_is_nobodys_change(engine):
    fresh = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"]})["Id"]
    assert engine.client.get(f"/containers/{fresh}/changes") is None
    code, shown = engine.output("sh", "-c", "ls -a / | grep dockerenv; readlink /etc/mtab; stat -c %a /.dockerenv")
    assert (code, shown) == (0, ".dockerenv\n/proc/mounts\n755\n")
    started = engine.run("true")
    engine.client.post(f"/containers/{started}/wait")
    assert engine.client.get(f"/containers/{started}/changes") is None


def test_a_process_that_swaps_folders_for_links_leads_nowhere(engine):
    swap = "mkdir -p /d/e /x; i=0; while [ $i -lt 2000 ]; do mv /d /x/d; ln -s / /d; rm /d; mv /x/d /d; i=$((i+1)); done"
    container = engine.run("sh", "-c", swap)
    while engine.client.get(f"/containers/{container}/json")["State"]["Running"]:
        assert all(path.split("/")[1] in ("d", "x") for path in changes(engine, container))


# --- commit
@pytest.fixture
def docker(engine, docker_cli):
    def run(*arguments: str, **options: object) -> str:
        return engine.docker(docker_cli, *arguments, **options).stdout.strip()

    return run


@pytest.fixture
def made(engine):
    """Names of images that the test makes; they are removed."""
    names: list[str] = []
    yield names
    engine.remove_all()
    for name in names:
        engine.client.delete(f"/images/{name}", force=1)


def test_docker_commit(engine, docker, made):
    container = engine.run("sh", "-c", f"{CHANGE_IT}; setfattr -n user.x -v y /a 2>/dev/null; echo done; exec sleep 600", name="source")
    with engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1, "follow": 1}) as follow:
        follow.read(9)
    made += ["child:1"]
    image = docker("commit", "-m", "a message", "-a", "an author", "-c", "ENV A=b", "-c", 'CMD ["cat", "/a/b/c"]', "source", "child:1")
    assert engine.client.get(f"/containers/{container}/json")["State"]["Status"] == "running"
    shown = engine.client.get("/images/child:1/json")
    parent = engine.client.get("/images/busybox/json")
    assert shown["Id"] == image
    assert (shown["Parent"], shown["Comment"], shown["Author"], shown["Os"]) == (parent["Id"], "a message", "an author", "linux")
    assert shown["Config"]["Env"] == [*parent["Config"]["Env"], "A=b"]
    assert shown["RootFS"]["Layers"][:-1] == parent["RootFS"]["Layers"]
    history = engine.client.get("/images/child:1/history")
    assert [(row["Id"], row["Comment"]) for row in history][:2] == [(image, "a message"), (parent["Id"], history[1]["Comment"])]
    assert history[0]["CreatedBy"].startswith("sh -c mkdir -p /a/b")
    assert docker("run", "--rm", "child:1") == "x"
    listing = "stat -c %a /home; stat -c %u:%g /bin/busybox; readlink /usr/sbin; ls -d /root /root2 /var/www /etc/passwd 2>/dev/null; cat /var/y; stat -c %h /a/hard"
    assert docker("run", "--rm", "child:1", "sh", "-c", listing).split() == ["700", "1:1", "bin", "/root2", "1", "2"]
    assert docker("run", "--rm", "child:1", "cat", "/etc/hosts").count("1.2.3.4") == 0


def test_a_commit_of_nothing_has_no_layer(engine, docker, made):
    docker("create", "--name", "still", "busybox", "true")
    made += ["same"]
    docker("commit", "still", "same")
    assert engine.client.get("/images/same/json")["RootFS"] == engine.client.get("/images/busybox/json")["RootFS"]
    assert engine.client.get("/images/same/history")[0]["Size"] == 0


def test_commits_events_and_its_pause(engine, made):
    container = engine.run("sleep", "600", name="paused")
    since = engine.client.get("/containers/paused/json")["State"]["StartedAt"]
    made += ["events:2"]
    image = engine.client.post("/commit", {"Labels": {"l": "1"}}, container="paused", repo="events", tag="2", comment="c")["Id"]
    assert engine.client.get("/images/events:2/json")["Config"]["Labels"] == {"l": "1"}
    with engine.client.open("GET", "/events", query={"since": since, "until": "0s"}) as response:
        seen = [json.loads(line) for line in response]
    found = {event["Action"]: event["Actor"] for event in seen if event["Actor"]["ID"] in (container, image)}
    assert {"pause", "unpause", "commit", "create", "tag"} <= set(found)
    assert found["commit"]["Attributes"] | {"comment": "c", "imageID": image, "imageRef": "events:2"} == found["commit"]["Attributes"]


def test_parents_stay_while_they_have_children(engine, docker, made):
    docker("create", "--name", "one", "busybox", "true")
    docker("cp", __file__, "one:/x")
    docker("commit", "one", "first")
    docker("create", "--name", "two", "first", "true")
    docker("cp", __file__, "two:/y")
    docker("commit", "two", "second")
    first, second = (engine.client.get(f"/images/{name}/json")["Id"] for name in ("first", "second"))
    engine.remove_all()
    with pytest.raises(ApiError) as refused:
        engine.client.delete(f"/images/{first}", force=1)
    assert (refused.value.http_status, "has dependent child images" in refused.value.message) == (409, True)
    assert engine.client.delete("/images/first") == [{"Untagged": "first:latest"}]
    gone = [row.get("Deleted") for row in engine.client.delete("/images/second")]
    assert second in gone and first in gone
    assert {tag for image in engine.client.get("/images/json") for tag in image["RepoTags"]} == {"busybox:latest"}


def test_a_committed_layer_is_kept_once_and_comes_out_as_it_was(engine, docker, made, tmp_path):
    """As a folder: its tar is made when it is asked for, by a check or a save."""
    container = engine.run("sh", "-c", f"{CHANGE_IT}; echo done; exec sleep 600")
    with engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1, "follow": 1}) as follow:
        follow.read(9)
    before = set(os.listdir(f"{engine.data_root}/blobs/sha256"))
    made += ["kept:1"]
    docker("commit", container, "kept:1")
    diff_id = engine.client.get("/images/kept:1/json")["RootFS"]["Layers"][-1]
    written = set(os.listdir(f"{engine.data_root}/blobs/sha256")) - before
    assert len(written) == 2, "more than config and manifest"
    assert engine.client.post("/corten/disk/check")["Problems"] == []
    docker("save", "-o", str(tmp_path / "kept.tar"), "kept:1")
    with tarfile.open(tmp_path / "kept.tar") as archive:
        content = archive.extractfile(f"blobs/sha256/{diff_id.removeprefix('sha256:')}").read()
    assert hashlib.sha256(content).hexdigest() == diff_id.removeprefix("sha256:")
    with tarfile.open(fileobj=io.BytesIO(content)) as layer:
        names = layer.getnames()
    assert {".wh.root", "etc/.wh.passwd", "var/.wh..wh..opq", "a/hard"} <= set(names)


def test_the_same_tree_is_the_same_layer(engine, docker, made):
    for name in ("one", "two"):
        docker("create", "--name", name, "busybox", "true")
        engine.client.open("PUT", f"/containers/{name}/archive", query={"path": "/"}, body=_tar({"same": b"same"})).close()
        made += [f"layer-{name}"]
        docker("commit", name, f"layer-{name}")
    first, second = (engine.client.get(f"/images/layer-{name}/json")["RootFS"]["Layers"][-1] for name in ("one", "two"))
    assert first == second


# --- import
def _tar(files: dict[str, bytes]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    return output.getvalue()


COMPRESSIONS = {"plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_import_takes_every_compression(engine, made, compression):
    data = COMPRESSIONS[compression](_tar({"file": b"content"}))
    made += [f"imported:{compression}"]
    query = {"fromSrc": "-", "repo": "imported", "tag": compression, "message": "m", "changes": 'CMD ["/file"]', "platform": "linux/arm64"}
    with engine.client.open("POST", "/images/create", query=query, body=data) as response:
        status = json.loads(response.read())["status"]
    shown = engine.client.get(f"/images/imported:{compression}/json")
    assert (shown["Id"], shown["Comment"], shown["Architecture"], shown["Config"]["Cmd"]) == (status, "m", "arm64", ["/file"])
    assert shown["RootFS"]["Layers"] == ["sha256:" + hashlib.sha256(_tar({"file": b"content"})).hexdigest()]


@pytest.mark.parametrize("data", [b"this is no tar", gzip.compress(_tar({"f": b"x" * 9000}))[:-40], bz2.compress(_tar({"f": b"x"}))[:50], b"\xfd7zXZ\0" + b"x" * 600, b""])
def test_what_is_no_tar_leaves_nothing(engine, data):
    with pytest.raises(ApiError) as refused:
        engine.client.open("POST", "/images/create", query={"fromSrc": "-"}, body=data).close()
    assert refused.value.http_status == 400
    assert len(engine.client.get("/images/json")) == 1


def test_import_from_an_address(engine, docker, made, tmp_path):
    (tmp_path / "x.tar").write_bytes(_tar({"f": b"y" * 100_000}))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/x.tar"
        made += ["from-url"]
        shown = docker("import", url, "from-url")
        assert f"Downloading from {url}" in shown
        assert engine.client.get("/images/from-url/json")["Id"] in shown
        with pytest.raises(ApiError) as refused:
            engine.client.post("/images/create", fromSrc=f"{url}.no")
        assert (refused.value.http_status, refused.value.message.startswith(f"failed to GET {url}.no with status 404")) == (404, True)
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
