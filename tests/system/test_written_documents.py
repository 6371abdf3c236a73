"""Everything that a build, a push, a cache or a volume writes to a registry or into an archive is as the OCI image-spec 1.1 has it.

Every manifest and index is held to the schema of its media type, and everything that it names is there, with its digest and size.
Images that were loaded, committed, imported and pulled are test_round_trips.py's.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from corten.spec.digest import digest_of
from tests import image_spec
from tests.system.fake_registry import FakeRegistry
from tests.system.test_build_outputs import build, context, fetch, parcels
from tests.system.test_image_archives import members
from tests.system.test_push import push
from tests.system.test_volume_extras import fill

OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker.distribution."
SCHEMAS = {
    OCI + "index.v1+json": image_spec.INDEX, OCI + "manifest.v1+json": image_spec.MANIFEST,
    DOCKER + "manifest.list.v2+json": image_spec.INDEX, DOCKER + "manifest.v2+json": image_spec.MANIFEST,
}  # fmt: skip
CONFIGS = {OCI + "config.v1+json", "application/vnd.docker.container.image.v1+json"}
DOCKERFILE = """
FROM busybox
ARG TARGETARCH
RUN --mount=type=cache,target=/kept echo kept > /kept/file
COPY hello /hello-$TARGETARCH
LABEL a=b
"""
BODY = context(Dockerfile=DOCKERFILE, hello="hello\n")
SCRATCH = context(Dockerfile="FROM scratch\nARG TARGETARCH\nCOPY hello /hello-$TARGETARCH\n", hello="x")
ATTEST = json.dumps({"Sbom": True, "Provenance": "max"})
Find = Callable[[str], bytes]


def check(media_type: str, data: bytes, find: Find) -> list[str]:
    """A manifest or an index, and everything below it; the media types of the manifests met, this one first."""
    document = json.loads(data)
    image_spec.check(SCHEMAS[media_type], document)
    assert document["mediaType"] == media_type
    met = [media_type]
    if "manifests" in document:
        for row in document["manifests"]:
            met += check(row["mediaType"], there(row, find), find)
        return met
    for row in document["layers"]:
        there(row, find)
    config = there(document["config"], find)
    if document["config"]["mediaType"] in CONFIGS:
        image_spec.check(image_spec.CONFIG, json.loads(config))
        assert len(json.loads(config)["rootfs"]["diff_ids"]) == len(document["layers"])
    else:
        assert document["artifactType"] or document["config"]["mediaType"] != OCI.replace("image.", "") + "empty.v1+json"
    return met


def there(row: dict, find: Find) -> bytes:
    data = find(row["digest"])
    assert (digest_of(data), len(data)) == (row["digest"], row["size"])
    return data


def in_registry(registry: FakeRegistry, repository: str, tag: str) -> list[str]:
    """Checks what is there under a tag."""
    base = f"/v2/{repository}"

    def find(digest: str) -> bytes:
        return next(registry.documents[path] for path in (f"{base}/manifests/{digest}", f"{base}/blobs/{digest}") if path in registry.documents)[1]

    for path, (kind, data) in registry.documents.items():
        if path.startswith(f"{base}/manifests/"):
            assert json.loads(data)["mediaType"] == kind, "sent under another type than it says"
    return check(*registry.documents[f"{base}/manifests/{tag}"], find)


def in_archive(data: bytes) -> list[str]:
    """Checks an OCI layout in a tar; everything in it is named by something."""
    files = members(data)
    image_spec.check(image_spec.LAYOUT, json.loads(files["oci-layout"]))
    found: set[str] = set()

    def find(digest: str) -> bytes:
        found.add(f"blobs/sha256/{digest.removeprefix('sha256:')}")
        return files[f"blobs/sha256/{digest.removeprefix('sha256:')}"]

    met = check(OCI + "index.v1+json", files["index.json"], find)
    assert {name for name in files if name.startswith("blobs/")} == found
    return met


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    for image in engine.client.get("/images/json"):
        if "busybox:latest" not in image["RepoTags"]:
            engine.client.delete(f"/images/{image['Id']}", force=1)
    engine.client.post("/build/prune", all=1)


INDEX, MANIFEST = OCI + "index.v1+json", OCI + "manifest.v1+json"
LIST, DOCKERS = DOCKER + "manifest.list.v2+json", DOCKER + "manifest.v2+json"


@pytest.mark.parametrize(("body", "attributes", "query", "kinds"), [
    (BODY, {}, {}, [MANIFEST]),
    (BODY, {"annotation.org.opencontainers.image.title": "x"}, {}, [MANIFEST]),
    (BODY, {}, {"attest": ATTEST}, [INDEX, MANIFEST, MANIFEST]),
    (BODY, {"oci-mediatypes": "false"}, {}, [DOCKERS]),
    (SCRATCH, {}, {"platform": "linux/amd64,linux/arm64"}, [INDEX, MANIFEST, MANIFEST]),
    (SCRATCH, {"annotation-index.a": "b"}, {"platform": "linux/amd64,linux/arm64", "attest": ATTEST}, [INDEX, *[MANIFEST] * 4]),
    (SCRATCH, {"oci-mediatypes": "false"}, {"platform": "linux/amd64,linux/arm64"}, [LIST, DOCKERS, DOCKERS]),
    (BODY, {}, {"cacheto": '["type=inline"]'}, [MANIFEST]),
], ids=["one", "annotated", "attested", "Docker's types", "platforms", "platforms attested", "Docker's list", "inline cache"])  # fmt: skip
def test_what_a_build_pushes(engine, fake, body, attributes, query, kinds):
    registry = fake()
    build(engine, body, [{"Type": "registry", "Attrs": attributes}], t=f"{registry.address}/made:1", **query)
    assert in_registry(registry, "made", "1") == kinds


@pytest.mark.parametrize(("query", "kinds"), [
    ({}, [MANIFEST]), ({"attest": ATTEST}, [INDEX, MANIFEST, MANIFEST]), ({"platform": "linux/amd64,linux/arm64"}, [INDEX, MANIFEST, MANIFEST]),
], ids=["one", "attested", "platforms"])  # fmt: skip
def test_what_a_build_puts_into_an_archive(engine, query, kinds):
    data = fetch(engine, parcels(build(engine, SCRATCH, [{"Type": "oci"}], t="made:1", **query))[0])
    assert in_archive(data) == [INDEX, *kinds]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_cache_in_a_registry_and_in_a_folder(engine, fake, mode):
    registry = fake()
    messages = build(engine, BODY, t="made:1", cacheto=json.dumps([f"type=registry,ref={registry.address}/cache:1,mode={mode}", f"type=local,dest=x,mode={mode}"]))
    assert in_registry(registry, "cache", "1") == [MANIFEST]
    assert in_archive(fetch(engine, parcels(messages)[0])) == [INDEX, MANIFEST]


def test_what_a_push_sends_of_what_was_built(engine, fake):
    registry = fake()
    build(engine, SCRATCH, t=f"{registry.address}/many:1", platform="linux/amd64,linux/arm64")
    build(engine, BODY, t=f"{registry.address}/one:1")
    for name, kinds in (("many", [INDEX, MANIFEST, MANIFEST]), ("one", [MANIFEST])):
        assert "aux" in push(engine, f"{registry.address}/{name}", tag="1")[-1]
        assert in_registry(registry, name, "1") == kinds


def test_what_save_writes_of_several_platforms(engine):
    build(engine, SCRATCH, t="many:1", platform="linux/amd64,linux/arm64")
    with engine.client.open("GET", "/images/many:1/get") as response:
        assert sorted(in_archive(response.read())) == sorted([INDEX, INDEX, MANIFEST, MANIFEST])


def test_a_volume_in_a_registry(engine, fake):
    registry = fake()
    fill(engine, "data")
    try:
        assert "aux" in list(engine.client.messages("/corten/volumes/data/push", reference=f"{registry.address}/data:1"))[-1]
    finally:
        engine.client.delete("/volumes/data")
    assert in_registry(registry, "data", "1") == [MANIFEST]


def test_the_checks_can_fail():
    config, layer = json.dumps({"architecture": "a", "os": "b", "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}).encode(), b"layer"
    blobs = {digest_of(data): data for data in (config, layer)}
    rows = [{"mediaType": kind, "digest": digest_of(data), "size": len(data)} for kind, data in ((OCI + "config.v1+json", config), (OCI + "layer.v1.tar", layer))]
    good = {"schemaVersion": 2, "mediaType": MANIFEST, "config": rows[0], "layers": [rows[1]]}
    assert check(MANIFEST, json.dumps(good).encode(), blobs.__getitem__) == [MANIFEST]
    for bad in (good | {"mediaType": INDEX}, good | {"layers": []}, good | {"layers": [rows[1]] * 2}, good | {"layers": [rows[1] | {"size": 1}]},
                good | {"config": rows[1] | {"mediaType": OCI + "config.v1+json"}}):  # fmt: skip
        with pytest.raises((AssertionError, ValueError)):
            check(MANIFEST, json.dumps(bad).encode(), blobs.__getitem__)
