"""Registries that lie, break, stall, or hand one on: told with image and registry, nothing visible stays, and what was good is kept."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable

import pytest
from yarl import URL

from corten.api.client import ApiError
from corten.registry import retry
from corten.registry.auth import Credentials
from corten.registry.client import Broken, Repository
from corten.registry.hosts import Endpoint
from corten.spec.platform import this_platform
from corten.spec.reference import parse_reference
from tests.engines import RunningEngine, eventually
from tests.system.fake_registry import FakeRegistry
from tests.system.test_failures import archive, entry
from tests.system.test_pull import OCI, pull, put_image

ARCHITECTURE = this_platform().architecture
JSON, INDEX, MANIFEST, LAYER = "application/json", OCI + "index.v1+json", OCI + "manifest.v1+json", OCI + "layer.v1.tar+gzip"
HTML = b"<html><body>please log in</body></html>"


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    before = {image["Id"] for image in engine.client.get("/images/json")}
    yield
    for image in engine.client.get("/images/json"):
        if image["Id"] not in before:
            engine.client.delete(f"/images/{image['Id']}", force=1)


class App:
    """`app:1` of a registry: a good layer and a second one, each document to be spoilt before it is put there."""

    def __init__(self, registry: FakeRegistry, name: bytes = b"") -> None:
        self.registry = registry
        self.tars = [archive((entry(f"file{number}"), name + bytes([number]) * 5000 + os.urandom(3000))) for number in (1, 2)]
        self.layers = [registry.put("app", "blobs", gzip.compress(tar), LAYER) for tar in self.tars]
        self.config_data = json.dumps({"architecture": ARCHITECTURE, "os": "linux", "config": {"Cmd": ["/file"]},
                                       "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in self.tars]}}).encode()  # fmt: skip
        self.put()

    def put(self, *, layers: list[dict] | None = None, config: dict | None = None) -> None:
        head = config or self.registry.put("app", "blobs", self.config_data, OCI + "config.v1+json")
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": head, "layers": self.layers if layers is None else layers}
        self.manifest = json.dumps(document).encode()
        self.registry.put("app", "manifests", self.manifest, MANIFEST, "1")

    def blob(self, row: dict) -> str:
        return f"/v2/app/blobs/{row['digest']}"

    def serve(self, row: dict, data: bytes) -> None:
        self.registry.documents[self.blob(row)] = (LAYER, data)


def said(engine, registry: FakeRegistry, name: str = "app:1", *, good_layers: int = 0) -> str:
    """The refusal's text, once it is seen that nothing visible is left of the image, and no layer but those that were good."""
    layers = set(os.listdir(f"{engine.data_root}/layers"))
    with pytest.raises(ApiError) as refused:
        pull(engine, f"{registry.address}/{name}")
    with pytest.raises(ApiError, match="No such image"):
        engine.client.get(f"/images/{registry.address}/{name}/json")
    assert "internal error" not in refused.value.message
    assert len(set(os.listdir(f"{engine.data_root}/layers")) - layers) <= good_layers
    assert not [left for left in os.listdir(f"{engine.data_root}/tmp") if left.startswith(("layer-", "blob-"))]
    return refused.value.message


# --- a layer that is not what the manifest says; the first one was good
def longer(app: App) -> str:
    app.serve(app.layers[1], app.registry.documents[app.blob(app.layers[1])][1] + b"x")
    return f"is longer than the {app.layers[1]['size']} bytes that its manifest says"


def shorter(app: App) -> str:
    app.serve(app.layers[1], app.registry.documents[app.blob(app.layers[1])][1][:1000])
    return f"ends after 1000 of the {app.layers[1]['size']} bytes that its manifest says"


def other_content(app: App) -> str:
    data = app.registry.documents[app.blob(app.layers[1])][1]
    app.serve(app.layers[1], data[:-1] + bytes([data[-1] ^ 1]))
    return "it was altered or cut off on its way"


def a_page(app: App) -> str:
    app.serve(app.layers[1], HTML)
    return f"ends after {len(HTML)} of the"


def wrong_size(app: App) -> str:
    app.put(layers=[app.layers[0], app.layers[1] | {"size": app.layers[1]["size"] + 5}])
    return "bytes that its manifest says"


def wrong_diff_id(app: App) -> str:
    app.config_data = app.config_data.replace(hashlib.sha256(app.tars[1]).hexdigest().encode(), b"0" * 64)
    app.put()
    return f"its config says sha256:{'0' * 64}"


def no_gzip(app: App) -> str:
    app.put(layers=[app.layers[0], app.registry.put("app", "blobs", b"\x1f\x8b" + b"no tar" * 999, LAYER)])
    return "the layer is corrupt or cut off"


def gone(app: App) -> str:
    del app.registry.documents[app.blob(app.layers[1])]
    return f"blob {app.layers[1]['digest']} is missing"


def forbidden(app: App) -> str:
    body = json.dumps({"errors": [{"code": "DENIED", "message": "not for you"}]}).encode()
    app.registry.faults[app.blob(app.layers[1])] = lambda handler: handler.answer(403, JSON, body)
    return f"received unexpected HTTP status: 403 Forbidden (GET http://{app.registry.address}{app.blob(app.layers[1])}): denied: not for you"


def in_a_circle(app: App) -> str:
    path = app.blob(app.layers[1])
    app.registry.faults[path] = lambda handler: handler.answer(307, JSON, b"", {"Location": path})
    return "it leads nowhere: TooManyRedirects"


LAYER_FAULTS = (longer, shorter, other_content, a_page, wrong_size, wrong_diff_id, no_gzip, gone, forbidden, in_a_circle)


@pytest.mark.parametrize("fault", LAYER_FAULTS, ids=lambda fault: fault.__name__)
def test_a_layer_that_is_not_what_it_should_be(engine, fake, fault: Callable[[App], str]):
    """The good layer stays for the next try, which finds all good and fetches the other alone."""
    registry = fake()
    app = App(registry, fault.__name__.encode())
    manifest, config, documents = app.manifest, app.config_data, dict(registry.documents)
    reason = fault(app)
    bad = json.loads(registry.documents["/v2/app/manifests/1"][1])["layers"][1]
    answer, path, kept = registry.faults.get(app.blob(bad)), app.blob(bad), f"{engine.data_root}/blobs/sha256/{app.layers[0]['digest'][7:]}"

    def when_the_first_is_kept(handler) -> None:
        eventually(lambda: os.path.exists(kept))
        answer(handler) if answer else handler.answer(*((200, *registry.documents[path]) if path in registry.documents else (404, JSON, b"{}")))

    registry.faults[path] = when_the_first_is_kept
    text = said(engine, registry, good_layers=1)
    assert text.startswith(f"{registry.address}/app:1 from {registry.address}: ")
    assert reason in text
    registry.faults.clear()
    registry.documents, app.config_data = documents, config
    assert registry.documents["/v2/app/manifests/1"][1] == manifest
    registry.asked.clear()
    assert pull(engine, f"{registry.address}/app:1")[-1]["status"].startswith("Status: Downloaded")
    assert app.blob(app.layers[0]) not in {path for path, _ in registry.asked}


# --- manifests, indexes, configs
def page_for_manifest(app: App) -> str:
    app.registry.documents["/v2/app/manifests/1"] = ("text/html; charset=utf-8", HTML)
    return "it answered with a page of HTML, not with a manifest"


def page_called_manifest(app: App) -> str:
    app.registry.documents["/v2/app/manifests/1"] = (MANIFEST, HTML)
    return "invalid manifest: JSON is malformed"


def large(app: App) -> str:
    app.registry.documents["/v2/app/manifests/1"] = (MANIFEST, app.manifest + b" " * (5 << 20))
    return "the manifest is larger than 4 MiB"


def endless(app: App) -> str:
    def answer(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", MANIFEST)
        handler.send_header("Connection", "close")
        handler.end_headers()
        with contextlib.suppress(ConnectionError):
            for _ in range(1 << 10):  # bounded all the same
                handler.wfile.write(b" " * (1 << 16))
        handler.close_connection = True

    app.registry.faults["/v2/app/manifests/1"] = answer
    return "the manifest is larger than 4 MiB"


def ten_thousand_layers(app: App) -> str:
    app.put(layers=app.layers * 5000)
    return "max depth exceeded: the image has 10000 layers, 498 are the most"


def a_way_out(app: App) -> str:
    app.put(layers=[app.layers[0], app.layers[1] | {"digest": "sha256:../../../etc/passwd"}])
    return "invalid manifest: 'sha256:../../../etc/passwd'"


def less_than_nothing(app: App) -> str:
    app.put(layers=[app.layers[0], app.layers[1] | {"size": -1}])
    return "of -1 bytes: want a sha256 digest and a size that can be"


def huge_config(app: App) -> str:
    app.put(config={"mediaType": OCI + "config.v1+json", "digest": "sha256:" + "0" * 64, "size": 1 << 40})
    return "the config is said to have 1099511627776 bytes, 8 MiB are the most"


def page_for_config(app: App) -> str:
    app.config_data = HTML
    app.put()
    return "invalid image config: JSON is malformed"


def one_layer_too_few(app: App) -> str:
    app.put(layers=app.layers[:1])
    return "the manifest has 1 layers, the config 2"


def foreign(app: App) -> str:
    app.put(layers=[app.layers[0], app.layers[1] | {"mediaType": OCI + "layer.nondistributable.v1.tar+gzip", "urls": ["http://127.0.0.1:1/x"]}])
    return "is a foreign layer"


def put_index(app: App, digest: str, size: int = 1) -> dict:
    row = {"mediaType": INDEX, "digest": digest, "size": size, "platform": {"architecture": ARCHITECTURE, "os": "linux"}}
    return app.registry.put("app", "manifests", json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [row]}).encode(), INDEX, "1")


def index_in_index(app: App) -> str:
    inner = put_index(app, "sha256:" + "a" * 64)
    top = put_index(app, inner["digest"], inner["size"])
    return f"the index {top['digest']} names another index, {inner['digest']}"


def index_of_itself(app: App) -> str:
    """No document can have its own digest: whoever serves such a thing is found out by it."""
    wanted = "sha256:" + "a" * 64
    put_index(app, wanted)
    app.registry.documents[f"/v2/app/manifests/{wanted}"] = app.registry.documents["/v2/app/manifests/1"]
    return f"manifest verification failed for digest {wanted}"


MANIFEST_FAULTS = (page_for_manifest, page_called_manifest, large, endless, ten_thousand_layers, a_way_out, less_than_nothing, huge_config, page_for_config,
                   one_layer_too_few, foreign, index_in_index, index_of_itself)  # fmt: skip


@pytest.mark.parametrize("fault", MANIFEST_FAULTS, ids=lambda fault: fault.__name__)
def test_a_document_that_is_not_what_it_should_be(engine, fake, fault: Callable[[App], str]):
    registry = fake()
    app = App(registry, fault.__name__.encode())
    reason = fault(app)
    text = said(engine, registry)
    assert text.startswith(f"{registry.address}/app:1 from {registry.address}: ")
    assert reason in text
    assert not any(app.blob(layer) == path for layer in app.layers for path, _ in registry.asked)


def test_a_layer_of_the_store_under_another_blobs_name(engine, fake):
    """Both layers are here, and so are (or were) both blobs: that one is the other's content is a claim of the registry's alone."""
    registry = fake()
    app = App(registry, os.urandom(4))
    good = pull(engine, f"{registry.address}/app:1")
    assert "Downloaded newer image" in good[-1]["status"]
    other = registry.put("app", "blobs", app.config_data.replace(b"/file", b"/other"), OCI + "config.v1+json")
    registry.put("app", "manifests", json.dumps(json.loads(app.manifest) | {"config": other, "layers": app.layers[::-1]}).encode(), MANIFEST, "2")
    assert "its config says" in said(engine, registry, "app:2")


def test_a_manifest_by_digest_is_that_one(engine, fake):
    registry = fake()
    app = App(registry)
    wanted = "sha256:" + "c" * 64
    registry.documents[f"/v2/app/manifests/{wanted}"] = (MANIFEST, app.manifest)
    assert f"manifest verification failed for digest {wanted}" in said(engine, registry, f"app@{wanted}")


@pytest.fixture
def small_disk(tmp_path):
    """An engine whose data is on a disk of 64 MiB."""
    folder = tmp_path / "cortest-disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "small", str(folder)], check=True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CORTEN_TEST_ROOT", str(folder))
            engine = RunningEngine("d")
        try:
            yield engine
        finally:
            for image in engine.client.get("/images/json"):
                engine.client.delete(f"/images/{image['Id']}", force=1)
            engine.stop()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_layer_that_unpacks_to_more_than_the_disk(small_disk, fake):
    """Some kilobytes as the manifest declares, and 300 MiB inside. The engine's own files still have room, and a good image comes after."""
    registry = fake()
    put_image(registry, "app", b"boom" * (75 << 20), ARCHITECTURE, "1")
    text = said(small_disk, registry)
    assert "unpacked it needs more room than the disk has" in text
    disk = os.statvfs(small_disk.data_root)
    assert disk.f_bavail * disk.f_frsize > 32 << 20
    put_image(registry, "good", b"x" * (8 << 20), ARCHITECTURE, "1")
    pull(small_disk, f"{registry.address}/good:1")


def test_a_disk_that_is_full(small_disk, fake):
    registry = fake()
    put_image(registry, "app", os.urandom(70 << 20), ARCHITECTURE, "1")
    text = said(small_disk, registry)  # the download fills it, and the layer that is unpacked meanwhile: either is the first to notice
    assert "No space left on device" in text or "needs more room than the disk has" in text


# --- where credentials go
LOGIN = {"username": "user", "password": "right"}


def test_credentials_do_not_follow_to_another_host(engine, fake):
    registry, elsewhere = fake(token=True), fake()
    row = put_image(registry, "app", b"x", ARCHITECTURE, "1")
    layer = json.loads(registry.documents[f"/v2/app/manifests/{row['digest']}"][1])["layers"][0]
    path = f"/v2/app/blobs/{layer['digest']}"
    elsewhere.documents[path] = registry.documents[path]
    registry.faults[path] = lambda handler: handler.answer(307, JSON, b"", {"Location": f"http://{elsewhere.address}{path}"})
    pull(engine, f"{registry.address}/app:1", LOGIN)
    assert (path, "Bearer abc") in registry.asked
    assert elsewhere.asked == [(path, "")]


def test_credentials_do_not_follow_an_upload_to_another_host(engine, fake):
    registry, elsewhere = fake(token=True), fake()

    numbers = itertools.count()

    def sent_on(handler) -> None:
        name = f"/upload/{next(numbers)}"
        elsewhere.uploads[name] = bytearray()
        handler.answer(202, JSON, b"", {"Location": f"http://{elsewhere.address}/v2/app/blobs/uploads{name}"})

    registry.faults["/v2/app/blobs/uploads/"] = sent_on
    engine.client.post("/images/busybox/tag", repo=f"{registry.address}/app", tag="1")
    try:
        headers = {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(LOGIN).encode()).decode()}
        with engine.client.open("POST", f"/images/{registry.address}/app/push", query={"tag": "1"}, headers=headers) as response:
            assert b'"aux"' in response.read()
    finally:
        engine.client.delete(f"/images/{registry.address}/app:1")
    assert registry.sent == [("/v2/app/manifests/1", "Bearer abc")]
    assert len(elsewhere.sent) == 4
    assert {authorization for _, authorization in elsewhere.sent} == {""}


def test_a_token_service_that_sends_one_on(engine, fake):
    """Neither a password nor an identity token is shown to where it points."""
    registry, elsewhere = fake(token=True), fake()
    put_image(registry, "app", b"x", ARCHITECTURE, "1")
    registry.faults["/token"] = lambda handler: handler.answer(307, JSON, b"", {"Location": f"http://{elsewhere.address}/token"})
    for credentials in (LOGIN, {"username": "user", "identitytoken": "identity"}):
        with pytest.raises(ApiError):
            pull(engine, f"{registry.address}/app:1", credentials)
    assert [authorization for _, authorization in elsewhere.asked if authorization] == []
    assert elsewhere.forms == []


def test_an_identity_token(engine, fake):
    registry = fake(token=True)
    put_image(registry, "app", b"x", ARCHITECTURE, "1")
    with pytest.raises(ApiError, match="unauthorized: incorrect username or password"):
        pull(engine, f"{registry.address}/app:1", {"identitytoken": "wrong"})
    pull(engine, f"{registry.address}/app:1", {"identitytoken": "identity"})
    assert registry.forms[-1]["scope"] == ["repository:app:pull"]
    assert ("/v2/app/manifests/1", "Bearer abc") in registry.asked


@pytest.mark.parametrize(("answer", "told"), [
    (lambda handler: handler.answer(200, "text/html", HTML), "did not answer with a token"),
    (lambda handler: handler.answer(418, JSON, b"{}"), "answered with HTTP status 418"),
    (lambda handler: handler.answer(401, JSON, b"{}"), "unauthorized: incorrect username or password"),
])  # fmt: skip
def test_a_token_service_that_gives_none(engine, fake, answer, told):
    registry = fake(token=True)
    put_image(registry, "app", b"x", ARCHITECTURE, "1")
    registry.faults["/token"] = answer
    with pytest.raises(ApiError, match=told) as refused:
        pull(engine, f"{registry.address}/app:1", LOGIN)
    assert f"http://{registry.address}/token" in refused.value.message


def test_a_token_that_expires_in_the_middle_is_renewed(engine, fake):
    registry = fake(token=True)
    row = put_image(registry, "app", b"x", ARCHITECTURE, "1")
    path = "/v2/app/blobs/" + json.loads(registry.documents[f"/v2/app/manifests/{row['digest']}"][1])["layers"][0]["digest"]

    def once(handler) -> None:
        del registry.faults[path]
        handler.answer(401, JSON, b"{}", {"WWW-Authenticate": f'Bearer realm="http://{registry.address}/token",service="fake"'})

    registry.faults[path] = once
    pull(engine, f"{registry.address}/app:1", LOGIN)
    assert [asked for asked, _ in registry.asked].count("/token") == 2


# --- patience: the client is asked itself, with less of it than an engine has
@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(retry, "pause", lambda *_: 0.01)


def fetched(registry: FakeRegistry, digest: str, silence: float = 60.0) -> bytes:
    async def fetch() -> bytes:
        endpoint = Endpoint(registry.address, (URL(f"http://{registry.address}"),), tls=False, silence=silence)
        async with Repository(parse_reference(f"{registry.address}/app:1"), Credentials(), endpoint) as remote:
            return b"".join([data async for data in remote.blob(digest)])

    return asyncio.run(fetch())


def partly(share: float, then: Callable[[], None]) -> Callable:
    """Say that all will come, send a share of it from where it was asked for, and then something else happens."""

    def answer(handler) -> None:
        data = handler.server.documents[handler.path][1]
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        handler.wfile.write(data[start : max(start, int(len(data) * share))])
        handler.wfile.flush()
        then()
        handler.close_connection = True

    return answer


@pytest.mark.parametrize("then", [lambda: None, lambda: time.sleep(1)], ids=["less than it said", "silence"])
def test_a_connection_that_ends_or_falls_silent_is_given_up_in_the_end(fake, quick, then):
    registry = fake()
    row = registry.put("app", "blobs", b"x" * 10_000, LAYER)
    path = f"/v2/app/blobs/{row['digest']}"
    registry.faults[path] = partly(0.5, then)
    with pytest.raises(Broken, match=f'Get "http://{registry.address}{path}"'):
        fetched(registry, row["digest"], silence=0.2)
    assert registry.ranges[-retry.ATTEMPTS :] == ["", *["bytes=5000-"] * (retry.ATTEMPTS - 1)]


@pytest.mark.parametrize("status", [429, 503])
def test_a_registry_that_is_busy_is_asked_again_when_it_says(fake, monkeypatch, status):
    registry, paused = fake(), []
    monkeypatch.setattr(retry, "pause", lambda attempt, after="", now=0.0: paused.append((attempt, after)) or 0.01)
    row = registry.put("app", "blobs", b"content", LAYER)
    path = f"/v2/app/blobs/{row['digest']}"
    body = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached your pull rate limit"}]}).encode()

    def busy(handler) -> None:
        if len(paused) == 2:
            handler.answer(200, *registry.documents[path])
        else:
            handler.answer(status, JSON, body, {"Retry-After": "7"})

    registry.faults[path] = busy
    assert fetched(registry, row["digest"]) == b"content"
    assert paused == [(1, "7"), (2, "7")]
    registry.faults[path] = lambda handler: handler.answer(status, JSON, body)
    with pytest.raises(Exception, match=f"{status} .*toomanyrequests: You have reached your pull rate limit"):
        fetched(registry, row["digest"])


def test_the_rate_limit_is_shown(engine, fake):
    registry = fake()
    put_image(registry, "app", b"x", ARCHITECTURE, "1")
    limit = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "76;w=21600"}
    registry.faults["/v2/app/manifests/1"] = lambda handler: handler.answer(200, *registry.documents["/v2/app/manifests/1"], limit)
    shown = [message["status"] for message in pull(engine, f"{registry.address}/app:1")]
    assert f"Rate limit of {registry.address}: 76 of 100 pulls left, counted over 6 h" in shown


# --- interruptions
def test_killed_at_99_percent_the_last_one_is_fetched(own_engine, fake):
    registry, engine = fake(), own_engine
    row = put_image(registry, "app", os.urandom(4 << 20), ARCHITECTURE, "1")
    layer = json.loads(registry.documents[f"/v2/app/manifests/{row['digest']}"][1])["layers"][0]
    path, partial = f"/v2/app/blobs/{layer['digest']}", f"{engine.data_root}/partial/{layer['digest'][7:]}"
    wanted = int(layer["size"] * 0.99)
    registry.faults[path] = partly(0.99, lambda: eventually(lambda: engine.process.poll() is not None))
    with engine.client.open("POST", "/images/create", query={"fromImage": f"{registry.address}/app:1"}):
        eventually(lambda: os.path.exists(partial) and os.stat(partial).st_size == wanted)
        engine.kill()
    del registry.faults[path]
    engine.start()
    assert pull(engine, f"{registry.address}/app:1")[-1]["status"].startswith("Status: Downloaded")
    assert [asked for (name, _), asked in zip(registry.asked, registry.ranges, strict=True) if name == path] == ["", f"bytes={wanted}-"]


def test_a_client_that_leaves_ends_the_pull(engine, fake):
    """What it got is gone on with by the next."""
    registry = fake()
    row = put_image(registry, "app", os.urandom(1 << 20), ARCHITECTURE, "1")
    layer = json.loads(registry.documents[f"/v2/app/manifests/{row['digest']}"][1])["layers"][0]
    path, ended = f"/v2/app/blobs/{layer['digest']}", []

    def until_it_is_let_go() -> None:
        handler_socket[0].settimeout(20)
        ended.append(handler_socket[0].recv(1))  # b"": the engine has closed its end

    handler_socket: list = []

    def answer(handler) -> None:
        handler_socket.append(handler.connection)
        partly(0.5, until_it_is_let_go)(handler)

    registry.faults[path] = answer
    partial = f"{engine.data_root}/partial/{layer['digest'][7:]}"
    with engine.client.open("POST", "/images/create", query={"fromImage": f"{registry.address}/app:1"}):
        eventually(lambda: os.path.exists(partial) and os.stat(partial).st_size == layer["size"] // 2)
    assert eventually(lambda: ended) == [b""]
    del registry.faults[path]
    pull(engine, f"{registry.address}/app:1")
    assert f"bytes={layer['size'] // 2}-" in registry.ranges


def test_a_proxy_of_the_environment(fake, monkeypatch):
    """It alone knows the registry's name; what NO_PROXY names is asked directly."""
    proxy, near = fake(), fake()
    put_image(proxy, "app", b"far", ARCHITECTURE, "1")
    put_image(near, "app", b"near", ARCHITECTURE, "1")
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    engine = RunningEngine("p", "--insecure-registry", "reg.invalid:5000")
    try:
        pull(engine, "reg.invalid:5000/app:1")
        assert ("/v2/app/manifests/1", "") in proxy.asked
        proxy.asked.clear()
        pull(engine, f"{near.address}/app:1")
        assert proxy.asked == []
    finally:
        for image in engine.client.get("/images/json"):
            engine.client.delete(f"/images/{image['Id']}", force=1)
        engine.stop()


def test_a_layer_that_is_refused_while_it_still_arrives_is_refused_for_its_own_reason(engine, fake):
    registry = fake()
    app = App(registry)
    tar = archive((entry("../escape"), b"x"), (entry("more"), os.urandom(1 << 20)))
    hostile = registry.put("app", "blobs", gzip.compress(tar), LAYER)
    app.config_data = app.config_data.replace(hashlib.sha256(app.tars[1]).hexdigest().encode(), hashlib.sha256(tar).hexdigest().encode())
    app.put(layers=[app.layers[0], hostile])

    def in_two_parts(handler) -> None:
        del registry.faults[app.blob(hostile)]
        partly(0.5, lambda: time.sleep(1))(handler)  # the worker has ended by then, and its pipe with it

    registry.faults[app.blob(hostile)] = in_two_parts
    assert "invalid tar entry '../escape': it leads out of the layer" in said(engine, registry, good_layers=1)
    assert app.blob(hostile) not in registry.faults
