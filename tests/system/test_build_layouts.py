"""OCI layouts, made by skopeo, as named contexts: the engine is sent what it lacks."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile

import pytest

from corten.api.client import ApiError
from tests.system.conftest import need
from tests.system.test_build_ssh import nothing_stays  # noqa: F401 - after each test
from tests.system.test_cli_build import corten, shown

DOCKERFILE = b"FROM base\nCOPY --from=base /var/www/index.html /copied\nRUN cat /made >/seen\n"


@pytest.fixture(scope="module")
def images(engine, assets, tmp_path_factory):
    """A layout with the tags `one` and `two`, each with a file /made of its own on busybox."""
    skopeo, folder = need("skopeo"), tmp_path_factory.mktemp("layout")
    for tag in ("one", "two"):
        corten(engine, "build", "-q", "-o", f"type=oci,dest={folder}/{tag}.tar", "-", input=f"FROM busybox\nRUN echo {tag} >/made\n".encode())
        copy = [skopeo, "copy", "--quiet", "--insecure-policy", f"oci-archive:{folder}/{tag}.tar", f"oci:{folder}/layout:{tag}"]
        subprocess.run(copy, check=True, capture_output=True)
    return f"{folder}/layout"


def digest_of(layout: str, tag: str) -> str:
    with open(f"{layout}/index.json", encoding="utf-8") as file:
        return next(entry["digest"] for entry in json.load(file)["manifests"] if entry["annotations"]["org.opencontainers.image.ref.name"] == tag)


@pytest.mark.parametrize("how", ["tag", "digest"])
def test_a_tag_or_a_digest(engine, images, how):
    address = f"oci-layout://{images}" + (":two" if how == "tag" else f"@{digest_of(images, 'two')}")
    corten(engine, "build", "-q", "-t", "layout:1", "--build-context", f"base={address}", "-", input=DOCKERFILE)
    assert shown(engine, "layout:1", "cat", "/copied", "/seen") == "hello from busybox\ntwo\n"


def test_only_what_is_missing_is_sent(engine, images):
    """The base's layers are here, as every image of the store has them: packed as they are there they can be made again, and are not asked for."""
    manifest = json.load(open_blob(images, digest_of(images, "one")))
    digests = [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
    engine.client.post("/images/prune")
    lacking = [digest for digest in digests if digest != manifest["layers"][0]["digest"]]
    assert engine.client.post("/corten/build/layout/missing", [*digests, *digests]) == [*lacking, *lacking]
    corten(engine, "build", "-q", "-t", "layout:one", "--build-context", f"base=oci-layout://{images}:one", "-", input=DOCKERFILE)
    assert engine.client.post("/corten/build/layout/missing", digests) == []
    other = json.load(open_blob(images, digest_of(images, "two")))
    shared = {layer["digest"] for layer in other["layers"]} & set(digests)
    assert shared
    asked = [layer["digest"] for layer in other["layers"]]
    assert engine.client.post("/corten/build/layout/missing", asked) == [digest for digest in asked if digest not in shared]


def open_blob(layout: str, digest: str) -> io.BytesIO:
    with open(f"{layout}/blobs/sha256/{digest.partition(':')[2]}", "rb") as file:
        return io.BytesIO(file.read())


def test_what_is_not_there(engine, images, tmp_path):
    for address, error in (
        (f"{images}:three", "has no image three: there are the tags one, two"), (images, "has no image latest"),
        (f"{images}@sha256:{'0' * 64}", "No such file"), (str(tmp_path), "is no OCI layout: index.json"),
    ):  # fmt: skip
        done = corten(engine, "build", "--build-context", f"base=oci-layout://{address}", "-", input=DOCKERFILE, code=1)
        assert error in done.stderr.decode()
    several = corten(engine, "build", "--platform=linux/amd64,linux/arm64", "--build-context", f"base=oci-layout://{images}:one", "-", input=DOCKERFILE, code=1)
    assert b"build one at a time" in several.stderr


def test_a_layout_that_lies(engine, images, tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", images, str(copy)], check=True)
    manifest = json.load(open_blob(images, digest_of(images, "two")))
    layer = manifest["layers"][-1]["digest"]
    engine.client.post("/images/prune")
    with open(f"{copy}/blobs/sha256/{layer.partition(':')[2]}", "r+b") as file:
        file.write(b"something else")
    done = corten(engine, "build", "--build-context", f"base=oci-layout://{copy}:two", "-", input=DOCKERFILE, code=1)
    assert b"it was altered or cut off on its way" in done.stderr
    assert engine.client.post("/corten/build/layout/missing", [layer]) == [layer]


def test_a_part_without_the_rest_is_refused(engine, images):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(f"{images}/oci-layout", "oci-layout")
        tar.add(f"{images}/index.json", "index.json")
        for tag in ("one", "two"):
            name = f"blobs/sha256/{digest_of(images, tag).partition(':')[2]}"
            tar.add(os.path.join(images, name), name)
    engine.client.post("/images/prune")
    with pytest.raises(ApiError, match="is missing from the archive"):
        engine.client.open("POST", "/corten/build/layout", body=packed.getvalue())
    with pytest.raises(ApiError, match="is no digest"):
        engine.client.post("/corten/build/layout/missing", ["../../etc/passwd"])
