"""What a build gives: archives that skopeo and the engine itself read, file trees, pushes; fetched once and gone after it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile

import pytest

from corten.api.client import ApiError
from tests.engines import eventually
from tests.system.conftest import need
from tests.system.test_push import in_registry

DOCKERFILE = """
FROM busybox AS maker
RUN mkdir -p /made && echo made > /made/file && ln -s file /made/link && rm /bin/wget
FROM scratch AS small
COPY --from=maker /made /out/
LABEL kind=small
FROM maker
COPY hello /hello
CMD ["cat", "/hello"]
"""


def context(**files: str) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, text in files.items():
            item = tarfile.TarInfo(name)
            item.size = len(text.encode())
            archive.addfile(item, io.BytesIO(text.encode()))
    return output.getvalue()


def build(engine, body: bytes | None = None, outputs: list[dict] | None = None, **query: object) -> list[dict]:
    """The messages of a build that succeeds."""
    query |= {"outputs": json.dumps(outputs)} if outputs else {}
    body = body or context(Dockerfile=DOCKERFILE, hello="hello\n")
    with engine.client.open("POST", "/build", query=query, body=body, headers={"Content-Type": "application/x-tar", "X-Registry-Config": "e30="}) as response:
        messages = [json.loads(line) for line in response if line.strip()]
    assert not [message for message in messages if "error" in message], messages
    return messages


def parcels(messages: list[dict]) -> list[dict]:
    return [message["aux"]["corten.output"] for message in messages if "corten.output" in message.get("aux", {})]


def fetch(engine, parcel: dict) -> bytes:
    with engine.client.open("GET", f"/corten/build/outputs/{parcel['ID']}") as response:
        return response.read()


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {item.name: item for item in archive}


def content(data: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.extractfile(name).read()


def skopeo_inspect(where: str, *options: str) -> dict:
    done = subprocess.run([need("skopeo"), "inspect", *options, where], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def is_empty(folder: str) -> bool:
    return not [name for name in os.listdir(folder) if name.startswith(("output-", "context-", "cache-", "mount-"))]


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    assert eventually(lambda: is_empty(f"{engine.data_root}/tmp"))
    for image in engine.client.get("/images/json"):
        if "busybox:latest" not in image["RepoTags"]:
            engine.client.delete(f"/images/{image['Id']}", force=1)


def test_an_oci_archive_is_read_by_skopeo(engine, tmp_path):
    first = parcels(build(engine, outputs=[{"Type": "oci"}], t="box:1"))[0]
    data = fetch(engine, first)
    (tmp_path / "a.tar").write_bytes(data)
    shown = skopeo_inspect(f"oci-archive:{tmp_path}/a.tar:1", "--config")
    assert shown["config"]["Cmd"] == ["cat", "/hello"]
    manifest = skopeo_inspect(f"oci-archive:{tmp_path}/a.tar:1", "--raw")
    assert [layer["mediaType"] for layer in manifest["layers"]][-1] == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert [image for image in engine.client.get("/images/json") if image["RepoTags"] == ["box:1"]] == []
    again = parcels(build(engine, outputs=[{"Type": "oci"}], t="box:1"))[0]
    assert fetch(engine, again) == data


def test_a_parcel_is_there_once(engine):
    parcel = parcels(build(engine, outputs=[{"Type": "tar"}], target="small"))[0]
    fetch(engine, parcel)
    with pytest.raises(ApiError, match="no such output") as refused:
        fetch(engine, parcel)
    assert refused.value.http_status == 404


@pytest.mark.parametrize("output", [{"Type": "docker"}, {"Type": "oci"}, {"Type": "oci", "Attrs": {"compression": "uncompressed"}}])
def test_what_is_loaded_is_what_was_built(engine, docker_cli, tmp_path, output):
    kept = build(engine, t="box:kept")
    image_id = next(message["aux"]["ID"] for message in kept if "ID" in message.get("aux", {}))
    engine.client.delete("/images/box:kept", force=1)
    data = fetch(engine, parcels(build(engine, outputs=[output], t="box:2"))[0])
    (tmp_path / "image.tar").write_bytes(data)
    assert "box:2" in engine.docker(docker_cli, "load", "-i", f"{tmp_path}/image.tar").stdout
    assert engine.client.get("/images/box:2/json")["Id"] == image_id
    assert engine.output(image="box:2") == (0, "hello\n")


def test_a_tree(engine):
    data = fetch(engine, parcels(build(engine, outputs=[{"Type": "local", "Attrs": {"dest": "x"}}], target="small"))[0])
    found = members(data)
    assert sorted(found) == ["out", "out/file", "out/link"]
    assert found["out/link"].linkname == "file"
    assert content(data, "out/file") == b"made\n"
    merged = members(fetch(engine, parcels(build(engine, outputs=[{"Type": "tar"}]))[0]))
    assert "bin/sh" in merged and "bin/wget" not in merged and not any(".wh." in name for name in merged)


def test_a_tree_waits_even_if_its_image_goes(engine):
    parcel = parcels(build(engine, outputs=[{"Type": "image", "Attrs": {"name": "box:gone"}}, {"Type": "tar"}], target="small"))[0]
    engine.client.delete("/images/box:gone", force=1)
    engine.client.post("/build/prune", all=1)
    assert "out/file" in members(fetch(engine, parcel))


def test_pushed_without_being_kept(engine, registry):
    name = f"{registry}/results/box:5"
    messages = build(engine, outputs=[{"Type": "registry"}], t=name)
    pushed = next(message["aux"] for message in messages if "Tag" in message.get("aux", {}))
    digest, manifest = in_registry(registry, "results/box", "5")
    assert pushed["Digest"] == digest
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    with pytest.raises(ApiError, match="such image"):
        engine.client.get(f"/images/{name}/json")


def test_several_platforms_in_one_index(engine, registry, tmp_path):
    body = context(Dockerfile="FROM scratch\nARG TARGETARCH\nCOPY hello /hello-$TARGETARCH\n", hello="x")
    outputs = [
        {"Type": "registry", "Attrs": {"name": f"{registry}/results/many", "annotation-index.org.opencontainers.image.title": "many"}},
        {"Type": "oci"},
        {"Type": "tar"},
    ]
    messages = build(engine, body, outputs, platform="linux/amd64,linux/arm64")
    oci, tree = parcels(messages)
    assert {"linux_amd64/hello-amd64", "linux_arm64/hello-arm64"} <= set(members(fetch(engine, tree)))
    index = skopeo_inspect(f"docker://{registry}/results/many:latest", "--raw", "--tls-verify=false")
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
    assert index["annotations"] == {"org.opencontainers.image.title": "many"}
    (tmp_path / "a.tar").write_bytes(fetch(engine, oci))
    for architecture in ("amd64", "arm64"):
        options = ["--override-arch", architecture]
        done = subprocess.run([need("skopeo"), *options, "inspect", "--config", f"oci-archive:{tmp_path}/a.tar"], capture_output=True, check=True)
        assert json.loads(done.stdout)["architecture"] == architecture


@pytest.mark.parametrize(
    "outputs, text",
    [
        ([{"Type": "cloud"}], "unsupported output type 'cloud'"),
        ([{"Type": "oci", "Attrs": {"compresion": "gzip"}}], "has no attribute 'compresion'"),
        ([{"Type": "oci", "Attrs": {"compression": "estargz"}}], "compression=estargz"),
        ([{"Type": "registry", "Attrs": {"name": "UPPER"}}], "must be lowercase"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_built(engine, outputs, text):
    with pytest.raises(ApiError, match=text) as refused:
        build(engine, outputs=outputs)
    assert refused.value.http_status in (400, 501)


def test_several_platforms_under_one_name(engine, registry):
    name = f"{registry}/results/kept:1"
    body = context(Dockerfile="FROM scratch\nARG TARGETARCH\nCOPY hello /hello-$TARGETARCH\n", hello="x")
    build(engine, body, t=name, platform="linux/amd64,linux/arm64")
    assert engine.client.get(f"/images/{name}/json")["Architecture"] == "amd64"
    with engine.client.open("POST", f"/images/{name.rpartition(':')[0]}/push", query={"tag": "1"}, headers={"X-Registry-Auth": "e30="}) as response:
        assert "error" not in response.read().decode()
    index = skopeo_inspect(f"docker://{name}", "--raw", "--tls-verify=false")
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
