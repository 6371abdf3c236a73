"""Volumes in a registry: Debian's docker-registry as the peer, skopeo as another tool that copies what was pushed."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import subprocess
import threading

import pytest

from corten.api.client import ApiError
from corten.errors import Unavailable
from corten.spec.image import OCI_MANIFEST
from tests.engines import eventually
from tests.images import entry, layer
from tests.system.conftest import need
from tests.system.test_push import in_registry
from tests.system.test_volume_extras import fill, look, names

TYPE = "application/vnd.corten.volume.v1"


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    for volume in engine.client.get("/volumes")["Volumes"]:
        engine.client.delete(f"/volumes/{volume['Name']}")
    assert os.listdir(f"{engine.data_root}/volumes") == os.listdir(f"{engine.data_root}/tmp") == []


def push(engine, name: str, reference: str) -> list[dict]:
    return list(engine.client.messages(f"/corten/volumes/{name}/push", reference=reference))


def pull(engine, name: str, reference: str) -> list[dict]:
    return list(engine.client.messages("/corten/volumes/pull", name=name, reference=reference))


def test_there_and_back(engine, registry):
    source = fill(engine, "data")
    os.setxattr(f"{source}/sub/file", "user.mark", b"yes")
    shown = push(engine, "data", f"{registry}/vol/data:1")
    digest, manifest = in_registry(registry, "vol/data", "1")
    assert shown[-1]["aux"] == {"Tag": "1", "Digest": digest, "Size": shown[-1]["aux"]["Size"]}
    assert (manifest["artifactType"], manifest["config"]["mediaType"]) == (TYPE, "application/vnd.corten.volume.config.v1+json")
    assert [layer["mediaType"] for layer in manifest["layers"]] == ["application/vnd.oci.image.layer.v1.tar+gzip"]
    made = pull(engine, "copy", f"{registry}/vol/data:1")[-1]["aux"]
    assert (made["Name"], made["Labels"]) == ("copy", {"of": "test"})
    assert look(made["Mountpoint"]) == look(source)
    assert os.getxattr(f"{made['Mountpoint']}/sub/file", "user.mark") == b"yes"
    assert any(message.get("status") == "Layer already exists" for message in push(engine, "copy", f"{registry}/vol/data:2"))
    assert pull(engine, "by-digest", f"{registry}/vol/data@{digest}")[-1]["aux"]["Name"] == "by-digest"


def test_another_tool_copies_it(engine, registry, tmp_path):
    source = fill(engine, "data")
    push(engine, "data", f"{registry}/vol/here:1")
    skopeo = [need("skopeo"), "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"]
    subprocess.run([*skopeo, f"docker://{registry}/vol/here:1", f"oci:{tmp_path}/layout:1"], check=True, capture_output=True)
    subprocess.run([*skopeo, f"oci:{tmp_path}/layout:1", f"docker://{registry}/vol/there:1"], check=True, capture_output=True)
    assert look(pull(engine, "copy", f"{registry}/vol/there:1")[-1]["aux"]["Mountpoint"]) == look(source)


@pytest.mark.parametrize(("name", "reference", "status", "text"), [
    ("new", "{}/busybox:latest", 400, "is application/vnd.docker.container.image.v1+json and not " + TYPE),
    ("new", "{}/vol/nosuch:1", 404, "manifest unknown"),
    ("taken", "{}/vol/data:1", 409, "there is a volume of that name"),
    ("../x", "{}/vol/data:1", 400, "invalid characters"),
    ("new", "vol/UPPER", 400, "must be lowercase"),
    ("", "{}/vol/data:1", 400, "name cannot be empty"),
])  # fmt: skip
def test_what_cannot_be_pulled(engine, registry, name, reference, status, text):
    engine.client.post("/volumes/create", {"Name": "taken"})
    try:
        list(engine.client.messages("/corten/volumes/pull", name=name, reference=reference.format(registry)))
    except ApiError as error:
        assert text in error.message
        assert error.http_status in (status, 500)  # in the stream there is no status
    else:
        pytest.fail("it was pulled")
    assert names(engine) == {"taken"}


def test_what_cannot_be_pushed(engine, registry):
    for name, reference, status in (("nosuch", f"{registry}/vol/x", 404), ("data", f"{registry}/vol/x@sha256:{'0' * 64}", 400)):
        if name == "data":
            fill(engine, name)
        with pytest.raises(ApiError) as caught:
            push(engine, name, reference)
        assert caught.value.http_status == status


def artifact(server, layer_data: bytes) -> str:
    """A volume artifact in the fake registry; the layer's path in its documents."""
    config = server.put("vol/x", "blobs", b'{"name":"x"}', "application/vnd.corten.volume.config.v1+json")
    content = server.put("vol/x", "blobs", layer_data, "application/vnd.oci.image.layer.v1.tar+gzip")
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": TYPE, "config": config, "layers": [content]}
    server.put("vol/x", "manifests", json.dumps(manifest).encode(), OCI_MANIFEST, "1")
    return f"/v2/vol/x/blobs/{content['digest']}"


def test_what_was_altered_makes_no_volume(engine, fake):
    server = fake()
    good, bad = layer([entry("file", b"right")]), layer([entry("file", b"wrong")])
    path = artifact(server, good)
    server.documents[path] = ("application/octet-stream", bad)
    with pytest.raises(ApiError, match="it was altered or cut off"):
        pull(engine, "bad", f"{server.address}/vol/x:1")
    assert names(engine) == set()
    server.documents[path] = ("application/octet-stream", good)
    assert os.listdir(pull(engine, "good", f"{server.address}/vol/x:1")[-1]["aux"]["Mountpoint"]) == ["file"]


def test_who_may(engine, fake):
    server = fake(token=True)
    artifact(server, layer([entry("file", b"right")]))
    query = {"name": "mine", "reference": f"{server.address}/vol/x:1"}
    for auth, good in (({}, False), ({"username": "user", "password": "wrong"}, False), ({"username": "user", "password": "right"}, True)):
        header = {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(auth).encode()).decode()}
        try:
            with engine.client.open("POST", "/corten/volumes/pull", query=query, headers=header) as response:
                assert good == (b'"aux"' in response.read())
        except ApiError as error:
            assert (good, error.http_status) == (False, 401)
    assert names(engine) == {"mine"}


def test_a_killed_engine_leaves_no_half_volume(own_engine, registry):
    path = fill(own_engine, "data")
    with open(f"{path}/big", "wb") as file:
        for _ in range(40):
            file.write(os.urandom(1 << 20))
    push(own_engine, "data", f"{registry}/vol/whole:1")

    def quietly(work, *arguments: str) -> None:
        with contextlib.suppress(ApiError, Unavailable, http.client.HTTPException, OSError):  # the engine dies under it
            work(own_engine, *arguments)

    for work, arguments in ((push, ("data", f"{registry}/vol/big:1")), (pull, ("copy", f"{registry}/vol/whole:1"))):
        thread = threading.Thread(target=quietly, args=(work, *arguments))
        thread.start()
        eventually(lambda: any(name.startswith(("packed-", "volume-copy-")) for name in os.listdir(f"{own_engine.data_root}/tmp")))
        own_engine.kill()
        thread.join()
        own_engine.start()
        assert names(own_engine) == {"data"}
        assert os.listdir(f"{own_engine.data_root}/tmp") == []
    assert look(pull(own_engine, "copy", f"{registry}/vol/whole:1")[-1]["aux"]["Mountpoint"]) == look(path)
