"""An attestation that speaks of another manifest of the same content."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from corten.spec.attestations import IN_TOTO, about, attests, moved
from corten.spec.digest import digest_of, encoded
from corten.spec.image import Descriptor, Index

OLD, NEW, ELSEWHERE = (digest_of(text) for text in (b"old", b"new", b"elsewhere"))


def made(statements: list[bytes], kind: str = IN_TOTO) -> tuple[dict, bytes, dict[str, bytes]]:
    blobs = {digest_of(data): data for data in statements}
    layers = [{"mediaType": kind, "digest": digest_of(data), "size": len(data), "annotations": {"k": "v"}} for data in statements]
    config = json.dumps({"architecture": "unknown", "rootfs": {"type": "layers", "diff_ids": list(blobs)}}).encode()
    blobs[digest_of(config)] = config
    head = {"mediaType": "c", "digest": digest_of(config), "size": len(config)}
    manifest = json.dumps({"schemaVersion": 2, "config": head, "layers": layers, "more": 1}).encode()
    marks = {"vnd.docker.reference.digest": OLD, "vnd.docker.reference.type": "attestation-manifest", "own": "kept"}
    return {"mediaType": "m", "digest": digest_of(manifest), "size": len(manifest), "annotations": marks}, manifest, blobs


def said(*digests: str, predicate: str = '{ "a" : [1,2.50] }') -> bytes:
    subjects = ", ".join(f'{{"name": "n", "digest": {{"sha256": "{encoded(digest)}", "sha1": "x"}}}}' for digest in digests)
    return f'{{"_type": "t", "subject": [{subjects}], "predicate": {predicate}}}'.encode()


def test_its_subjects_are_the_new_manifest_and_its_predicate_is_as_it_was():
    foreign = said(ELSEWHERE)
    entry, manifest, blobs = made([said(OLD, ELSEWHERE), foreign])
    found = moved(entry, manifest, blobs, OLD, NEW)
    assert found.entry["annotations"] == {"vnd.docker.reference.digest": NEW, "vnd.docker.reference.type": "attestation-manifest", "own": "kept"}
    assert (found.entry["digest"], found.entry["size"]) == (digest_of(found.manifest), len(found.manifest))
    document = json.loads(found.manifest)
    assert document["more"] == 1
    first, second = document["layers"]
    assert second["digest"] == digest_of(foreign)
    assert first["annotations"] == {"k": "v"}
    data = found.blobs[first["digest"]]
    assert digest_of(data) == first["digest"]
    assert len(data) == first["size"]
    assert b'{ "a" : [1,2.50] }' in data
    subjects = json.loads(data)["subject"]
    assert [subject["digest"] for subject in subjects] == [{"sha256": encoded(NEW), "sha1": "x"}, {"sha256": encoded(ELSEWHERE), "sha1": "x"}]
    assert json.loads(found.blobs[document["config"]["digest"]])["rootfs"]["diff_ids"] == [first["digest"], second["digest"]]


def test_of_the_same_manifest_nothing_changes():
    entry, manifest, blobs = made([said(OLD)])
    found = moved(entry, manifest, blobs, OLD, OLD)
    assert (found.entry, found.manifest, found.blobs) == (entry, manifest, blobs)


def test_what_is_no_statement_is_left_alone():
    entry, manifest, blobs = made([said(OLD)], kind="application/vnd.dsse.envelope.v1+json")
    found = moved(entry, manifest, blobs, OLD, NEW)
    assert json.loads(found.manifest)["layers"] == json.loads(manifest)["layers"]


@given(st.lists(st.sampled_from([OLD, ELSEWHERE]), max_size=3))
def test_there_and_back_says_the_same(subjects):
    entry, manifest, blobs = made([said(*subjects)])
    there = moved(entry, manifest, blobs, OLD, NEW)
    back = moved(there.entry, there.manifest, there.blobs, NEW, OLD)
    (layer,) = json.loads(back.manifest)["layers"]
    assert json.loads(back.blobs[layer["digest"]]) == json.loads(said(*subjects))
    assert back.entry["annotations"] == entry["annotations"]


def test_what_attests_what():
    def row(**marks: str) -> Descriptor:
        return Descriptor("m", NEW, 1, annotations={f"vnd.docker.reference.{key}": value for key, value in marks.items()})

    assert attests(row(digest=OLD, type="attestation-manifest")) == OLD
    assert attests(row(digest=OLD, type="other")) == attests(row(digest=OLD)) == attests(Descriptor("m", NEW, 1)) == ""
    index = Index([Descriptor("m", OLD, 1), row(digest=OLD, type="attestation-manifest"), row(digest=ELSEWHERE, type="attestation-manifest")])
    assert about(index, OLD) == [index.manifests[1]]
