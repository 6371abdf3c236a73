"""Pushing with the real docker CLI to a real registry, read back by skopeo; interrupted transfers, and who may not."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import urllib.error
import urllib.request
import zlib

import pytest

from tests.engines import eventually
from tests.system.conftest import free_port, listens, need
from tests.system.proxy import CuttingProxy
from tests.system.test_pull import HTPASSWD, pull


@pytest.fixture
def proxy(registry):
    made = CuttingProxy(registry)
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    for image in engine.client.get("/images/json"):
        for tag in image["RepoTags"]:
            if "/" in tag:
                engine.client.delete(f"/images/{tag}", force=1)


def push(engine, name: str, **query: object) -> list[dict]:
    with engine.client.open("POST", f"/images/{name}/push", query=query, headers={"X-Registry-Auth": "e30="}) as response:
        return [json.loads(line) for line in response if line.strip()]


def in_registry(address: str, repository: str, which: str) -> tuple[str, dict]:
    """(digest, manifest) of what the registry has."""
    accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    request = urllib.request.Request(f"http://{address}/v2/{repository}/manifests/{which}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as response:
        data = response.read()
    return "sha256:" + hashlib.sha256(data).hexdigest(), json.loads(data)


def test_push_with_the_docker_cli(engine, docker_cli, registry):
    name = f"{registry}/team/box"
    engine.docker(docker_cli, "tag", "busybox", f"{name}:1")
    shown = engine.docker(docker_cli, "push", f"{name}:1").stdout
    digest, manifest = in_registry(registry, "team/box", "1")
    assert f"The push refers to repository [{name}]" in shown
    assert f"1: digest: {digest} size: " in shown
    assert ": Pushed" in shown
    assert all(layer["mediaType"].endswith("gzip") for layer in manifest["layers"])
    assert "Layer already exists" in engine.docker(docker_cli, "push", f"{name}:1").stdout
    engine.docker(docker_cli, "tag", "busybox", f"{registry}/team/other:2")
    assert "Mounted from team/box" in engine.docker(docker_cli, "push", f"{registry}/team/other:2").stdout
    assert in_registry(registry, "team/other", "2")[0] == digest
    assert f"{name}@{digest}" in engine.client.get("/images/busybox/json")["RepoDigests"]
    config = engine.client.get("/images/busybox/json")["Id"]
    assert manifest["config"]["digest"] == config


def test_what_was_pushed_is_what_others_and_we_pull(engine, registry, own_engine, tmp_path):
    skopeo = need("skopeo")
    name = f"{registry}/team/again"
    engine.client.post("/images/busybox/tag", repo=name, tag="1")
    push(engine, name, tag="1")
    subprocess.run([skopeo, "--insecure-policy", "copy", "-q", "--src-tls-verify=false", f"docker://{name}:1", f"dir:{tmp_path}/copy"], check=True)
    original = engine.client.get("/images/busybox/json")
    messages = pull(own_engine, f"{name}:1")
    assert messages[-1]["status"].startswith("Status: Image is up to date") or messages[-1]["status"].startswith("Status: Downloaded newer image")
    assert own_engine.client.get(f"/images/{name}:1/json")["RootFS"] == original["RootFS"]


def test_a_pulled_image_goes_out_with_its_own_digest(own_engine, registry):
    engine = own_engine
    pull(engine, f"{registry}/debian:latest")
    digest, _ = in_registry(registry, "debian", "latest")
    engine.client.post(f"/images/{registry}/debian/tag", repo=f"{registry}/copies/debian", tag="kept")
    last = push(engine, f"{registry}/copies/debian", tag="kept")[-1]
    assert last["aux"]["Digest"] == digest == in_registry(registry, "copies/debian", "kept")[0]


def test_what_goes_out_is_hardly_larger_than_gzip_makes_it(own_engine, registry, assets):
    """One packer for all that is pushed: a loaded layer, and one committed over it. Held against zlib's level 6, gzip's own."""
    engine = own_engine
    engine.load(f"{assets}/images/debian.tar")
    container = engine.client.post("/containers/create", {"Image": "debian", "Cmd": ["cp", "-a", "/usr/bin", "/copied"]})["Id"]
    engine.client.post(f"/containers/{container}/start")
    engine.client.post(f"/containers/{container}/wait")
    engine.client.post("/commit", container=container, repo=f"{registry}/team/size", tag="1")
    push(engine, f"{registry}/team/size", tag="1")
    _, manifest = in_registry(registry, "team/size", "1")
    assert len(manifest["layers"]) == 2
    for layer in manifest["layers"]:
        with urllib.request.urlopen(f"http://{registry}/v2/team/size/blobs/{layer['digest']}", timeout=60) as response:
            packed = response.read()
        assert layer["mediaType"].endswith("gzip")
        plain = gzip.decompress(packed)
        assert len(plain) > 5 << 20
        assert len(packed) == layer["size"] <= 1.05 * len(zlib.compress(plain, 6))


def test_every_tag_of_a_repository(engine, docker_cli, registry):
    for tag in ("a", "b"):
        engine.client.post("/images/busybox/tag", repo=f"{registry}/many", tag=tag)
    engine.docker(docker_cli, "push", "-a", f"{registry}/many")
    assert in_registry(registry, "many", "a")[0] == in_registry(registry, "many", "b")[0]


def test_an_upload_goes_on_where_the_connection_broke(engine, fake):
    registry = fake()
    registry.break_after = 700_000
    engine.client.post("/images/busybox/tag", repo=f"{registry.address}/broken", tag="1")
    messages = push(engine, f"{registry.address}/broken", tag="1")
    assert "aux" in messages[-1], messages[-1]
    assert registry.break_after == 0, "nothing was broken: the test proves nothing"
    assert len(registry.uploads) == 2, "the layer's upload began anew"


def test_a_registry_that_cannot_go_on_gets_it_again(engine, proxy, registry):
    engine.client.post("/images/busybox/tag", repo=f"{proxy.address}/broken/box", tag="1")
    proxy.cut(after=700_000, times=1)
    messages = push(engine, f"{proxy.address}/broken/box", tag="1")
    assert messages[-1]["aux"]["Digest"] == in_registry(registry, "broken/box", "1")[0]
    assert proxy.cuts == 0


def test_a_download_goes_on_where_the_connection_broke(own_engine, proxy):
    proxy.cut(after=20 << 20, times=2)
    messages = pull(own_engine, f"{proxy.address}/debian:latest")
    assert messages[-1]["status"].startswith("Status: Downloaded newer image")
    assert proxy.cuts == 0


def test_a_killed_engine_s_download_is_gone_on_with(own_engine, proxy):
    engine = own_engine
    proxy.cut(after=30 << 20, times=100)
    partials = f"{engine.data_root}/partial"
    with engine.client.open("POST", "/images/create", query={"fromImage": f"{proxy.address}/debian:latest"}):
        eventually(lambda: sum(os.stat(f"{partials}/{name}").st_size for name in os.listdir(partials)) > 25 << 20)
        engine.kill()
    proxy.cut(after=0, times=0)
    got = sum(os.stat(f"{partials}/{name}").st_size for name in os.listdir(partials))
    before = proxy.passed
    engine.start()
    pull(engine, f"{proxy.address}/debian:latest")
    manifest = in_registry(proxy.address, "debian", "latest")[1]
    whole = sum(layer["size"] for layer in manifest["layers"])
    assert proxy.passed - before < whole - got + (1 << 20)
    assert os.listdir(partials) == []


def test_dockers_texts(engine, registry):
    name = f"{registry}/texts"
    refers = {"status": f"The push refers to repository [{name}]"}
    text = f"An image does not exist locally with the tag: {name}"
    assert push(engine, name, tag="1") == [refers, {"errorDetail": {"message": text}, "error": text}]
    engine.client.post("/images/busybox/tag", repo=name, tag="1")
    text = f"tag does not exist: {name}:2"
    assert push(engine, name, tag="2") == [refers, {"errorDetail": {"message": text}, "error": text}]


def test_who_may_not_push_is_told_so(engine, tmp_path):
    program, port = need("docker-registry"), free_port()
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    (tmp_path / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/data}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\nauth: {{htpasswd: {{realm: x, path: {tmp_path}/htpasswd}}}}\n"
    )
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen([program, "serve", str(tmp_path / "config.yml")], stdout=log, stderr=log)
    try:
        eventually(lambda: listens(port))
        engine.client.post("/images/busybox/tag", repo=f"127.0.0.1:{port}/x", tag="1")
        assert "unauthorized" in push(engine, f"127.0.0.1:{port}/x", tag="1")[-1]["error"]
        with pytest.raises(urllib.error.HTTPError):
            in_registry(f"127.0.0.1:{port}", "x", "1")
    finally:
        process.terminate()
        process.wait()
