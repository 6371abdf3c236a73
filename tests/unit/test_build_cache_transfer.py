"""The travelling cache: flags, documents written and read, what is refused of them, steps brought in and verified. No engine."""

from __future__ import annotations

import asyncio
import json

import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from corten.builder.cache_transfer import documents
from corten.builder.cache_transfer.s3_place import S3Place
from corten.builder.ingredients import key_of
from corten.errors import ArchiveRefused, CortenError, NotFound
from corten.spec.build_cache import CachePlace, S3Bucket, parse_cache_from, parse_cache_to
from corten.spec.digest import digest_of
from corten.spec.image import Descriptor

DIFF = "sha256:" + "1" * 64
INPUTS = [("command", '["sh"]'), ("base", "scratch")]
STEP = documents.CachedStep(key_of(INPUTS), "RUN sh", "Dockerfile:", DIFF, [], 10, 3, INPUTS)
BLOB = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", "sha256:" + "2" * 64, 7)
MOUNT = Descriptor(documents.MOUNT, "sha256:" + "3" * 64, 9, annotations={documents.MOUNT_NAME: "0" * 32, documents.MOUNT_OWNER: "0:0:755"})


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("type=inline", CachePlace("inline")),
        ("host/repo:tag", CachePlace("registry", "host/repo:tag")),
        ("type=registry,ref=a/b,mode=max", CachePlace("registry", "a/b", all_steps=True, mounts=True)),
        ("type=local,dest=x,mounts=true", CachePlace("local", mounts=True)),
        ("type=s3,bucket=b,prefix=/a/b/,name=n,ignore-error=true", CachePlace("s3", bucket=S3Bucket("b", prefix="a/b/", name="n"), ignore_errors=True)),
    ],
)
def test_cache_to(text, wanted):
    assert parse_cache_to(text) == wanted


def test_cache_from():
    assert parse_cache_from("box:1") == CachePlace("inline", "box:1")
    assert parse_cache_from("type=registry,ref=a") == CachePlace("registry", "a")
    assert parse_cache_from("type=s3,bucket=b,use_path_style=true").bucket.path_style


@pytest.mark.parametrize("text", ["type=gha", "type=registry", "type=registry,ref=a,mode=mid", "type=s3", "type=inline,mode=max", "type=local,what=x", "type=s3,bucket=b,use_path_style=x"])
def test_what_is_no_place(text):
    with pytest.raises(CortenError) as refused:
        parse_cache_to(text)
    assert refused.value.http_status in (400, 501)


def written() -> tuple[bytes, bytes]:
    steps = documents.pack_steps([STEP])
    return steps, documents.manifest_of(steps, {DIFF: BLOB}, [MOUNT])


def test_what_is_written_is_read():
    steps, manifest = written()
    assert written() == (steps, manifest)
    found = documents.read_cache(documents.read_manifest(manifest), steps)
    assert found.steps == {STEP.key: STEP} and found.layers[DIFF].digest == BLOB.digest and found.mounts["0" * 32].size == 9
    document = json.loads(manifest)
    assert document["artifactType"] == documents.ARTIFACT and document["config"]["digest"] == digest_of(b"{}")


def test_a_step_that_is_not_its_ingredients_is_left_out():
    from msgspec.structs import replace

    for broken in (replace(STEP, inputs=[("command", "other")]), replace(STEP, layer="/etc/passwd"), replace(STEP, base=["../.."])):
        steps = documents.pack_steps([broken])
        manifest = documents.read_manifest(documents.manifest_of(steps, {DIFF: BLOB}, []))
        assert documents.read_cache(manifest, steps).steps == {}


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"config":{"mediaType":"x","digest":"y","size":1},"layers":[]}', written()[1].replace(b"2" * 64, b"../etc/passwd"), written()[1].replace(b"steps.v1", b"steps.v9")]
)
def test_manifests_that_are_none(data):
    with pytest.raises(ArchiveRefused):
        documents.read_manifest(data)


@given(st.binary(max_size=300))
def test_steps_of_anything_are_refused(data):
    assume(data.strip() != b"[]")
    manifest = documents.read_manifest(documents.manifest_of(data, {}, []))
    packed = zstandard.compress(data)
    for content, about in ((data, manifest), (packed, documents.read_manifest(documents.manifest_of(packed, {}, [])))):
        with pytest.raises(ArchiveRefused):
            documents.read_cache(about, content)


@pytest.mark.parametrize("name", ["", "../../etc", "a/b", "0" * 31, "0" * 32 + "/.."])
def test_a_mount_with_a_name_that_is_none_is_left_out(name):
    steps = documents.pack_steps([])
    mount = Descriptor(documents.MOUNT, "sha256:" + "3" * 64, 9, annotations={documents.MOUNT_NAME: name})
    assert documents.read_cache(documents.read_manifest(documents.manifest_of(steps, {}, [mount])), steps).mounts == {}


def test_inline():
    text = documents.inline_annotation([("k", DIFF), ("l", "")])
    assert documents.read_inline(text) == [("k", DIFF), ("l", "")]
    with pytest.raises(ArchiveRefused):
        documents.read_inline('[["k"]]')


def test_a_bucket(tmp_path):
    from obstore.store import MemoryStore

    store, told = MemoryStore(), []
    place = S3Place(S3Bucket("b", prefix="p/"), store, told.append)
    (tmp_path / "blob").write_bytes(b"content")
    blob = Descriptor("x", digest_of(b"content"), 7)

    async def use() -> bytes:
        with pytest.raises(NotFound):
            await place.manifest()
        await place.write(blob.digest, f"{tmp_path}/blob", "short")
        await place.write(blob.digest, f"{tmp_path}/blob", "short")
        await place.put_manifest(b"{}")
        assert await place.manifest() == b"{}"
        return b"".join([data async for data in place.read(blob)])

    assert asyncio.run(use()) == b"content"
    assert [progress.status for progress in told] == ["Pushing", "Pushed"]
