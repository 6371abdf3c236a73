"""Outputs with zstd, gzip and plain layers, forced or not, with annotations of one platform, and as a folder; read by skopeo."""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import os
import subprocess
import tarfile

import pytest
import zstandard

from tests.system.conftest import need
from tests.system.test_build_ssh import nothing_stays  # noqa: F401 - after each test
from tests.system.test_cli_build import corten

OCI = "application/vnd.oci.image.layer.v1.tar"
_READ = {
    "+gzip": gzip.decompress, ".gzip": gzip.decompress, "": bytes,
    **dict.fromkeys(("+zstd", ".zstd"), lambda data: zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()),
}  # fmt: skip


@pytest.fixture(scope="module")
def base(engine, tmp_path_factory):
    """An archive of an image with a layer, besides busybox's own, that comes packed with gzip."""
    folder = tmp_path_factory.mktemp("base")
    corten(engine, "build", "-q", "-o", f"type=oci,dest={folder}/base.tar,name=packed:1", "-", input=b"FROM busybox\nRUN echo base >/base\n")
    engine.client.post("/build/prune", all=1)
    return str(folder / "base.tar")


@pytest.fixture
def built(engine, base, tmp_path):
    """A layout's documents and blobs: (index.json's entry, manifest, config, blobs by digest) of `FROM packed:1` with the output's attributes."""
    with open(base, "rb") as file, engine.client.open("POST", "/images/load", body=file) as response:
        assert b"packed:1" in response.read()

    def build(attributes: str, *arguments: str):
        corten(engine, "build", "-q", "-o", f"type=oci,dest={tmp_path}/out.tar{attributes}", *arguments, "-", input=b"FROM packed:1\nRUN head -c 5000000 /dev/zero >/zeros\n")
        with tarfile.open(f"{tmp_path}/out.tar") as tar:
            files = {item.name: tar.extractfile(item).read() for item in tar if item.isreg()}
        blobs = {f"sha256:{name.rpartition('/')[2]}": data for name, data in files.items() if name.startswith("blobs/")}
        [entry] = json.loads(files["index.json"])["manifests"]
        manifest = json.loads(blobs[entry["digest"]])
        return entry, manifest, json.loads(blobs[manifest["config"]["digest"]]), blobs

    return build


@pytest.mark.parametrize(("attributes", "suffixes"), [
    ("", ["+gzip", "+gzip", "+gzip"]), (",compression=zstd", ["+zstd", "+gzip", "+zstd"]), (",compression=uncompressed", ["", "+gzip", ""]),
    (",compression=zstd,force-compression=true", ["+zstd"] * 3), (",compression=uncompressed,force-compression=true", [""] * 3),
    (",compression=zstd,compression-level=19,force-compression", ["+zstd"] * 3), (",compression-level=9", ["+gzip"] * 3),
    (",compression-level=1,force-compression=true", ["+gzip"] * 3), (",compression=zstd,force-compression=true,oci-mediatypes=false", [".zstd"] * 3),
])  # fmt: skip
def test_layers(engine, built, tmp_path, attributes, suffixes):
    attributes = attributes.replace("force-compression,", "force-compression=true,")
    if attributes.endswith("force-compression"):
        attributes += "=true"
    entry, manifest, config, blobs = built(attributes)
    plain = "application/vnd.docker.image.rootfs.diff.tar" if "oci-mediatypes=false" in attributes else OCI
    assert [layer["mediaType"] for layer in manifest["layers"]] == [plain + suffix for suffix in suffixes]
    for layer, suffix, diff_id in zip(manifest["layers"], suffixes, config["rootfs"]["diff_ids"], strict=True):
        data = blobs[layer["digest"]]
        assert (f"sha256:{hashlib.sha256(data).hexdigest()}", len(data)) == (layer["digest"], layer["size"])
        assert f"sha256:{hashlib.sha256(_READ[suffix](data)).hexdigest()}" == diff_id
    again = built(attributes)
    assert again[0] == entry


def test_a_level_is_no_matter_of_the_content(built):
    sizes = {level: sum(layer["size"] for layer in built(f",compression=zstd,force-compression=true,compression-level={level}")[1]["layers"]) for level in (1, 19)}
    assert sizes[19] < sizes[1]


def test_skopeo_unpacks_what_zstd_packed(built, tmp_path):
    config = built(",compression=zstd,force-compression=true,name=out:1")[2]
    copy = [need("skopeo"), "copy", "--quiet", "--insecure-policy", "--dest-decompress", f"oci-archive:{tmp_path}/out.tar", f"dir:{tmp_path}/unpacked"]
    done = subprocess.run(copy, check=False, capture_output=True)
    assert not done.returncode, done.stderr
    digests = {hashlib.sha256((tmp_path / "unpacked" / name).read_bytes()).hexdigest() for name in os.listdir(tmp_path / "unpacked")}
    assert {diff_id[7:] for diff_id in config["rootfs"]["diff_ids"]} <= digests


def test_zstd_into_a_registry_and_back(engine, built, registry):
    """`registry` is docker-registry; pulled again the layers are what they were."""
    built(f",name={registry}/x:1", "-o", f"type=registry,name={registry}/zstd:1,compression=zstd,force-compression=true")
    shown = subprocess.run([need("skopeo"), "inspect", "--raw", "--tls-verify=false", f"docker://{registry}/zstd:1"], check=True, capture_output=True).stdout
    assert {layer["mediaType"] for layer in json.loads(shown)["layers"]} == {f"{OCI}+zstd"}
    corten(engine, "pull", f"{registry}/zstd:1")
    assert corten(engine, "run", "--rm", f"{registry}/zstd:1", "sh", "-c", "cat /base; wc -c </zeros").stdout == b"base\n5000000\n"


def test_annotations_of_one_platform(engine, tmp_path):
    flags = [
        "manifest[linux/amd64]:one=amd", "manifest:one=all", "[linux/arm64]:two=arm", "index:i=1", "manifest-descriptor[linux/arm64]:d=arm", "index-descriptor:x=layout", "plain=all",
    ]  # fmt: skip
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    annotations = [word for flag in flags for word in ("--annotation", flag)]
    corten(engine, "build", "-q", "--platform", "linux/amd64,linux/arm64", "-o", f"type=oci,dest={tmp_path}/out.tar", *annotations, str(tmp_path))
    with tarfile.open(f"{tmp_path}/out.tar") as tar:
        def document(name: str):
            return json.load(tar.extractfile(name))

        [entry] = document("index.json")["manifests"]
        assert entry["annotations"] == {"x": "layout"}
        index = document(f"blobs/sha256/{entry['digest'][7:]}")
        assert index["annotations"] == {"i": "1"}
        amd, arm = index["manifests"]
        assert ("annotations" in amd, arm["annotations"]) == (False, {"d": "arm"})
        assert document(f"blobs/sha256/{amd['digest'][7:]}")["annotations"] == {"one": "amd", "plain": "all"}
        assert document(f"blobs/sha256/{arm['digest'][7:]}")["annotations"] == {"one": "all", "plain": "all", "two": "arm"}
    for bad in ("a", "index[linux/amd64]:a=b", "other:a=b", "[]:a=b"):
        done = corten(engine, "build", "-o", f"type=oci,dest={tmp_path}/x.tar", "--annotation", bad, str(tmp_path), code=1 if "index" in bad else 2)
        assert b"annotation" in done.stderr


def test_a_folder(engine, tmp_path):
    """tar=false: skopeo reads it, and what was there before stays."""
    for tag, text in (("one", "1"), ("two", "2"), ("one", "3")):
        corten(engine, "build", "-q", "-o", f"type=oci,dest={tmp_path}/layout,tar=false,name=box:{tag}", "-", input=f"FROM busybox\nLABEL which={text}\n".encode())
    for tag, text in (("one", "3"), ("two", "2")):
        done = subprocess.run([need("skopeo"), "inspect", f"oci:{tmp_path}/layout:{tag}"], check=True, capture_output=True)
        assert json.loads(done.stdout)["Labels"] == {"which": text}
    assert len(json.loads((tmp_path / "layout" / "index.json").read_text())["manifests"]) == 2
    corten(engine, "build", "-q", "-o", f"type=docker,dest={tmp_path}/saved,tar=false,name=box:saved", "-", input=b"FROM busybox\nLABEL which=4\n")
    assert json.loads((tmp_path / "saved" / "manifest.json").read_text())[0]["RepoTags"] == ["box:saved"]
    assert b"needs a folder" in corten(engine, "build", "-o", "type=oci,tar=false", "-", input=b"FROM busybox\n", code=1).stderr
    # and what it wrote is a context again
    corten(engine, "build", "-q", "-t", "again:1", "--build-context", f"base=oci-layout://{tmp_path}/layout:two", "-", input=b"FROM base\n")
    assert engine.client.get("/images/again:1/json")["Config"]["Labels"] == {"which": "2"}


def test_a_folder_is_left_as_it_was_when_a_build_fails(engine, tmp_path):
    corten(engine, "build", "-q", "-o", f"type=oci,dest={tmp_path}/layout,tar=false,name=box:one", "-", input=b"FROM busybox\n")
    before = sorted(os.listdir(tmp_path / "layout" / "blobs" / "sha256"))
    corten(engine, "build", "-o", f"type=oci,dest={tmp_path}/layout,tar=false,name=box:two", "-", input=b"FROM busybox\nRUN false\n", code=1)
    assert sorted(os.listdir(tmp_path / "layout" / "blobs" / "sha256")) == before


def test_a_base_that_is_broken(engine, built):
    """A layer's folder that is no longer what it was is not passed on under another digest."""
    built("")
    [path] = glob.glob(f"{engine.data_root}/layers/*/base")
    with open(path, "rb") as file:
        good = file.read()
    try:
        with open(path, "wb") as file:
            file.write(good.swapcase())
        with pytest.raises(AssertionError, match="/base differs in its content"):
            built(",compression=zstd,force-compression=true")
    finally:
        with open(path, "wb") as file:
            file.write(good)
