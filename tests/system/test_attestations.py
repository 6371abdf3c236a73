"""What is attested of an image, kept in the store beside it: pulled, built, shown, saved, loaded, pushed, mended, removed, and trusted as its index is."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile

import pytest

from corten.api.client import ApiError
from tests.engines import RunningEngine
from tests.system.conftest import need
from tests.system.test_build_attest import BOTH, FILES
from tests.system.test_build_outputs import build, context, skopeo_inspect
from tests.system.test_disk import check
from tests.system.test_platforms import HERE, OTHERS, images, load, push, saved
from tests.system.test_pull import OCI, pull, put_image

IN_TOTO = "application/vnd.in-toto+json"
MARKS = ("vnd.docker.reference.digest", "vnd.docker.reference.type", "attestation-manifest")


def put_attestation(registry, repository: str, about: dict, text: str = "good") -> dict:
    """The index's entry of a statement about a manifest; its blobs and manifest are put there."""
    subject = [{"name": "_", "digest": {"sha256": about["digest"].partition(":")[2]}}]
    statement = json.dumps({"_type": "https://in-toto.io/Statement/v0.1", "subject": subject, "predicateType": "https://slsa.dev/provenance/v1",
                            "predicate": {"said": text}}).encode()  # fmt: skip
    layer = registry.put(repository, "blobs", statement, IN_TOTO) | {"annotations": {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"}}
    config = json.dumps({"architecture": "unknown", "os": "unknown", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}).encode()
    document = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": registry.put(repository, "blobs", config, OCI + "config.v1+json"), "layers": [layer]}
    row = registry.put(repository, "manifests", json.dumps(document).encode(), OCI + "manifest.v1+json")
    return row | {"platform": {"architecture": "unknown", "os": "unknown"}, "annotations": {MARKS[0]: about["digest"], MARKS[1]: MARKS[2]}}


def put_index(registry, repository: str, architectures: list[str]) -> dict:
    rows = [put_image(registry, repository, each.encode(), each) | {"platform": {"architecture": each, "os": "linux"}} for each in architectures]
    rows += [put_attestation(registry, repository, row) for row in rows]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": rows}).encode()
    return registry.put(repository, "manifests", index, OCI + "index.v1+json", "1")


@pytest.fixture
def engine(assets):
    """Left without an image it must hold nothing."""
    running = RunningEngine("at")
    try:
        running.load(f"{assets}/images/busybox.tar")
        yield running
        running.remove_all()
        for image in running.client.get("/images/json", all=1):
            running.client.delete(f"/images/{image['Id']}", force=1)
        running.client.post("/build/prune", all=1)
        assert os.listdir(f"{running.data_root}/blobs/sha256") == []
        assert os.listdir(f"{running.data_root}/layers") == []
    finally:
        running.stop()


def listed(engine, name: str) -> list[dict]:
    (row,) = [row for row in images(engine, manifests=1) if name in row["RepoTags"]]
    return row["Manifests"]


def attestations(engine, name: str) -> dict[str, dict]:
    """By the digest that each is about."""
    return {row["AttestationData"]["For"]: row for row in listed(engine, name) if row["Kind"] == "attestation"}


def test_pulled_with_its_platform(engine, fake):
    registry = fake()
    put_index(registry, "app", [HERE, OTHERS[0]])
    name = f"{registry.address}/app:1"
    pull(engine, name)
    (own, other) = [row for row in listed(engine, name) if row["Kind"] == "image"]
    assert (own["Available"], other["Available"]) == (True, False)
    found = attestations(engine, name)
    assert {about: row["Available"] for about, row in found.items()} == {own["ID"]: True, other["ID"]: False}
    about = found[own["ID"]]
    manifest = json.loads(registry.documents[f"/v2/app/manifests/{about['ID']}"][1])
    content = about["Descriptor"]["size"] + manifest["config"]["size"] + manifest["layers"][0]["size"]
    assert about["Size"] == {"Total": content, "Content": content}
    assert found[other["ID"]]["Size"] == {"Total": 0, "Content": 0}
    assert "ImageData" not in about
    assert len([row for row in images(engine) if name in row["RepoTags"]]) == 1
    with pytest.raises(ApiError, match="does not match the specified platform"):
        engine.client.get(f"/images/{name}/json", platform=json.dumps({"os": "unknown", "architecture": "unknown"}))
    pull(engine, name, platform=f"linux/{OTHERS[0]}")
    assert all(row["Available"] for row in listed(engine, name))
    shown = pull(engine, name)
    assert shown[-1]["status"].startswith("Status: Image is up to date")


def test_one_that_an_earlier_release_has_left_out_comes_with_the_next_pull(engine, fake):
    registry = fake()
    put_index(registry, "app", [HERE])
    name = f"{registry.address}/app:1"
    pull(engine, name)
    (about,) = attestations(engine, name).values()
    os.unlink(f"{engine.data_root}/blobs/sha256/{about['ID'].removeprefix('sha256:')}")
    engine.terminate()
    engine.start()
    assert [row["Available"] for row in attestations(engine, name).values()] == [False]
    assert check(engine) == []
    pull(engine, name)
    assert [row["Available"] for row in attestations(engine, name).values()] == [True]


def test_what_the_registry_lost_is_left_out_and_what_is_wrong_is_refused(engine, fake):
    registry = fake()
    put_index(registry, "app", [HERE])
    name = f"{registry.address}/app:1"
    entry = json.loads(registry.documents["/v2/app/manifests/1"][1])["manifests"][1]
    document = registry.documents.pop(f"/v2/app/manifests/{entry['digest']}")
    assert f"The attestation {entry['digest']} is not in the registry: it is left out" in [line.get("status") for line in pull(engine, name)]
    assert [row["Available"] for row in attestations(engine, name).values()] == [False]
    engine.client.delete(f"/images/{name}", force=1)
    registry.documents[f"/v2/app/manifests/{entry['digest']}"] = document
    statement = json.loads(document[1])["layers"][0]["digest"]
    registry.documents[f"/v2/app/blobs/{statement}"] = (IN_TOTO, b"x" * json.loads(document[1])["layers"][0]["size"])
    with pytest.raises(ApiError, match=r"app:1 from .*digest"):
        pull(engine, name)
    engine.client.post("/corten/disk/collect", free="99TB", kinds="leftovers")


def test_pushed_with_the_same_digest_and_named_anew(engine, fake, registry):
    faked = fake()
    top = put_index(faked, "app", [HERE])
    name = f"{faked.address}/app:1"
    pull(engine, name)
    engine.client.post(f"/images/{name}/tag", repo=f"{registry}/attested", tag="1")
    assert push(engine, f"{registry}/attested", tag="1")[-1]["aux"]["Digest"] == top["digest"]
    raw = skopeo_inspect(f"docker://{registry}/attested:1", "--raw", "--tls-verify=false")
    (about,) = [row for row in raw["manifests"] if "annotations" in row]
    assert skopeo_inspect(f"docker://{registry}/attested@{about['digest']}", "--raw", "--tls-verify=false")["layers"][0]["mediaType"] == IN_TOTO
    engine.client.delete(f"/images/{name}")
    assert [row["Available"] for row in attestations(engine, f"{registry}/attested:1").values()] == [True]


def statements(archive: bytes) -> tuple[dict, list[dict]]:
    """(the archive's inner index, the statements of its attestations)."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        def document(digest: str) -> dict:
            data = tar.extractfile(f"blobs/sha256/{digest.partition(':')[2]}").read()
            assert hashlib.sha256(data).hexdigest() == digest.partition(":")[2]
            return json.loads(data)

        (head,) = json.load(tar.extractfile("index.json"))["manifests"]
        index = document(head["digest"])
        manifests = [document(row["digest"]) for row in index["manifests"] if row.get("annotations", {}).get(MARKS[1]) == MARKS[2]]
        for manifest in manifests:
            assert document(manifest["config"]["digest"])["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
        return index, [document(layer["digest"]) for manifest in manifests for layer in manifest["layers"]]


def test_saved_and_loaded_it_speaks_of_what_is_there(engine, fake, tmp_path):
    """A saved layer is a plain tar, so that the manifest is another: what is attested is said of that one."""
    registry = fake()
    put_index(registry, "app", [HERE, OTHERS[0]])
    name = f"{registry.address}/app:1"
    pull(engine, name)
    data = saved(engine, name)
    index, said = statements(data)
    image, about = index["manifests"]
    assert about["annotations"] == {MARKS[0]: image["digest"], MARKS[1]: MARKS[2]}
    assert [(one["subject"][0]["digest"]["sha256"], one["predicate"]) for one in said] == [(image["digest"].partition(":")[2], {"said": "good"})]
    (tmp_path / "x.tar").write_bytes(data)
    copied = subprocess.run([need("skopeo"), "--insecure-policy", "copy", "-q", "--all", f"oci-archive:{tmp_path}/x.tar", f"dir:{tmp_path}/copy"],
                            capture_output=True, text=True, check=False)  # fmt: skip
    assert copied.returncode == 0, copied.stderr
    engine.client.delete(f"/images/{name}", force=1)
    assert load(engine, data) == [f"Loaded image: {name}"]
    assert {key: row["Available"] for key, row in attestations(engine, name).items()} == {image["digest"]: True}
    assert saved(engine, name) == data


def test_a_broken_one_is_found_and_fetched_again(engine, fake):
    registry = fake()
    put_index(registry, "app", [HERE])
    name = f"{registry.address}/app:1"
    pull(engine, name)
    assert check(engine) == []
    (about,) = attestations(engine, name).values()
    manifest = json.loads(registry.documents[f"/v2/app/manifests/{about['ID']}"][1])
    for digest in (about["ID"], manifest["layers"][0]["digest"]):
        with open(f"{engine.data_root}/blobs/sha256/{digest.removeprefix('sha256:')}", "ab") as file:
            file.write(b" ")
    image = engine.client.get(f"/images/{name}/json")["Id"]
    found = {problem["Id"]: problem["Images"] for problem in check(engine)}
    assert found == {about["ID"]: [image], manifest["layers"][0]["digest"]: [image]}
    engine.terminate()
    engine.start()
    assert [row["Available"] for row in attestations(engine, name).values()] == [False]
    assert all(problem["Repaired"] for problem in check(engine, repair=1))
    assert check(engine) == []
    assert [row["Available"] for row in attestations(engine, name).values()] == [True]


def test_a_build_s_are_kept_and_go_out_with_it(engine, registry, docker_cli, assets):
    """Its layers are packed on their way out: what is attested is said of the manifest that the registry gets."""
    name = f"{registry}/results/kept:1"
    build(engine, context(**FILES), t=name, attest=BOTH, buildargs=json.dumps({"FLAVOUR": "sweet"}))
    (own,) = [row for row in listed(engine, name) if row["Kind"] == "image"]
    assert {key: row["Available"] for key, row in attestations(engine, name).items()} == {own["ID"]: True}
    assert engine.client.get(f"/images/{name}/json")["Metadata"]["LastTagTime"] > "2020"
    assert engine.output("cat", "/usr/bin/hello", image=name) == (0, "sweet\n")
    assert name.removesuffix(":1") in engine.docker(docker_cli, "images", "--tree").stdout
    push(engine, name.removesuffix(":1"), tag="1")
    raw = skopeo_inspect(f"docker://{name}", "--raw", "--tls-verify=false")
    image, about = raw["manifests"]
    assert about["annotations"] == {MARKS[0]: image["digest"], MARKS[1]: MARKS[2]}
    plugin = f"{assets}/buildx/usr/libexec/docker/cli-plugins/docker-buildx"
    if os.path.exists(plugin):
        done = subprocess.run([plugin, "imagetools", "inspect", name, "--format", "{{json .SBOM.SPDX}}"], env=engine.environment, capture_output=True, check=True)
        assert json.loads(done.stdout)["spdxVersion"] == "SPDX-2.3"
    manifest = skopeo_inspect(f"docker://{registry}/results/kept@{about['digest']}", "--raw", "--tls-verify=false")
    kinds = set()
    for layer in manifest["layers"]:
        done = subprocess.run(["curl", "-sf", f"http://{registry}/v2/results/kept/blobs/{layer['digest']}"], capture_output=True, check=True)
        statement = json.loads(done.stdout)
        assert {subject["digest"]["sha256"] for subject in statement["subject"]} == {image["digest"].partition(":")[2]}
        kinds.add(statement["predicateType"])
    assert kinds == {"https://spdx.dev/Document", "https://slsa.dev/provenance/v1"}
    _, said = statements(saved(engine, name))
    assert len(said) == 2


def test_two_platforms_are_attested_each(engine):
    arguments = {"platform": "linux/amd64,linux/arm64", "attest": json.dumps({"Provenance": "min"})}
    build(engine, context(Dockerfile="FROM scratch\nCOPY file /\n", file="x"), t="both:1", **arguments)
    rows = listed(engine, "both:1")
    assert [row["Kind"] for row in rows] == ["image", "image", "attestation", "attestation"]
    assert all(row["Available"] for row in rows)
    assert set(attestations(engine, "both:1")) == {row["ID"] for row in rows[:2]}


def test_without_a_name_there_is_no_place_for_one(engine):
    with pytest.raises(ApiError, match="under the image's name: give one") as refused:
        build(engine, context(**FILES), attest=BOTH)
    assert refused.value.http_status == 400
