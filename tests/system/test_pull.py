"""Pulling from registries that want to know who asks, that have several platforms, and that lie."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import subprocess
import time

import pytest
from yarl import URL

from corten.api.client import ApiError
from corten.registry.auth import Credentials
from corten.registry.client import Broken, Repository
from corten.registry.hosts import Endpoint, RegistryHosts
from corten.spec.platform import this_platform
from corten.spec.reference import parse_reference
from tests.engines import RunningEngine
from tests.system.conftest import free_port, need
from tests.system.fake_registry import FakeRegistry
from tests.system.test_failures import archive, entry, store_content

# A published bcrypt test vector: password U*U.
HTPASSWD = "user:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n"


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    before = {image["Id"] for image in engine.client.get("/images/json")}
    yield
    for image in engine.client.get("/images/json"):
        if image["Id"] not in before:
            engine.client.delete(f"/images/{image['Id']}", force=1)


def pull(engine, name: str, credentials: dict | None = None, **query: object) -> list[dict]:
    headers = {}
    if credentials is not None:
        headers["X-Registry-Auth"] = base64.urlsafe_b64encode(json.dumps(credentials).encode()).decode()
    found = []
    with engine.client.open("POST", "/images/create", query={"fromImage": name, **query}, headers=headers) as response:
        for line in response:
            if line.strip():
                message = json.loads(line)
                if "error" in message:
                    raise ApiError(500, message["error"])
                found.append(message)
    return found


OCI = "application/vnd.oci.image."


def put_image(registry: FakeRegistry, repository: str, content: bytes, architecture: str, *names: str, layer_type: str = "layer.v1.tar+gzip",
              spoil: bytes | None = None) -> dict:  # fmt: skip
    layer = archive((entry("file"), content))
    config = json.dumps({"architecture": architecture, "os": "linux", "config": {"Cmd": ["/file"]},
                         "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}).encode()  # fmt: skip
    packed = gzip.compress(layer)
    layer_row = registry.put(repository, "blobs", packed, OCI + layer_type)
    if spoil is not None:
        registry.documents[f"/v2/{repository}/blobs/{layer_row['digest']}"] = (OCI + layer_type, spoil)
    config_row = registry.put(repository, "blobs", config, OCI + "config.v1+json")
    manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": config_row, "layers": [layer_row]}).encode()
    return registry.put(repository, "manifests", manifest, OCI + "manifest.v1+json", *names)


def test_basic_credentials(engine, assets, tmp_path):
    program, skopeo, port = need("docker-registry"), need("skopeo"), free_port()
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    (tmp_path / "config.yml").write_text(
        f"version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {tmp_path}/data\nhttp:\n  addr: 127.0.0.1:{port}\n"
        f"auth:\n  htpasswd:\n    realm: test\n    path: {tmp_path}/htpasswd\n"
    )
    process = subprocess.Popen([program, "serve", str(tmp_path / "config.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            done = subprocess.run(
                [skopeo, "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "--dest-creds", "user:U*U",
                 f"docker-archive:{assets}/images/busybox.tar", f"docker://127.0.0.1:{port}/private:1"], capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode == 0:
                break
            time.sleep(0.1)
        assert done.returncode == 0, done.stderr
        login = {"username": "user", "serveraddress": f"127.0.0.1:{port}"}
        assert engine.client.post("/auth", login | {"password": "U*U"}) == {"IdentityToken": "", "Status": "Login Succeeded"}
        for wrong, text in (({"password": "no"}, "failed with status: 401 Unauthorized"), ({}, "no basic auth credentials")):
            with pytest.raises(ApiError, match=text) as refused:
                engine.client.post("/auth", login | wrong)
            assert refused.value.http_status == 401
        with pytest.raises(ApiError, match="pull access denied for"):
            pull(engine, f"127.0.0.1:{port}/private:1")
        with pytest.raises(ApiError, match="pull access denied for"):
            pull(engine, f"127.0.0.1:{port}/private:1", {"username": "user", "password": "wrong"})
        assert "Status: Downloaded newer image" in pull(engine, f"127.0.0.1:{port}/private:1", {"username": "user", "password": "U*U"})[-1]["status"]
        engine.client.delete(f"/images/127.0.0.1:{port}/private:1")
    finally:
        process.terminate()
        process.wait()


def test_token_credentials(engine, fake):
    registry = fake(token=True)
    put_image(registry, "app", b"x", this_platform().architecture, "latest")
    with pytest.raises(ApiError, match="unauthorized"):
        pull(engine, f"{registry.address}/app", {"username": "user", "password": "wrong"})
    login = {"username": "user", "serveraddress": f"http://{registry.address}/v2/"}
    assert engine.client.post("/auth", login | {"password": "right"})["Status"] == "Login Succeeded"
    with pytest.raises(ApiError, match="unauthorized: incorrect username or password"):
        engine.client.post("/auth", login | {"password": "wrong"})
    shown = pull(engine, f"{registry.address}/app", {"username": "user", "password": "right"})
    assert shown[0] == {"status": "Pulling from app", "id": "latest"}
    assert [message["status"] for message in shown if "id" in message][-1] == "Pull complete"
    assert ("/v2/app/manifests/latest", "Bearer abc") in registry.asked
    inspected = engine.client.get(f"/images/{registry.address}/app/json")
    assert inspected["RepoTags"] == [f"{registry.address}/app:latest"]


def test_the_platform_is_chosen(engine, fake):
    registry = fake()
    rows = []
    for architecture in ("amd64", "arm64"):
        rows.append(put_image(registry, "multi", architecture.encode(), architecture) | {"platform": {"architecture": architecture, "os": "linux"}})
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": rows}).encode()
    row = registry.put("multi", "manifests", index, OCI + "index.v1+json", "latest")
    found = engine.client.get(f"/distribution/{registry.address}/multi/json")
    assert found == {"Descriptor": {key: row[key] for key in ("mediaType", "digest", "size")}, "Platforms": [each["platform"] for each in rows]}
    pull(engine, f"{registry.address}/multi")
    inspected = engine.client.get(f"/images/{registry.address}/multi/json")
    assert inspected["Architecture"] == this_platform().architecture
    assert inspected["RepoDigests"] == [f"{registry.address}/multi@{row['digest']}"]
    pull(engine, f"{registry.address}/multi", platform="linux/arm64")
    assert engine.client.get(f"/images/{registry.address}/multi/json")["Architecture"] == this_platform().architecture
    with pytest.raises(ApiError, match="no matching manifest for linux/s390x in the manifest list entries"):
        pull(engine, f"{registry.address}/multi", platform="linux/s390x")


def test_every_tag_without_a_tag(engine, fake):
    registry = fake()
    for tag in ("1", "2", "3"):
        put_image(registry, "many", tag.encode(), this_platform().architecture, tag)
    shown = pull(engine, f"{registry.address}/many")
    assert [message["id"] for message in shown if message["status"] == "Pulling from many"] == ["1", "2", "3"]
    for tag in ("1", "2", "3"):
        assert engine.client.get(f"/images/{registry.address}/many:{tag}/json")["RepoTags"] == [f"{registry.address}/many:{tag}"]
    with pytest.raises(ApiError, match="manifest unknown"):
        pull(engine, f"{registry.address}/none")


@pytest.mark.parametrize("spoil", [b"", b"garbage", gzip.compress(archive((entry("file"), b"other")))])
def test_a_blob_that_is_not_what_it_says(engine, fake, spoil):
    registry = fake()
    put_image(registry, "liar", b"right", this_platform().architecture, "latest", spoil=spoil)
    before = {path for path in store_content(engine) if "/layers/" in path}
    with pytest.raises(ApiError, match=r"altered or cut off|is longer than the 95 bytes|ends after \d of the 95 bytes"):
        pull(engine, f"{registry.address}/liar")
    assert {path for path in store_content(engine) if "/layers/" in path} == before
    with pytest.raises(ApiError, match="No such image"):
        engine.client.get(f"/images/{registry.address}/liar/json")


def test_foreign_layers_are_refused(engine, fake):
    registry = fake()
    put_image(registry, "foreign", b"x", this_platform().architecture, "latest", layer_type="layer.nondistributable.v1.tar+gzip")
    with pytest.raises(ApiError, match="is a foreign layer"):
        pull(engine, f"{registry.address}/foreign")


def test_nobody_there(engine):
    with pytest.raises(ApiError, match=r"Get .http://127\.0\.0\.1:"):
        pull(engine, f"127.0.0.1:{free_port()}/x")


def test_a_mirror_is_asked_first_and_passed_over_when_it_fails(assets, fake, tmp_path):
    """For any registry; what it serves has the registry's name, and it never sees the credentials."""
    mirror, origin = fake(), fake()
    put_image(mirror, "app", b"from the mirror", this_platform().architecture, "1")
    put_image(origin, "app", b"from the registry", this_platform().architecture, "2")
    (tmp_path / "daemon.json").write_text(json.dumps({"corten.mirrors": {"*": [f"http://127.0.0.1:{free_port()}", f"http://{mirror.address}"]}}))
    engine = RunningEngine("m", "--config-file", str(tmp_path / "daemon.json"))
    try:
        credentials = {"username": "user", "password": "right"}
        for tag in ("1", "2"):
            pull(engine, f"{origin.address}/app:{tag}", credentials)
            assert engine.client.get(f"/images/{origin.address}/app:{tag}/json")["RepoTags"] == [f"{origin.address}/app:{tag}"]
        assert ("/v2/app/manifests/1", "") in mirror.asked
        assert all(path != "/v2/app/manifests/1" for path, _ in origin.asked)
        assert any(path == "/v2/app/manifests/2" for path, _ in origin.asked)
        for tag in ("1", "2"):
            found = engine.client.get(f"/distribution/{origin.address}/app:{tag}/json")
            assert found["Platforms"] == [{"architecture": this_platform().architecture, "os": "linux"}]
            assert engine.client.get(f"/images/{origin.address}/app:{tag}/json")["RepoDigests"] == [f"{origin.address}/app@{found['Descriptor']['digest']}"]
        assert not any(authorization for _, authorization in mirror.asked)
    finally:
        engine.stop()


def test_a_registry_with_a_certificate_of_its_own(fake, tmp_path):
    """Refused until certs.d has its authority. (An engine takes anything on loopback: the client is asked itself.)"""
    folder = tmp_path / "certs.d" / "reg.example:5000"
    folder.mkdir(parents=True)
    key, certificate = str(tmp_path / "key"), str(folder / "ca.crt")
    subprocess.run([need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-keyout", key,
                    "-out", certificate, "-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)  # fmt: skip
    registry = fake(certificate=(certificate, key))
    put_image(registry, "app", b"x", this_platform().architecture, "1")
    reference = parse_reference(f"{registry.address}/app:1")

    async def manifest(domain: str, *folders: str) -> str:
        tls = RegistryHosts(folders=folders).origin(domain).tls
        endpoint = Endpoint(registry.address, (URL(f"https://{registry.address}"),), tls)
        async with Repository(reference, Credentials(), endpoint) as remote:
            return (await remote.manifest("1"))[1]

    with pytest.raises(Broken, match="CERTIFICATE_VERIFY_FAILED"):
        asyncio.run(manifest("reg.example:5000"))
    found = asyncio.run(manifest("reg.example:5000", str(tmp_path / "certs.d")))
    assert found == f"{OCI}manifest.v1+json"
