"""More of registries that lie: configs, sizes, JSON that is none, redirects to odd places, whole lists of tags, pushes that go wrong.

As in test_bad_registry.py: every refusal names image and registry, nothing visible stays, and what was good is kept.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
from collections.abc import Callable

import pytest

from corten.api.client import ApiError
from corten.registry import retry
from tests.engines import RunningEngine, eventually
from tests.system.fake_registry import FakeRegistry
from tests.system.test_bad_registry import (
    ARCHITECTURE,
    HTML,
    INDEX,
    JSON,
    LOGIN,
    MANIFEST,
    OCI,
    App,
    fetched,
    nothing_stays,
    partly,
    put_index,
    said,
)
from tests.system.test_pull import pull, put_image
from tests.system.test_push import push

__all__ = ["nothing_stays"]  # a fixture that works by being here
DEEP = b'{"schemaVersion":2,"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}"


def config_path(app: App) -> str:
    return app.blob(json.loads(app.manifest)["config"])


def spoil_config(app: App, data: bytes) -> None:
    app.registry.documents[config_path(app)] = (OCI + "config.v1+json", data)


# --- configs
def another_config(app: App) -> str:
    spoil_config(app, app.config_data.replace(b'"/file"', b'"/evil"'))
    return "it was altered or cut off on its way"


def longer_config(app: App) -> str:
    spoil_config(app, app.config_data + b" ")
    return f"is longer than the {len(app.config_data)} bytes that its manifest says"


def shorter_config(app: App) -> str:
    spoil_config(app, app.config_data[:-1])
    return f"ends after {len(app.config_data) - 1} of the {len(app.config_data)} bytes that its manifest says"


def missing_config(app: App) -> str:
    del app.registry.documents[config_path(app)]
    return "is missing from"


def deep_config(app: App) -> str:
    app.config_data = DEEP
    app.put()
    return "invalid image config: JSON is nested too deep"


def config_of_another_character_set(app: App) -> str:
    app.config_data = app.config_data.replace(b"/file", b"/fil\xe9")
    app.put()
    return "invalid image config: JSON is not UTF-8"


# --- manifests
def deep_manifest(app: App) -> str:
    app.registry.documents["/v2/app/manifests/1"] = (MANIFEST, DEEP)
    return "invalid manifest: JSON is nested too deep"


def cut_off_manifest(app: App) -> str:
    app.registry.documents["/v2/app/manifests/1"] = (MANIFEST, app.manifest[:-20])
    return "invalid manifest: Input data was truncated"


def packed_manifest(app: App) -> str:
    """Packed though nobody asked for that: 4 KiB that would be 4 MiB and more are not unpacked, and are no manifest."""
    bomb = gzip.compress(app.manifest + b" " * (5 << 20))
    app.registry.faults["/v2/app/manifests/1"] = lambda handler: handler.answer(200, MANIFEST, bomb, {"Content-Encoding": "gzip"})
    return "invalid manifest: JSON is malformed"


def member_of_another_size(app: App) -> str:
    row = app.registry.put("app", "manifests", app.manifest, MANIFEST)
    put_index(app, row["digest"], row["size"] + 1)
    return f"manifest {row['digest']} has {row['size']} bytes, and the index says {row['size'] + 1}"


def another_member(app: App) -> str:
    row = app.registry.put("app", "manifests", app.manifest, MANIFEST)
    put_index(app, row["digest"], row["size"])
    app.registry.documents[f"/v2/app/manifests/{row['digest']}"] = (MANIFEST, app.manifest + b" ")
    return f"manifest verification failed for digest {row['digest']}"


def layer_of_an_exbibyte(app: App) -> str:
    app.put(layers=[app.layers[0], app.layers[1] | {"size": 1 << 60}])
    return f"of the {1 << 60} bytes that its manifest says"


def size_beyond_64_bits(app: App) -> str:
    app.put(layers=[app.layers[0], app.layers[1] | {"size": 1 << 80}])
    return "want a sha256 digest and a size that can be"


def to_a_file(app: App) -> str:
    app.registry.faults["/v2/app/manifests/1"] = lambda handler: handler.answer(307, JSON, b"", {"Location": "file:///etc/passwd"})
    return "it leads nowhere: NonHttpUrlRedirectClientError"


def to_no_address(app: App) -> str:
    app.registry.faults["/v2/app/manifests/1"] = lambda handler: handler.answer(307, JSON, b"", {"Location": "http://[::1"})
    return "it leads nowhere: InvalidUrlRedirectClientError"


def teapot(app: App) -> str:
    app.registry.faults["/v2/app/manifests/1"] = lambda handler: handler.answer(418, "text/html", HTML)
    return "received unexpected HTTP status: 418"


FAULTS = (another_config, longer_config, shorter_config, missing_config, deep_config, config_of_another_character_set, deep_manifest, cut_off_manifest,
          packed_manifest, member_of_another_size, another_member, size_beyond_64_bits, to_a_file, to_no_address, teapot)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_document_is_refused_for_its_own_reason_and_no_layer_is_fetched(engine, fake, fault: Callable[[App], str]):
    registry = fake()
    app = App(registry, fault.__name__.encode())
    reason = fault(app)
    text = said(engine, registry)
    assert text.startswith(f"{registry.address}/app:1 from {registry.address}: ")
    assert reason in text
    assert not any(app.blob(layer) == path for layer in app.layers for path, _ in registry.asked)


def test_a_layer_said_to_be_larger_than_any_disk_is_no_reason_to_make_room(engine, fake):
    registry = fake()
    reason = layer_of_an_exbibyte(App(registry))
    text = said(engine, registry, good_layers=1)
    assert text.startswith(f"{registry.address}/app:1 from {registry.address}: ")
    assert reason in text


# --- before the manifest: the registry itself, its tokens, its tags
def test_what_goes_wrong_before_the_manifest_names_the_image_too(engine, fake):
    registry = fake(token=True)
    app = App(registry)
    name = f"{registry.address}/app:1 from {registry.address}: "
    registry.faults["/token"] = lambda handler: handler.answer(200, JSON, DEEP)
    with pytest.raises(ApiError) as refused:
        pull(engine, f"{registry.address}/app:1", LOGIN)
    assert refused.value.message.startswith(name)
    assert "did not answer with a token: JSON is nested too deep" in refused.value.message
    for challenge in ('Bearer realm="file:///etc/passwd"', 'Bearer realm="http://[::1"', 'Bearer realm=""', "Bearer"):
        registry.faults["/v2/"] = lambda handler, challenge=challenge: handler.answer(401, JSON, b"{}", {"WWW-Authenticate": challenge})
        assert said(engine, registry).startswith(name), challenge
    assert all(app.blob(layer) != path for layer in app.layers for path, _ in registry.asked)


@pytest.mark.parametrize(("answer", "told"), [
    (lambda handler: handler.answer(200, "text/html", HTML), "list of tags cannot be read"),
    (lambda handler: handler.answer(200, JSON, DEEP), "list of tags cannot be read: JSON is nested too deep"),
    (lambda handler: handler.answer(200, JSON, b" " * (5 << 20)), "the list of tags is larger than 4 MiB"),
    (lambda handler: handler.answer(418, JSON, b"{}"), "received unexpected HTTP status: 418"),
], ids=["page", "deep", "large", "status"])  # fmt: skip
def test_a_list_of_tags_that_is_none(engine, fake, answer, told):
    registry = fake()
    App(registry)
    registry.faults["/v2/app/tags/list"] = answer
    with pytest.raises(ApiError) as refused:
        with engine.client.open("POST", "/images/create", query={"fromImage": f"{registry.address}/app", "tag": ""}) as response:
            for line in response:
                if b'"error"' in line:
                    raise ApiError(500, json.loads(line)["error"])
    assert refused.value.message.startswith(f"{registry.address}/app from {registry.address}: ")
    assert told in refused.value.message


def test_platforms_that_an_index_leaves_open_are_left_out(engine, fake):
    registry = fake()
    row = put_image(registry, "app", b"x", ARCHITECTURE)
    rows = [row | {"platform": None}, row, row | {"platform": {"architecture": ARCHITECTURE, "os": "linux"}}]
    registry.put("app", "manifests", json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": rows}).encode(), INDEX, "1")
    found = engine.client.get(f"/distribution/{registry.address}/app:1/json")
    assert found["Platforms"] == [{"architecture": ARCHITECTURE, "os": "linux"}]


# --- credentials
def test_a_password_does_not_follow_to_another_host(engine, fake):
    """Basic authentication, for a manifest, a blob, and the list of tags."""
    registry, elsewhere = fake(), fake()
    put_image(elsewhere, "app", b"x", ARCHITECTURE, "1")
    basic = {"WWW-Authenticate": 'Basic realm="x"'}
    registry.faults["/v2/"] = lambda handler: handler.answer(401, JSON, b"{}", basic)
    for path in [*elsewhere.documents, "/v2/app/tags/list"]:
        registry.faults[path] = lambda handler, path=path: handler.answer(307, JSON, b"", {"Location": f"http://{elsewhere.address}{path}"})
    pull(engine, f"{registry.address}/app:1", LOGIN)
    mine = {path: authorization for path, authorization in registry.asked if path != "/v2/"}
    assert len(mine) == 3
    assert set(mine.values()) == {"Basic " + base64.b64encode(b"user:right").decode()}
    assert len(elsewhere.asked) == 3
    assert {authorization for _, authorization in elsewhere.asked} == {""}


def test_a_login_sends_an_identity_token_to_the_service_alone(engine, fake):
    registry, elsewhere = fake(token=True), fake()
    registry.faults["/token"] = lambda handler: handler.answer(307, JSON, b"", {"Location": f"http://{elsewhere.address}/token"})
    login = {"serveraddress": f"http://{registry.address}/v2/", "username": "user"}
    for secret in ({"identitytoken": "identity"}, {"password": "right"}):
        with pytest.raises(ApiError):
            engine.client.post("/auth", login | secret)
    assert elsewhere.forms == []
    assert [authorization for _, authorization in elsewhere.asked if authorization] == []


@pytest.mark.parametrize(("body", "told"), [(DEEP, "nested too deep"), (b" " * (2 << 20), "larger than 1 MiB"), (HTML, "malformed")], ids=["deep", "large", "page"])
def test_a_token_service_that_gives_none_at_login(engine, fake, body, told):
    registry = fake(token=True)
    registry.faults["/token"] = lambda handler: handler.answer(200, JSON, body)
    with pytest.raises(ApiError, match=told) as refused:
        engine.client.post("/auth", {"serveraddress": f"http://{registry.address}/v2/", "username": "user", "password": "right"})
    assert f"http://{registry.address}/token" in refused.value.message


# --- mirrors
@pytest.fixture
def mirrored(fake, tmp_path):
    """(engine, mirror, registry): the mirror is asked first for everything."""
    mirror, origin = fake(), fake()
    (tmp_path / "daemon.json").write_text(json.dumps({"corten.mirrors": {"*": [f"http://{mirror.address}"]}}))
    engine = RunningEngine("m", "--config-file", str(tmp_path / "daemon.json"))
    try:
        yield engine, mirror, origin
    finally:
        for image in engine.client.get("/images/json"):
            engine.client.delete(f"/images/{image['Id']}", force=1)
        engine.stop()


@pytest.mark.parametrize("lie", [b"", b"x", None, HTML], ids=["nothing", "longer", "other", "page"])
def test_a_mirror_that_lies_about_a_layer_is_passed_over(mirrored, lie):
    engine, mirror, origin = mirrored
    app = App(origin)
    mirror.documents = dict(origin.documents)
    path = app.blob(app.layers[1])
    good = origin.documents[path][1]
    spoilt = {b"": b"", b"x": good + b"x", None: good[:-1] + bytes([good[-1] ^ 1])}.get(lie, lie)
    kept = f"{engine.data_root}/blobs/sha256/{app.layers[0]['digest'][7:]}"

    def when_the_first_is_kept(handler) -> None:
        eventually(lambda: os.path.exists(kept))
        handler.answer(200, OCI + "layer.v1.tar+gzip", spoilt)

    mirror.faults[path] = when_the_first_is_kept
    pull(engine, f"{origin.address}/app:1")
    assert engine.client.get(f"/images/{origin.address}/app:1/json")["RootFS"]["Layers"]
    asked = {path for path, _ in origin.asked}
    assert path in asked
    assert app.blob(app.layers[0]) not in asked, "the good layer of the mirror was fetched again"


@pytest.mark.parametrize("lie", [HTML, DEEP, b" " * (5 << 20)], ids=["page", "deep", "large"])
def test_a_mirror_that_lies_about_a_manifest_is_passed_over(mirrored, lie):
    engine, mirror, origin = mirrored
    App(origin)
    mirror.documents["/v2/app/manifests/1"] = (MANIFEST, lie)
    pull(engine, f"{origin.address}/app:1")
    assert ("/v2/app/manifests/1", "") in origin.asked


# --- resuming at registries that do it in their own way
def test_a_registry_that_knows_no_ranges_sends_all_again_and_nothing_is_doubled(fake, monkeypatch):
    monkeypatch.setattr(retry, "pause", lambda *_: 0.01)
    registry, data = fake(), os.urandom(50_000)
    row = registry.put("app", "blobs", data, OCI + "layer.v1.tar+gzip")
    path = f"/v2/app/blobs/{row['digest']}"

    def all_of_it(handler) -> None:
        handler.answer(200, *registry.documents[path])

    registry.faults[path] = partly(0.3, lambda: registry.faults.update({path: all_of_it}))
    assert fetched(registry, row["digest"]) == data
    assert registry.ranges[-2:] == ["", "bytes=15000-"]


# --- pushes
@contextlib.contextmanager
def tagged(engine, name: str):
    """Busybox under one more name."""
    engine.client.post("/images/busybox/tag", repo=name, tag="1")
    try:
        yield
    finally:
        engine.client.delete(f"/images/{name}:1")


def upload_page(registry: FakeRegistry) -> str:
    registry.faults["/v2/app/blobs/uploads/"] = lambda handler: handler.answer(200, "text/html", HTML)
    return "received unexpected HTTP status: 200"


def upload_nowhere(registry: FakeRegistry) -> str:
    registry.faults["/v2/app/blobs/uploads/"] = lambda handler: handler.answer(202, JSON, b"")
    return "the registry does not say where the upload goes on"


def upload_denied(registry: FakeRegistry) -> str:
    registry.faults["/v2/app/blobs/uploads/"] = lambda handler: handler.answer(403, JSON, b"{}")
    return "denied: requested access to the resource is denied"


def upload_too_large(registry: FakeRegistry) -> str:
    body = json.dumps({"errors": [{"code": "SIZE_INVALID", "message": "too much"}]}).encode()
    registry.faults["/v2/app/blobs/uploads/"] = lambda handler: handler.answer(413, JSON, body)
    return "413 Request Entity Too Large"


@pytest.mark.parametrize("fault", [upload_page, upload_nowhere, upload_denied, upload_too_large], ids=lambda fault: fault.__name__)
def test_a_push_that_is_refused_says_why_and_no_manifest_is_written(engine, fake, fault):
    registry = fake()
    reason = fault(registry)
    name = f"{registry.address}/app"
    with tagged(engine, name):
        last = push(engine, name, tag="1")[-1]
    assert reason in last["error"]
    assert "/v2/app/manifests/1" not in registry.documents
    assert not any(digest.startswith(name) for digest in engine.client.get("/images/busybox/json")["RepoDigests"])


def test_a_client_that_leaves_ends_the_push(engine, fake):
    registry, waiting, ended = fake(), [], []

    def until_it_is_let_go(handler) -> None:
        waiting.append(handler)
        handler.connection.settimeout(20)
        ended.append(handler.connection.recv(1))  # b"": the engine has closed its end
        handler.close_connection = True

    registry.faults["/v2/app/blobs/uploads/"] = until_it_is_let_go
    with tagged(engine, f"{registry.address}/app"), engine.client.open("POST", f"/images/{registry.address}/app/push", query={"tag": "1"}, headers={"X-Registry-Auth": "e30="}):
        eventually(lambda: waiting)
    assert b"" in eventually(lambda: ended)
    assert "/v2/app/manifests/1" not in registry.documents
