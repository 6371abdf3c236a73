"""`corten build` with results for the user: folders, archives, pipes, pushes, attestations, and a cache in a folder of the user's."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tarfile

import pytest

from tests.engines import eventually, free_port
from tests.system.conftest import listens, need
from tests.system.fake_s3 import KEY_ID, FakeS3
from tests.system.test_build_outputs import skopeo_inspect
from tests.system.test_cli_build import BIN, corten
from tests.system.test_pull import HTPASSWD


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    for image in engine.client.get("/images/json"):
        if "busybox:latest" not in image["RepoTags"]:
            engine.client.delete(f"/images/{image['Id']}", force=1)
    engine.client.post("/build/prune", all=1)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "Dockerfile").write_text(
        "FROM busybox AS made\nRUN mkdir /out; head -c 16 /dev/urandom >/out/random; ln -s /etc/passwd /out/link\n"
        "FROM scratch\nCOPY --from=made /out /\n"
    )
    return tmp_path


@pytest.fixture
def registry_with_password(folder):
    """(address, a DOCKER_CONFIG that knows it)."""
    program, port = need("docker-registry"), free_port()
    (folder / "htpasswd").write_text(HTPASSWD)
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\nauth: {{htpasswd: {{realm: x, path: {folder}/htpasswd}}}}\n"
    )
    address = f"127.0.0.1:{port}"
    (folder / "docker").mkdir()
    (folder / "docker" / "config.json").write_text(json.dumps({"auths": {address: {"auth": base64.b64encode(b"user:U*U").decode()}}}))
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        assert eventually(lambda: listens(port))
        yield address, f"{folder}/docker"
    finally:
        process.terminate()
        process.wait()


def test_a_folder(engine, folder):
    corten(engine, "build", "-o", f"{folder}/out", f"{folder}/in")
    assert sorted(os.listdir(folder / "out")) == ["link", "random"]
    assert os.readlink(folder / "out" / "link") == "/etc/passwd"
    (folder / "out" / "random").unlink()
    (folder / "out" / "random").symlink_to("/nonexistent/elsewhere")
    corten(engine, "build", "-o", f"type=local,dest={folder}/out", f"{folder}/in")  # over what is there, through nothing
    assert (folder / "out" / "random").stat().st_size == 16
    assert engine.client.get("/images/json")[0]["RepoTags"] == ["busybox:latest"]


def test_archives_and_a_pipe(engine, folder):
    done = corten(engine, "build", "-t", "piped:1", "-o", f"type=oci,dest={folder}/a.tar", "-o", "-", "--annotation", "a=b", f"{folder}/in", code=1)
    assert b"no attribute" in done.stderr  # of a tar
    done = corten(engine, "build", "-t", "piped:1", "-o", f"type=oci,dest={folder}/a.tar,annotation.a=b", "-o", "-", f"{folder}/in")
    assert b"exporting to oci image format" in done.stderr
    with open(folder / "b.tar", "wb") as file:
        file.write(done.stdout)
    with tarfile.open(folder / "b.tar") as archive:
        assert sorted(archive.getnames()) == ["link", "random"]
    assert skopeo_inspect(f"oci-archive:{folder}/a.tar:1", "--raw")["annotations"] == {"a": "b"}
    assert sorted(os.listdir(folder)) == ["a.tar", "b.tar", "in"]


def test_a_push_with_attestations(engine, folder, registry):
    name = f"{registry}/cli/attested:1"
    corten(engine, "build", "-t", name, "--push", "--sbom", "--provenance=mode=max", "--annotation", "index:k=v", f"{folder}/in")
    index = skopeo_inspect(f"docker://{name}", "--raw", "--tls-verify=false")
    assert len(index["manifests"]) == 2 and index["annotations"] == {"k": "v"}


def test_a_cache_in_a_folder(engine, own_engine, folder):
    for running in (engine, own_engine):
        done = corten(running, "build", "-q", "--cache-from", f"type=local,src={folder}/cache", "--cache-to", f"type=local,dest={folder}/cache,mode=max", f"{folder}/in")
        (folder / f"id-{running.name}").write_bytes(done.stdout)
    first, second = sorted(folder.glob("id-*"))
    assert first.read_bytes() == second.read_bytes()
    layout = subprocess.run([need("skopeo"), "inspect", "--raw", f"oci:{folder}/cache"], capture_output=True, check=True)
    assert json.loads(layout.stdout)["artifactType"] == "application/vnd.corten.build-cache.v1"


def test_the_keys_of_a_bucket_are_in_no_log(engine, folder):
    bucket = FakeS3()
    try:
        place = f"type=s3,bucket=b,region=r,endpoint_url={bucket.url},access_key_id={KEY_ID},secret_access_key=verysecret"
        corten(engine, "build", "--cache-to", f"{place},mode=max", "--cache-from", place, f"{folder}/in")
        assert "b/manifests/buildcache" in bucket.objects and "verysecret" not in engine.log()
    finally:
        bucket.stop()


def test_what_cannot_be(engine, folder):
    for flags in (["-o", "type=oci,what"], ["--attest", "type=cosign"], ["--cache-to", "type=local"], ["--annotation", "x"], ["--output", "type=cloud"]):
        done = subprocess.run([f"{BIN}/corten", "-H", f"unix://{engine.socket}", "build", *flags, f"{folder}/in"], capture_output=True, timeout=60, check=False)
        assert done.returncode in (1, 2) and done.stderr


def test_a_push_with_the_credentials_of_docker_login(engine, folder, registry_with_password):
    address, config = registry_with_password
    refused = corten(engine, "build", "-t", f"{address}/private:1", "--push", f"{folder}/in", code=1, env=os.environ | {"DOCKER_CONFIG": f"{folder}/none"})
    assert b"authentication required" in refused.stderr
    corten(engine, "build", "-t", f"{address}/private:1", "--push", f"{folder}/in", env=os.environ | {"DOCKER_CONFIG": config})
