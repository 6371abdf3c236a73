"""What is attested of a build: found by skopeo and buildx where they look for it, and true."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from corten.api.client import ApiError
from tests.system.conftest import need
from tests.system.test_build_outputs import build, content, context, fetch, members, parcels, skopeo_inspect

DOCKERFILE = """
FROM busybox
ARG FLAVOUR=plain
COPY status /var/lib/dpkg/status
COPY hello.list /var/lib/dpkg/info/hello.list
COPY copyright /usr/share/doc/hello/copyright
COPY package.json /app/node_modules/left/package.json
COPY METADATA /usr/lib/python3/dist-packages/six-1.16.0.dist-info/METADATA
RUN --mount=type=secret,id=token echo $FLAVOUR > /usr/bin/hello
"""
FILES = {
    "Dockerfile": DOCKERFILE,
    "status": "Package: hello\nStatus: install ok installed\nVersion: 2.10-3\nArchitecture: amd64\nMaintainer: Somebody <s@example.invalid>\nDescription: hi\n more\n",
    "hello.list": "/.\n/usr\n/usr/bin\n/usr/bin/hello\n",
    "copyright": "Files: *\nLicense: GPL-3+\n",
    "package.json": '{"name": "left", "version": "1.2.3", "license": "MIT"}',
    "METADATA": "Metadata-Version: 2.1\nName: six\nVersion: 1.16.0\nLicense: MIT\n\ntext\n",
}
BOTH = json.dumps({"Sbom": True, "Provenance": "max"})


@pytest.fixture(scope="module")
def pushed(engine, registry) -> tuple[str, dict]:
    """(the name of an image with both attestations, the index as the registry has it)."""
    name = f"{registry}/results/attested:1"
    build(engine, context(**FILES), [{"Type": "registry"}], t=name, attest=BOTH, buildargs=json.dumps({"FLAVOUR": "sweet"}))
    return name, skopeo_inspect(f"docker://{name}", "--raw", "--tls-verify=false")


def predicates(name: str, index: dict) -> dict[str, dict]:
    """Type -> statement, as the registry has them."""
    about = index["manifests"][1]
    manifest = skopeo_inspect(f"docker://{name.rpartition(':')[0]}@{about['digest']}", "--raw", "--tls-verify=false")
    address, _, repository = name.rpartition(":")[0].partition("/")
    found = {}
    for layer in manifest["layers"]:
        assert layer["mediaType"] == "application/vnd.in-toto+json"
        done = subprocess.run(["curl", "-sf", f"http://{address}/v2/{repository}/blobs/{layer['digest']}"], capture_output=True, check=True)
        found[layer["annotations"]["in-toto.io/predicate-type"]] = json.loads(done.stdout)
    return found


def test_the_index(pushed):
    _, index = pushed
    image, about = index["manifests"]
    assert about["annotations"] == {"vnd.docker.reference.digest": image["digest"], "vnd.docker.reference.type": "attestation-manifest"}
    assert about["platform"] == {"architecture": "unknown", "os": "unknown"} and image["platform"]["os"] == "linux"


def test_the_packages(pushed):
    name, index = pushed
    statement = predicates(name, index)["https://spdx.dev/Document"]
    assert statement["subject"][0]["digest"]["sha256"] == index["manifests"][0]["digest"].partition(":")[2]
    document = statement["predicate"]
    packages = {package["name"]: package for package in document["packages"]}
    assert packages["hello"]["versionInfo"] == "2.10-3" and packages["hello"]["licenseDeclared"] == "GPL-3.0-or-later"
    assert {"hello", "left", "six"} < set(packages)
    assert document["files"][0]["fileName"] == "./usr/bin/hello"
    import hashlib

    assert document["files"][0]["checksums"][1]["checksumValue"] == hashlib.sha256(b"sweet\n").hexdigest()


def test_where_it_comes_from(pushed):
    name, index = pushed
    predicate = predicates(name, index)["https://slsa.dev/provenance/v1"]["predicate"]
    definition, details = predicate["buildDefinition"], predicate["runDetails"]
    assert definition["externalParameters"]["request"]["args"]["build-arg:FLAVOUR"] == "sweet"
    assert definition["externalParameters"]["request"]["secrets"] == [{"id": "token", "optional": True}]
    assert definition["externalParameters"]["configSource"] == {"path": "Dockerfile"}
    base = definition["resolvedDependencies"][0]
    assert base["uri"] == "pkg:docker/busybox@latest?platform=linux%2Famd64" and len(base["digest"]["sha256"]) == 64
    assert details["metadata"]["startedOn"] <= details["metadata"]["finishedOn"]


def test_buildx_reads_them(pushed, engine, assets, docker_cli):
    plugin = f"{assets}/buildx/usr/libexec/docker/cli-plugins/docker-buildx"
    if not os.path.exists(plugin):
        pytest.skip("needs docker-buildx in the assets")
    name, _ = pushed

    def inspect(form: str) -> dict:
        done = subprocess.run([plugin, "imagetools", "inspect", name, "--format", form], env=engine.environment, capture_output=True, check=True)
        return json.loads(done.stdout)

    assert inspect("{{json .SBOM.SPDX}}")["spdxVersion"] == "SPDX-2.3"
    assert inspect("{{json .Provenance.SLSA}}")["buildDefinition"]["buildType"].startswith("urn:corten")


def test_an_attested_image_is_pulled_and_run(pushed, engine):
    name, _ = pushed
    repository, _, tag = name.rpartition(":")
    with engine.client.open("POST", "/images/create", query={"fromImage": repository, "tag": tag}) as response:
        response.read()
    assert engine.output("cat", "/usr/bin/hello", image=name) == (0, "sweet\n")
    engine.client.delete(f"/images/{name}", force=1)


def test_beside_a_tree_and_in_an_archive(engine, tmp_path):
    outputs = [{"Type": "tar", "Attrs": {"attestation-prefix": "about."}}, {"Type": "oci"}]
    tree, archive = parcels(build(engine, context(**FILES), outputs, attest=json.dumps({"Sbom": True, "Provenance": "min"})))
    data = fetch(engine, tree)
    assert {"about.sbom.spdx.json", "about.provenance.json"} <= set(members(data))
    request = json.loads(content(data, "about.provenance.json"))["predicate"]["buildDefinition"]["externalParameters"]["request"]
    assert "args" not in request and "secrets" not in request
    (tmp_path / "a.tar").write_bytes(fetch(engine, archive))
    done = subprocess.run([need("skopeo"), "inspect", "--raw", f"oci-archive:{tmp_path}/a.tar"], capture_output=True, check=True)
    assert json.loads(done.stdout)["manifests"][1]["annotations"]["vnd.docker.reference.type"] == "attestation-manifest"


@pytest.mark.parametrize("outputs", [[{"Type": "docker"}], [{"Type": "image", "Attrs": {"oci-mediatypes": "false"}}]])
def test_what_has_no_place_for_it_says_so(engine, outputs):
    with pytest.raises(ApiError, match="an attestation") as refused:
        build(engine, context(**FILES), outputs, attest=BOTH)
    assert refused.value.http_status == 501
