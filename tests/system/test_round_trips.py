"""Other tools write and Corten reads, Corten writes and they read: registries and archives, the same digests everywhere.

Docker Engine is one of them where CORTEN_DOCKER_SOCKET names one (it wants the host's firewall, so no test starts it).
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import subprocess
import tempfile

import pytest

from corten.api.client import Client
from corten.spec.digest import digest_of
from tests import image_spec
from tests.engines import RunningEngine, eventually
from tests.images import entry, layer
from tests.system.conftest import need
from tests.system.test_image_archives import load, members, saved
from tests.system.test_pull import pull
from tests.system.test_push import in_registry, push

POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


class Tool:
    """One of the peers, with a store of its own in `folder`. An image is told by its id, the digest of its config."""

    def __init__(self, folder: pathlib.Path, assets: str) -> None:
        self.folder, self.base = folder, f"docker-archive:{assets}/images/busybox.tar"
        (folder / "policy.json").write_text(POLICY)
        (folder / "new").write_text("made elsewhere\n")

    def run(self, program: str, *arguments: str) -> str:
        storage = [] if program == "skopeo" else ["--root", f"{self.folder}/s", "--runroot", f"{self.folder}/r", "--storage-driver", "vfs"]
        done = subprocess.run([need(program), *storage, *arguments], capture_output=True, text=True, check=False, cwd=self.folder, timeout=120)
        assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()


class Skopeo(Tool):
    """Has no store: it copies."""

    def _copy(self, *arguments: str) -> None:
        self.run("skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", *arguments)

    def push(self, name: str, kind: str) -> str:
        self._copy("--format", kind, self.base, f"docker://{name}")
        return self._id(f"docker://{name}")

    def write(self, path: str, form: str) -> None:
        self._copy(self.base, f"{form}:{path}:round:1")

    def pull(self, name: str) -> str:
        return self._id(f"docker://{name}")

    def read(self, path: str, form: str) -> str:
        self._copy(f"{form}:{path}", f"dir:{self.folder}/read")  # every layer's digest is checked on the way
        return self._id(f"{form}:{path}")

    def _id(self, place: str) -> str:
        tls = ["--tls-verify=false"] if place.startswith("docker://") else []
        manifest = json.loads(self.run("skopeo", "inspect", *tls, "--raw", place))
        return manifest["config"]["digest"]


class Buildah(Tool):
    def _make(self, kind: str) -> str:
        container = self.run("buildah", "from", "--signature-policy", "policy.json", "-q", self.base)
        self.run("buildah", "copy", "-q", container, "new", "/new")
        self.run("buildah", "config", "--label", "made=elsewhere", "--env", "A=b", container)
        return self.run("buildah", "commit", "-q", "--format", kind, container, "made")

    def push(self, name: str, kind: str) -> str:
        self._make({"oci": "oci", "v2s2": "docker"}[kind])
        self.run("buildah", "push", "-q", "--tls-verify=false", "made", f"docker://{name}")
        return self._id("made")

    def write(self, path: str, form: str) -> None:
        self._make("oci" if form == "oci-archive" else "docker")
        self.run("buildah", "push", "-q", "made", f"{form}:{path}:round:1")

    def pull(self, name: str) -> str:
        return self._id(self.run("buildah", "pull", "-q", "--signature-policy", "policy.json", "--tls-verify=false", name))

    def read(self, path: str, form: str) -> str:
        return self._id(self.run("buildah", "pull", "-q", "--signature-policy", "policy.json", f"{form}:{path}"))

    def _id(self, name: str) -> str:
        return "sha256:" + self.run("buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", name)


class Podman(Tool):
    def push(self, name: str, kind: str) -> str:
        self.run("podman", "load", "-q", "-i", self.base.partition(":")[2])
        self.run("podman", "push", "-q", "--tls-verify=false", "--format", kind, "busybox", name)
        address, _, rest = name.partition("/")
        return in_registry(address, *rest.rsplit(":", 1))[1]["config"]["digest"]

    def write(self, path: str, form: str) -> None:
        self.run("podman", "load", "-q", "-i", self.base.partition(":")[2])
        self.run("podman", "save", "-q", "--format", form, "-o", path, "busybox")

    def pull(self, name: str) -> str:
        return self._id(self.run("podman", "pull", "-q", "--tls-verify=false", name))

    def read(self, path: str, form: str) -> str:
        return self._id(self.run("podman", "pull", "-q", f"{form}:{path}"))

    def _id(self, name: str) -> str:
        return "sha256:" + self.run("podman", "image", "inspect", "--format", "{{.Id}}", name)


PEERS = {"skopeo": Skopeo, "buildah": Buildah, "podman": Podman}


@pytest.fixture(params=PEERS)
def peer(request, assets):
    need(request.param)
    with tempfile.TemporaryDirectory(prefix="ctp") as folder:  # podman wants short paths
        yield PEERS[request.param](pathlib.Path(folder), assets)


@pytest.fixture
def ours(assets):
    running = RunningEngine("r")
    try:
        running.load(f"{assets}/images/busybox.tar")
        yield running
    finally:
        for image in running.client.get("/images/json"):
            running.client.delete(f"/images/{image['Id']}", force=1)
        running.stop()


@pytest.fixture
def made(ours):
    """An image of a loaded layer, which is stored as a plain tar, and a committed one, stored as its folder."""
    container = ours.run("sh", "-c", "echo 1 >/file; ln /file /hard; rm /etc/passwd; mkdir -p /deep/er")
    ours.client.post(f"/containers/{container}/wait")
    ours.client.post("/commit", container=container, repo="made", tag="1", changes="ENV A=b")
    ours.remove(container)
    return ours.client.get("/images/made:1/json")["Id"]


@pytest.mark.parametrize("kind", ["oci", "v2s2"])
def test_they_push_and_we_pull_and_push_it_on(peer, ours, registry, kind):
    ours.client.delete("/images/busybox")  # the same image in another manifest would be kept in that
    name = f"{type(peer).__name__.lower()}/{kind}"
    identifier = peer.push(f"{registry}/{name}:1", kind)
    digest, manifest = in_registry(registry, name, "1")
    pull(ours, f"{registry}/{name}:1")
    inspected = ours.client.get(f"/images/{registry}/{name}:1/json")
    assert inspected["Id"] == identifier == manifest["config"]["digest"]
    assert inspected["RepoDigests"] == [f"{registry}/{name}@{digest}"]
    assert ours.output("true", image=inspected["Id"]) == (0, "")
    ours.client.post(f"/images/{identifier}/tag", repo=f"{registry}/{name}/again", tag="2")
    push(ours, f"{registry}/{name}/again", tag="2")
    assert in_registry(registry, f"{name}/again", "2") == (digest, manifest)


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_they_write_archives_and_we_load(peer, ours, form, tmp_path):
    peer.write(f"{tmp_path}/round.tar", form)
    files = members((tmp_path / "round.tar").read_bytes())
    if form == "oci-archive":
        manifest = json.loads(files["blobs/sha256/" + json.loads(files["index.json"])["manifests"][0]["digest"][7:]])
        identifier = manifest["config"]["digest"]
    else:
        identifier = digest_of(files[json.loads(files["manifest.json"])[0]["Config"]])
    before = {image["Id"] for image in ours.client.get("/images/json")}
    with open(tmp_path / "round.tar", "rb") as file:
        assert all("Loaded image" in message["stream"] for message in ours.client.messages("/images/load", body=file))
    after = {image["Id"]: image for image in ours.client.get("/images/json")}
    assert identifier in after
    assert after.keys() - before <= {identifier}
    assert ours.output("true", image=identifier) == (0, "")


def test_we_push_and_they_pull(peer, ours, registry, made):
    name = f"{type(peer).__name__.lower()}/ours"
    ours.client.post("/images/made:1/tag", repo=f"{registry}/{name}", tag="1")
    push(ours, f"{registry}/{name}", tag="1")
    assert peer.pull(f"{registry}/{name}:1") == made


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_we_save_and_they_read(peer, ours, made, form, tmp_path):
    (tmp_path / "ours.tar").write_bytes(saved(ours, "made:1"))
    assert peer.read(f"{tmp_path}/ours.tar", form) == made


# --- Docker Engine
@pytest.fixture
def docker(assets):
    path = os.environ.get("CORTEN_DOCKER_SOCKET", "")
    if not path:
        pytest.skip("needs a Docker Engine (CORTEN_DOCKER_SOCKET is not set)")
    client = Client(path)
    with open(f"{assets}/images/busybox.tar", "rb") as file:
        for _ in client.messages("/images/load", body=file):
            continue
    before = {image["Id"] for image in client.get("/images/json")}
    yield client
    for image in client.get("/images/json"):
        for name in image["RepoTags"]:
            if image["Id"] not in before or "/" in name or name == "made:1":
                client.delete(f"/images/{name}", force=1)


def through(client: Client, *names: str) -> bytes:
    with client.open("GET", "/images/get", query=[("names", name) for name in names]) as response:
        return response.read()


def test_docker_engine(docker, ours, registry, made):
    def push_from(client: Client, name: str) -> str:
        with client.open("POST", f"/images/{name}/push", query={"tag": "1"}, headers={"X-Registry-Auth": "e30="}) as response:
            return [json.loads(line) for line in response if line.strip()][-1]["aux"]["Digest"]

    def pull_to(client: Client, name: str) -> dict:
        list(client.messages("/images/create", fromImage=f"{name}:1"))
        return client.get(f"/images/{name}:1/json")

    docker.post("/images/busybox/tag", repo=f"{registry}/docker/theirs", tag="1")
    digest = push_from(docker, f"{registry}/docker/theirs")
    theirs = pull_to(ours.client, f"{registry}/docker/theirs")
    assert f"{registry}/docker/theirs@{digest}" in theirs["RepoDigests"]
    assert theirs["Id"] == docker.get("/images/busybox/json")["Id"]
    ours.client.post("/images/made:1/tag", repo=f"{registry}/docker/ours", tag="1")
    digest = push_from(ours.client, f"{registry}/docker/ours")
    back = pull_to(docker, f"{registry}/docker/ours")
    assert (back["Id"], back["RootFS"]) == (made, ours.client.get("/images/made:1/json")["RootFS"])
    assert f"{registry}/docker/ours@{digest}" in back["RepoDigests"]
    docker.delete(f"/images/{registry}/docker/ours:1")
    assert push_from(ours.client, f"{registry}/docker/ours") == digest
    list(docker.messages("/images/load", body=io.BytesIO(through(ours.client, "made:1"))))
    assert docker.get("/images/made:1/json")["Id"] == made
    archive = through(docker, "made:1")
    ours.client.delete("/images/made:1", force=1)
    assert load(ours, archive) == ["Loaded image: made:1"]
    assert ours.client.get("/images/made:1/json")["Id"] == made


# --- what we write is what the specification asks for
def check_documents(files: dict[str, bytes], prefix: str = "") -> int:
    """Everything that index.json leads to; how many images those are."""
    image_spec.check(image_spec.LAYOUT, json.loads(files["oci-layout"]))
    index = json.loads(files["index.json"])
    image_spec.check(image_spec.INDEX, index)
    for row in index["manifests"]:
        data = files["blobs/sha256/" + row["digest"][7:]]
        assert len(data) == row["size"]
        manifest = json.loads(data)
        image_spec.check(image_spec.MANIFEST, manifest)
        config = json.loads(files["blobs/sha256/" + manifest["config"]["digest"][7:]])
        image_spec.check(image_spec.CONFIG, config)
        assert len(config["rootfs"]["diff_ids"]) == len(manifest["layers"])
        for each in manifest["layers"]:
            assert len(files["blobs/sha256/" + each["digest"][7:]]) == each["size"]
        steps = [step for step in config.get("history", []) if not step.get("empty_layer")]
        assert len(steps) in (0, len(manifest["layers"]))
    return len(index["manifests"])


def _store(engine) -> dict[str, bytes]:
    """Path -> content, of what a reader of the layout sees."""
    store: dict[str, bytes] = {}
    for folder in ("", "blobs/sha256/"):
        for found in os.scandir(f"{engine.data_root}/{folder}"):
            if found.is_file():
                with open(found.path, "rb") as file:
                    store[folder + found.name] = file.read()
    return store


def test_every_document_is_as_the_specification_has_it(ours, made, registry, tmp_path):
    """In a store that keeps blobs, in an archive, and in a registry; of images that were loaded, committed, imported, assembled, pulled."""
    (tmp_path / "daemon.json").write_text('{"corten.keep-blobs": true}')
    ours.terminate()
    ours.arguments += ["--config-file", str(tmp_path / "daemon.json")]
    ours.start()
    tar = layer([entry("only")])
    list(ours.client.messages("/images/create", body=io.BytesIO(tar), fromSrc="-", repo="imported", tag="1"))
    ours.client.post("/corten/hello")
    pull(ours, f"{registry}/busybox:latest")
    names = ["busybox:latest", "made:1", "imported:1", "hello:latest", f"{registry}/busybox:latest"]
    eventually(lambda: check_documents(_store(ours)) == len(names))
    assert check_documents(members(saved(ours, *names))) == len(names)
    for number, name in enumerate(names):
        ours.client.post(f"/images/{name}/tag", repo=f"{registry}/spec", tag=f"v{number}")
        push(ours, f"{registry}/spec", tag=f"v{number}")
        manifest = in_registry(registry, "spec", f"v{number}")[1]
        image_spec.check(image_spec.MANIFEST, manifest)
        assert all(each["mediaType"].endswith("gzip") for each in manifest["layers"])


def test_the_checks_can_fail():
    row = {"mediaType": "a/b", "digest": "sha256:" + "0" * 64, "size": 1}
    good = {"schemaVersion": 2, "config": row, "layers": [row]}
    image_spec.check(image_spec.MANIFEST, good)
    for bad in (good | {"layers": []}, good | {"schemaVersion": 1}, good | {"config": row | {"size": -1}}, good | {"config": row | {"digest": "sha256:x"}}):
        with pytest.raises(ValueError, match=r"."):
            image_spec.check(image_spec.MANIFEST, bad)
