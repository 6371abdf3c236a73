"""The cache on its way to another engine: registry, S3, folder, image; cache mounts with it; and what was altered on the way is no hit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corten.api.client import ApiError
from tests.engines import RunningEngine, eventually
from tests.system.fake_s3 import KEY_ID, FakeS3
from tests.system.test_build_outputs import build, context, fetch, is_empty, parcels

DOCKERFILE = """
FROM busybox AS tool
RUN --mount=type=cache,target=/kept,id=kept cat /kept/id 2>/dev/null; head -c 16 /dev/urandom | md5sum > /kept/id; head -c 16 /dev/urandom > /tool
FROM busybox
COPY hello /hello
RUN head -c 16 /dev/urandom > /random
COPY --from=tool /tool /tool
"""
BODY = context(Dockerfile=DOCKERFILE, hello="hello\n")


@pytest.fixture(scope="module")
def other(assets):
    """The other machine."""
    running = RunningEngine("c")
    try:
        running.load(f"{assets}/images/busybox.tar")
        yield running
    finally:
        running.stop()


@pytest.fixture
def bucket():
    made = FakeS3()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def nothing_stays(engine, other):
    for one in (engine, other):
        forget(one)
    yield
    for one in (engine, other):
        forget(one)
        assert eventually(lambda one=one: is_empty(f"{one.data_root}/tmp"))


def forget(engine) -> None:
    for image in engine.client.get("/images/json"):
        if "busybox:latest" not in image["RepoTags"]:
            engine.client.delete(f"/images/{image['Id']}", force=1)
    engine.client.post("/build/prune", all=1)


def image_id(messages: list[dict]) -> str:
    return next(message["aux"]["ID"] for message in messages if "ID" in message.get("aux", {}))


def said(messages: list[dict]) -> str:
    return "".join(message.get("stream", "") for message in messages)


def cached(messages: list[dict]) -> int:
    return said(messages).count("Using cache")


def s3(bucket: FakeS3, **more: str) -> str:
    attributes = {"bucket": "b", "region": "r", "endpoint_url": bucket.url, "access_key_id": KEY_ID, "secret_access_key": "s", "use_path_style": "true", "prefix": "ci"}
    return ",".join(["type=s3", *(f"{key}={value}" for key, value in (attributes | more).items())])


def kept_file(engine) -> list[str]:
    return [path.read_text() for path in sorted(Path(engine.data_root, "cache-mounts").glob("*/id"))]


def test_through_a_registry(engine, other, registry):
    place = f"type=registry,ref={registry}/cache/one:main,mode=max"
    first = build(engine, BODY, t="made:1", cacheto=json.dumps([place]))
    second = build(other, BODY, t="made:1", cachefrom=json.dumps([place.removesuffix(",mode=max")]))
    assert image_id(second) == image_id(first)  # what is random would differ
    assert "Running in" not in said(second) and cached(second) == 4
    assert kept_file(other) == kept_file(engine)
    assert other.client.get("/images/made:1/json")["RootFS"] == engine.client.get("/images/made:1/json")["RootFS"]
    assert other.output("cat", "/hello", image="made:1") == (0, "hello\n")


def test_mode_min_has_the_layers_of_the_image_only(engine, other, registry):
    place = f"type=registry,ref={registry}/cache/two:main"
    build(engine, BODY, t="made:1", cacheto=json.dumps([place]))
    second = build(other, BODY, t="made:2", cachefrom=json.dumps([place]))
    assert said(second).count("Running in") == 1 and kept_file(other) != kept_file(engine)


def test_through_s3(engine, other, bucket):
    first = build(engine, BODY, cacheto=json.dumps([s3(bucket, mode="max")]))
    assert {key.split("/")[2] for key in bucket.objects} == {"blobs", "manifests"}
    second = build(other, BODY, cachefrom=json.dumps([s3(bucket)]))
    assert image_id(second) == image_id(first) and "Running in" not in said(second)
    bucket.puts.clear()
    build(engine, BODY, cacheto=json.dumps([s3(bucket, mode="max")]))
    assert bucket.puts == ["b/ci/manifests/buildcache"]  # what is there is not sent again


def test_through_a_folder(engine, other):
    messages = build(engine, BODY, cacheto=json.dumps(["type=local,dest=x,mode=max"]))
    data = fetch(engine, parcels(messages)[0])
    assert other.client.call("POST", "/corten/build/cache", body=data) == {"Steps": 4, "Mounts": 1}
    second = build(other, BODY)
    assert image_id(second) == image_id(messages) and "Running in" not in said(second)


@pytest.mark.parametrize("how", [{"cacheto": '["type=inline"]'}, {"buildargs": '{"BUILDKIT_INLINE_CACHE": "1"}'}])
def test_inline(engine, other, registry, how):
    body = context(Dockerfile="FROM busybox\nCOPY hello /hello\nRUN head -c 16 /dev/urandom > /random\n", hello="hello\n")
    name = f"{registry}/cache/inline:1"
    first = build(engine, body, [{"Type": "image", "Attrs": {"push": "true"}}], t=name, **how)
    with other.client.open("POST", "/images/create", query={"fromImage": name}) as response:
        response.read()
    second = build(other, body, t="made:3", cachefrom=json.dumps([name]))
    assert image_id(second) == image_id(first) and "Running in" not in said(second)
    assert "[Warning]" not in said(build(other, body, t="made:3", cachefrom='["nosuch/image"]'))


def test_what_was_altered_is_carried_out(engine, other, bucket):
    build(engine, BODY, cacheto=json.dumps([s3(bucket, mode="max")]))
    blobs = {key: data for key, data in bucket.objects.items() if "/blobs/" in key}
    manifest = json.loads(bucket.objects["b/ci/manifests/buildcache"])
    steps = manifest["layers"][0]["digest"].partition(":")[2]
    for key, data in blobs.items():
        if not key.endswith(steps):
            bucket.objects[key] = data[:-1] + bytes([data[-1] ^ 1])
    second = build(other, BODY, cachefrom=json.dumps([s3(bucket)]))
    assert said(second).count("Running in") == 2
    bucket.objects[f"b/ci/blobs/sha256/{steps}"] = b"else"
    third = build(other, BODY, nocache=1, cachefrom=json.dumps([s3(bucket)]))
    assert "[Warning] no cache from bucket b: the build cache's list of steps" in said(third)


def test_places_that_do_not_serve(engine, bucket, registry):
    missing = build(engine, BODY, cachefrom=json.dumps([f"type=registry,ref={registry}/cache/nosuch", s3(bucket), f"type=registry,ref={registry}/busybox"]))
    assert said(missing).count("[Warning] no cache from") == 3
    with pytest.raises(AssertionError, match="refuses these credentials"):
        build(engine, BODY, cacheto=json.dumps([s3(bucket, access_key_id="OTHER")]))
    ignored = build(engine, BODY, cacheto=json.dumps([s3(bucket, access_key_id="OTHER", **{"ignore-error": "true"})]))
    assert "[Warning] the cache is not exported to bucket b" in said(ignored)


@pytest.mark.parametrize("query", [{"cacheto": '["type=gha"]'}, {"cacheto": '["type=registry"]'}, {"cachefrom": '["type=local,src=x"]'}, {"cacheto": '["type=s3,bucket=b,colour=red"]'}])
def test_refused(engine, query):
    with pytest.raises(ApiError) as refused:
        build(engine, BODY, **query)
    assert refused.value.http_status in (400, 501)


@pytest.mark.parametrize("data", [b"", b"no tar", context(**{"index.json": "{}"}), context(**{"index.json": '{"manifests":[]}'})])
def test_archives_that_are_none(engine, data):
    with pytest.raises(ApiError) as refused:
        engine.client.call("POST", "/corten/build/cache", body=data)
    assert refused.value.http_status == 400
