"""What a build gives: flags and attributes, documents of manifests and indexes, merged trees. No engine."""

from __future__ import annotations

import io
import json
import os
import tarfile

import pytest

from corten.builder.outputs.documents import PlatformImage, Predicate, assemble, purl_of
from corten.builder.outputs.oci_tar import layout_index
from corten.builder.outputs.tree_tar import TreeFile, TreePart, write_trees
from corten.errors import CortenError
from corten.spec.build_outputs import (
    Annotation,
    Attest,
    Compression,
    Output,
    OutputSpec,
    parse_attest,
    parse_output,
    parse_provenance,
    parse_sbom,
    read_output,
)
from corten.spec.digest import digest_of
from corten.spec.image import Descriptor
from corten.spec.platform import Platform
from corten.spec.reference import parse_reference
from corten.store.tar_writer import TarWriter

AMD, ARM = Platform("amd64"), Platform("arm64", "linux", "v8")


@pytest.mark.parametrize(
    "text, spec, destination",
    [
        ("out", OutputSpec("local", None), "out"),
        ("-", OutputSpec("tar", None), "-"),
        ("type=local,dest=out", OutputSpec("local", {}), "out"),
        ("type=oci", OutputSpec("oci", {}), "-"),
        ('type=image,"name=a:1,b:2",push=true', OutputSpec("image", {"name": "a:1,b:2", "push": "true"}), ""),
        ("type=oci,dest=x.tar,annotation.a.B=c=d", OutputSpec("oci", {"annotation.a.B": "c=d"}), "x.tar"),
    ],
)
def test_output_flag(text, spec, destination):
    assert parse_output(text) == (spec, destination)


@pytest.mark.parametrize("text", ["dest=x", "type=local", "type=oci,what", 'type=oci,"dest=x'])
def test_output_flags_that_are_none(text):
    with pytest.raises(CortenError):
        parse_output(text)


def test_attributes():
    read = read_output(OutputSpec("registry", {"name": "a:1,b", "annotation.k": "v", "annotation-index.i": "w", "oci-mediatypes": "false"}))
    assert read == Output("registry", ("a:1", "b"), push=True, store=False, oci_types=False, annotations=(Annotation("index", "i", "w"), Annotation("manifest", "k", "v")))
    assert read_output(OutputSpec("docker")).compression == Compression("uncompressed")
    zstd = {"compression": "zstd", "compression-level": "19", "force-compression": "true", "tar": "false"}
    assert read_output(OutputSpec("oci", zstd)).compression == Compression("zstd", 19, force=True)
    both = {"annotation[linux/arm64].a": "1", "annotation-manifest.a": "2", "annotation-manifest-descriptor[linux/amd64].b": "3", "annotation-index-descriptor.c": "4"}
    output = read_output(OutputSpec("oci", both))
    assert [output.annotations_of("manifest", Platform(arch)) for arch in ("arm64", "amd64")] == [{"a": "1"}, {"a": "2"}]
    assert [output.annotations_of("manifest-descriptor", Platform(arch)) for arch in ("arm64", "amd64")] == [None, {"b": "3"}]
    assert (output.annotations_of("index-descriptor"), output.annotations_of("index")) == ({"c": "4"}, None)
    assert read_output(OutputSpec("image", {"push": "true"})).push
    assert read_output(OutputSpec("image", {"store": "false"})).store is False


@pytest.mark.parametrize(
    "kind, attributes",
    [("x", {}), ("local", {"name": "a"}), ("oci", {"tar": "perhaps"}), ("oci", {"annotation[linux/].a": "b"}), ("oci", {"annotation-index[linux/amd64].a": "b"}), ("image", {"annotation-index-descriptor.a": "b"}),
     ("oci", {"annotation-other.a": "b"}), ("oci", {"compression-level": "10"}), ("oci", {"compression": "zstd", "compression-level": "23"}), ("oci", {"compression": "uncompressed", "compression-level": "1"}), ("image", {"push": "perhaps"}), ("oci", {"compression": "estargz"}), ("docker", {"compression": "gzip"}), ("oci", {"force-compression": "soon"}), ("docker", {"force-compression": "true"}),
     ("docker", {"annotation.a": "b"}), ("image", {"rewrite-timestamp": "soon"})],
)
def test_attributes_that_cannot_be(kind, attributes):
    with pytest.raises(CortenError) as refused:
        read_output(OutputSpec(kind, attributes))
    assert refused.value.http_status in (400, 501)


def test_attest_flags():
    nothing = Attest()
    assert parse_sbom("true", nothing) == Attest(sbom=True)
    assert parse_provenance("false", Attest(provenance="max")) == nothing
    assert parse_provenance("mode=max,builder-id=me", nothing) == Attest(provenance="max", builder_id="me")
    assert parse_attest("type=provenance", parse_attest("type=sbom", nothing)) == Attest(sbom=True, provenance="min")
    assert parse_attest("type=provenance,reproducible=true,mode=min", nothing).reproducible
    for text in ("type=cosign", "type=provenance,mode=medium", "type=sbom,generator=x", "type=provenance,version=v0.2", "type=sbom,colour=red"):
        with pytest.raises(CortenError):
            parse_attest(text, nothing)


LAYER = Descriptor("application/vnd.oci.image.layer.v1.tar", "sha256:" + "1" * 64, 10)


def test_one_image_is_a_manifest():
    made = assemble([PlatformImage(AMD, b"{}", (LAYER,))], Output("oci", annotations=(Annotation("manifest", "a", "b"),)), [])
    manifest = json.loads(made.root_data)
    assert made.root.digest == digest_of(made.root_data) and made.root.size == len(made.root_data)
    assert manifest["config"]["digest"] == digest_of(b"{}") and manifest["annotations"] == {"a": "b"}
    assert made.manifests == {} and made.blobs == {digest_of(b"{}"): b"{}"}


def test_an_index_with_attestations():
    predicate = Predicate("https://spdx.dev/Document", b'{"x":1}', "sbom.spdx.json")
    made = assemble([PlatformImage(AMD, b"{}", (LAYER,), (predicate,)), PlatformImage(ARM, b"{ }", (LAYER,), (predicate,))], Output("oci"), ["box:1"])
    first, second, about_first, about_second = json.loads(made.root_data)["manifests"]
    assert [first["platform"], second["platform"]] == [{"architecture": "amd64", "os": "linux"}, {"architecture": "arm64", "os": "linux", "variant": "v8"}]
    for image, about in ((first, about_first), (second, about_second)):
        assert about["platform"] == {"architecture": "unknown", "os": "unknown"}
        assert about["annotations"] == {"vnd.docker.reference.digest": image["digest"], "vnd.docker.reference.type": "attestation-manifest"}
        manifest = json.loads(made.manifests[about["digest"]][1])
        assert manifest["layers"][0]["annotations"] == {"in-toto.io/predicate-type": "https://spdx.dev/Document"}
        statement = json.loads(made.blobs[manifest["layers"][0]["digest"]])
        assert statement["subject"][0]["digest"]["sha256"] == image["digest"].partition(":")[2]
        assert statement["_type"] == "https://in-toto.io/Statement/v0.1" and statement["predicate"] == {"x": 1}
        assert json.loads(made.blobs[manifest["config"]["digest"]])["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]


def test_names():
    assert purl_of("box:1", AMD) == "pkg:docker/box@1?platform=linux%2Famd64"
    assert purl_of("host:5000/box", AMD) == "pkg:docker/host:5000/box@latest?platform=linux%2Famd64"
    index = json.loads(layout_index(LAYER, [parse_reference("box:1"), parse_reference("host:5000/box:2")], {}))
    assert [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]] == ["1", "2"]
    assert len(json.loads(layout_index(LAYER, [], {}))["manifests"]) == 1


def test_trees_beside_each_other(tmp_path):
    for number, name in ((1, "below"), (2, "above")):
        os.makedirs(tmp_path / str(number) / "dir")
        (tmp_path / str(number) / "dir" / name).write_text(name)
        (tmp_path / str(number) / "same").write_text(name)
    output = io.BytesIO()
    write_trees([TreePart("linux_amd64/", [2, 1], [TreeFile("sbom.spdx.json", b"{}")]), TreePart("linux_arm64/", [1], [])], str(tmp_path), TarWriter(output))
    output.seek(0)
    with tarfile.open(fileobj=output) as archive:
        assert archive.getnames() == [
            "linux_amd64", "linux_amd64/dir", "linux_amd64/dir/above", "linux_amd64/dir/below", "linux_amd64/same", "linux_amd64/sbom.spdx.json",
            "linux_arm64", "linux_arm64/dir", "linux_arm64/dir/below", "linux_arm64/same",
        ]  # fmt: skip
        assert archive.extractfile("linux_amd64/same").read() == b"above"


def test_what_has_no_place_for_an_attestation():
    for output in (Output("docker"), Output("registry", push=True, oci_types=False)):
        Attest().check([output])
        with pytest.raises(CortenError) as refused:
            Attest(sbom=True).check([output])
        assert refused.value.http_status == 501
    Attest(provenance="max").check([Output("image"), Output("image", push=True), Output("oci"), Output("tar")])
    with pytest.raises(CortenError):
        Attest(provenance="most").check([])
