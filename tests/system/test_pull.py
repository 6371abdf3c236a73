"""Pulling from registries that want to know who asks, that have several platforms, and that lie."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import json
import subprocess
import threading
import time

import pytest

from corten.api.client import ApiError
from corten.spec.platform import this_platform
from tests.system.conftest import free_port, need
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


class FakeRegistry(http.server.ThreadingHTTPServer):
    """A registry with a token service; `documents` maps a path to (content type, body)."""

    def __init__(self, *, token: bool) -> None:
        super().__init__(("127.0.0.1", free_port()), _Handler)
        self.token, self.documents, self.asked = token, {}, []
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def put(self, repository: str, kind: str, data: bytes, content_type: str, *names: str) -> dict:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        for name in (digest, *names):
            self.documents[f"/v2/{repository}/{kind}/{name}"] = (content_type, data)
        return {"mediaType": content_type, "digest": digest, "size": len(data)}

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        server = self.server
        path = self.path.partition("?")[0]
        server.asked.append((path, self.headers.get("Authorization", "")))
        if path == "/token":
            good = self.headers.get("Authorization") == "Basic " + base64.b64encode(b"user:right").decode()
            self.answer(200 if good else 401, "application/json", json.dumps({"token": "abc"}).encode() if good else b"{}")
        elif server.token and self.headers.get("Authorization") != "Bearer abc":
            challenge = f'Bearer realm="http://{server.address}/token",service="fake"'
            self.answer(401, "application/json", b"{}", {"WWW-Authenticate": challenge})
        elif path == "/v2/":
            self.answer(200, "application/json", b"{}")
        elif path in server.documents:
            self.answer(200, *server.documents[path])
        else:
            self.answer(404, "application/json", b"{}")

    def answer(self, status: int, content_type: str, body: bytes, headers: dict | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def fake():
    servers = []

    def start(*, token: bool = False) -> FakeRegistry:
        servers.append(FakeRegistry(token=token))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


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
    pull(engine, f"{registry.address}/multi")
    inspected = engine.client.get(f"/images/{registry.address}/multi/json")
    assert inspected["Architecture"] == this_platform().architecture
    assert inspected["RepoDigests"] == [f"{registry.address}/multi@{row['digest']}"]
    pull(engine, f"{registry.address}/multi", platform="linux/arm64")
    assert engine.client.get(f"/images/{registry.address}/multi/json")["Architecture"] == "arm64"
    with pytest.raises(ApiError, match="no matching manifest for linux/s390x in the manifest list entries"):
        pull(engine, f"{registry.address}/multi", platform="linux/s390x")


@pytest.mark.parametrize("spoil", [b"", b"garbage", gzip.compress(archive((entry("file"), b"other")))])
def test_a_blob_that_is_not_what_it_says(engine, fake, spoil):
    registry = fake()
    put_image(registry, "liar", b"right", this_platform().architecture, "latest", spoil=spoil)
    before = {path for path in store_content(engine) if "/layers/" in path}
    with pytest.raises(ApiError, match="altered or cut off"):
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
    with pytest.raises(ApiError, match=r"Get .https://127\.0\.0\.1:"):
        pull(engine, f"127.0.0.1:{free_port()}/x")
