"""`docker save`: read by the real tools, the same bytes again after a load, and by whatever name it was asked for."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile

import pytest

from corten.api.client import ApiError
from tests.engines import RunningEngine
from tests.system.conftest import need


def saved(engine, *names: str) -> bytes:
    with engine.client.open("GET", "/images/get", query=[("names", name) for name in names]) as response:
        return response.read()


def load(engine, data: bytes) -> list[str]:
    return [message["stream"].strip() for message in engine.client.messages("/images/load", body=io.BytesIO(data))]


@pytest.fixture
def pulled(engine, docker_cli, registry):
    """An image whose layers are gzipped in the store; its name."""
    name = f"{registry}/busybox"
    engine.docker(docker_cli, "pull", "-q", name)
    yield name
    engine.client.delete(f"/images/{name}", force=1)


@pytest.fixture
def other(assets):
    """A second engine without images."""
    running = RunningEngine("o")
    yield running
    for image in running.client.get("/images/json"):
        running.client.delete(f"/images/{image['Id']}", force=1)
    running.stop()


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive if member.isreg()}


def test_an_archive_is_both_dockers_and_ocis(engine, docker_cli, pulled, tmp_path):
    engine.docker(docker_cli, "save", "-o", str(tmp_path / "x.tar"), pulled)
    data = (tmp_path / "x.tar").read_bytes()
    files = members(data)
    image = engine.client.get(f"/images/{pulled}/json")
    (item,) = json.loads(files["manifest.json"])
    assert item["RepoTags"] == [f"{pulled}:latest"]
    assert item["Config"] == "blobs/sha256/" + image["Id"].removeprefix("sha256:")
    assert ["sha256:" + layer.rpartition("/")[2] for layer in item["Layers"]] == image["RootFS"]["Layers"]
    for name, content in files.items():
        if name.startswith("blobs/"):
            assert hashlib.sha256(content).hexdigest() == name.rpartition("/")[2]
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"] == {"io.containerd.image.name": f"{pulled}:latest", "org.opencontainers.image.ref.name": "latest"}
    manifest = json.loads(files["blobs/sha256/" + entry["digest"].removeprefix("sha256:")])
    assert manifest["config"]["digest"] == image["Id"]
    assert json.loads(files["repositories"]) == {pulled: {"latest": item["Layers"][-1].rpartition("/")[2]}}
    for form in ("docker-archive", "oci-archive"):
        shown = json.loads(subprocess.run([need("skopeo"), "inspect", f"{form}:{tmp_path}/x.tar"], check=True, capture_output=True).stdout)
        assert shown["Layers"] == image["RootFS"]["Layers"]


def test_saved_again_it_is_the_same(engine, other, pulled, docker_cli):
    container = engine.run("sh", "-c", "echo 1 >/file; ln /file /hard; truncate -s 3000000 /sparse")
    engine.client.post(f"/containers/{container}/wait")
    engine.client.post("/commit", container=container, repo="committed", tag="7")
    engine.remove_all()
    try:
        first = saved(engine, pulled, "committed")
        assert saved(engine, pulled, "committed") == first
        assert load(other, first) == [f"Loaded image: {pulled}:latest", "Loaded image: committed:7"]
        assert saved(other, pulled, "committed") == first
        assert other.output("stat", "-c", "%s %h", "/sparse", "/file", image="committed:7") == (0, "3000000 1\n2 2\n")
    finally:
        engine.client.delete("/images/committed:7")


def test_names(engine, pulled):
    engine.client.post("/images/busybox/tag", repo="names", tag="1")
    engine.client.post("/images/busybox/tag", repo="names", tag="2")
    try:
        short = engine.client.get("/images/busybox/json")["Id"].removeprefix("sha256:")[:12]

        def tags(*names: str) -> list:
            return [item["RepoTags"] for item in json.loads(members(saved(engine, *names))["manifest.json"]) or []]

        assert tags("names") == [["names:1", "names:2"]]
        assert tags("names:2", "busybox") == [["names:2", "busybox:latest"]]
        assert tags(short) == [None]
        assert json.loads(members(saved(engine))["index.json"])["manifests"] is None
        for name, status, text in (("zz", 404, "No such image: zz"), ("busybox:zz", 404, "reference does not exist"), ("BAD", 400, "must be lowercase")):
            with pytest.raises(ApiError) as refused:
                saved(engine, name)
            assert refused.value.http_status == status
            assert text in refused.value.message
        with pytest.raises(ApiError) as refused:
            engine.client.open("GET", "/images/busybox/get", query={"platform": '{"os":"linux","architecture":"s390x"}'})
        assert refused.value.message == "no suitable export target found for platform linux/s390x"
    finally:
        engine.client.delete("/images/names:1")
        engine.client.delete("/images/names:2")


def test_the_hello_image_comes_back(engine, other):
    name = engine.client.post("/corten/hello")["Name"]
    try:
        load(other, saved(engine, name))
        assert "Hello from Corten" in other.output("/hello", image="hello")[1]
    finally:
        engine.client.delete(f"/images/{name}")


def test_a_load_shows_its_layers_unless_it_is_quiet(engine, other):
    data = saved(engine, "busybox")
    (diff_id,) = engine.client.get("/images/busybox/json")["RootFS"]["Layers"]

    def shown(**query: object) -> list[dict]:
        return list(other.client.messages("/images/load", body=io.BytesIO(data), **query))

    loading = [message for message in shown(quiet=0) if "id" in message]
    assert {(message["status"], message["id"]) for message in loading} == {("Loading layer", diff_id.removeprefix("sha256:")[:12])}
    assert loading[-1]["progressDetail"]["current"] == loading[-1]["progressDetail"]["total"] > 0
    assert [set(message) for message in shown(quiet=0)] == [{"stream"}]  # it is there
    other.client.delete("/images/busybox")
    assert [set(message) for message in shown()] == [{"stream"}]


def test_when_it_was_tagged_here(other, assets):
    other.load(f"{assets}/images/busybox.tar")
    assert other.client.get("/images/busybox/json")["Metadata"]["LastTagTime"].startswith("0001")
    other.client.post("/images/busybox/tag", repo="again", tag="1")
    assert other.client.get("/images/busybox/json")["Metadata"]["LastTagTime"].startswith("2")
