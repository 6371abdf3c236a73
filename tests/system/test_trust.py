"""Pulls under a trust policy: signatures in cosign's places and formats, digests, and what is told of a refusal. Nothing of it stays."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import urllib.request

import pytest

from corten.api.client import ApiError
from corten.spec.platform import this_platform
from tests import cosign
from tests.engines import RunningEngine
from tests.system.test_attestations import attestations, put_index
from tests.system.test_failures import store_content
from tests.system.test_pull import OCI, pull, put_image
from tests.system.test_push import in_registry

KEY, OTHER = cosign.KEYS["p256"](), cosign.KEYS["p256"]()
ARCHITECTURE = this_platform().architecture
POLICY = """\
- repositories: "*/signed"
  mode: require
  keys: [team.pub]
- repositories: "*/warned"
  mode: warn
  keys: [team.pub]
- repositories: "*/certified"
  mode: require
  certificates: [ca.pem]
  identities: ["*@team.example"]
- repositories: "*/pinned"
  mode: require
  digests: {"1": %s}
- repositories: "*/exact"
  mode: require
  digest-only: true
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("trust")
    (made / "team.pub").write_bytes(cosign.public_pem(KEY))
    (made / "ca.pem").write_bytes(cosign.pem(AUTHORITY.certificate))
    (made / "trust.yaml").write_text(POLICY % ("sha256:" + "0" * 64))
    (made / "daemon.json").write_text(json.dumps({"corten.trust": f"{made}/trust.yaml"}))
    return made


@pytest.fixture(scope="module")
def trusting(folder):
    running = RunningEngine("t", "--config-file", f"{folder}/daemon.json")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def nothing_stays(trusting):
    yield
    for image in trusting.client.get("/images/json"):
        trusting.client.delete(f"/images/{image['Id']}", force=1)


AUTHORITY = cosign.certificate("authority")
SIGNER = cosign.certificate("signer", AUTHORITY, email="release@team.example")


def simple(key, digest: str, *chain) -> tuple[str, bytes, dict]:
    message = cosign.payload(digest)
    return cosign.SIMPLE, message, cosign.simple_annotations(key, message, *chain)


def put_signatures(registry, repository: str, digest: str, *layers: tuple[str, bytes, dict], artifact: str = "", tag: str = "") -> dict:
    document, blobs = cosign.signature_manifest(digest, list(layers), artifact)
    for blob in blobs:
        registry.put(repository, "blobs", blob, "application/octet-stream")
    tag = tag or f"{digest.replace(':', '-')}.sig"
    return registry.put(repository, "manifests", document, cosign.OCI_MANIFEST, *([] if artifact else [tag]))


def put_referrers(registry, repository: str, digest: str, *rows: dict, tag: bool = False) -> None:
    index = json.dumps({"schemaVersion": 2, "mediaType": cosign.OCI_INDEX, "manifests": list(rows)}).encode()
    if tag:
        registry.put(repository, "manifests", index, cosign.OCI_INDEX, digest.replace(":", "-"))
    else:
        registry.documents[f"/v2/{repository}/referrers/{digest}"] = (cosign.OCI_INDEX, index)


def refusal(engine, name: str) -> str:
    before = store_content(engine)
    with pytest.raises(ApiError) as refused:
        pull(engine, name)
    assert store_content(engine) == before
    with pytest.raises(ApiError, match="No such image"):
        engine.client.get(f"/images/{name}/json")
    return refused.value.message


def statuses(engine, name: str) -> list[str]:
    return [message["status"] for message in pull(engine, name)]


def test_an_unsigned_image_is_refused_before_anything_is_downloaded(trusting, fake, folder):
    registry = fake()
    row = put_image(registry, "signed", b"x", ARCHITECTURE, "1")
    assert refusal(trusting, f"{registry.address}/signed:1") == (
        f"{registry.address}/signed:1 is not trusted: {registry.address} has no signature of {row['digest']}; wanted is one by team.pub "
        f"({folder}/trust.yaml line 1 asks for it)")  # fmt: skip
    assert not any("/blobs/" in path for path, _ in registry.asked)


def test_a_signature_in_its_tag(trusting, fake, folder):
    registry = fake()
    row = put_image(registry, "signed", b"x", ARCHITECTURE, "1")
    put_signatures(registry, "signed", row["digest"], simple(OTHER, row["digest"]), simple(KEY, row["digest"]))
    assert f"Signature: {row['digest']} is signed by team.pub ({folder}/trust.yaml line 1)" in statuses(trusting, f"{registry.address}/signed:1")
    assert trusting.client.get(f"/images/{registry.address}/signed:1/json")["RepoTags"] == [f"{registry.address}/signed:1"]


def test_signatures_that_do_not_count(trusting, fake):
    registry = fake()
    row = put_image(registry, "signed", b"x", ARCHITECTURE, "1")
    elsewhere = "sha256:" + "b" * 64
    put_signatures(registry, "signed", row["digest"], simple(OTHER, row["digest"]), simple(KEY, elsewhere), (cosign.SIMPLE, b"<html>", {}))
    told = refusal(trusting, f"{registry.address}/signed:1")
    assert f"no signature of {row['digest']} is by team.pub" in told
    for reason in ("not made with team.pub", f"it speaks of {elsewhere}", "it is not in cosign's format"):
        assert reason in told


@pytest.mark.parametrize("by_tag", [False, True])
def test_signatures_among_the_referrers(trusting, fake, by_tag):
    registry = fake()
    row = put_image(registry, "signed", b"x", ARCHITECTURE, "1", "2")
    digest = row["digest"]
    attestation = put_signatures(registry, "signed", digest, (cosign.BUNDLE, cosign.bundle(KEY, digest, predicate="https://slsa.dev/provenance/v1"), {}),
                                 artifact=cosign.BUNDLE)  # fmt: skip
    put_referrers(registry, "signed", digest, attestation | {"artifactType": cosign.BUNDLE}, tag=by_tag)
    assert "it is an attestation" in refusal(trusting, f"{registry.address}/signed:1")
    bundle = put_signatures(registry, "signed", digest, (cosign.BUNDLE, cosign.bundle(KEY, digest), {}), artifact=cosign.BUNDLE)
    put_referrers(registry, "signed", digest, attestation | {"artifactType": cosign.BUNDLE}, bundle | {"artifactType": cosign.BUNDLE}, tag=by_tag)
    pull(trusting, f"{registry.address}/signed:1")
    kind = "application/vnd.dev.cosign.artifact.sig.v1+json"
    old = put_signatures(registry, "signed", digest, simple(KEY, digest), artifact=kind)
    put_referrers(registry, "signed", digest, old | {"artifactType": kind}, tag=by_tag)
    pull(trusting, f"{registry.address}/signed:2")


def test_of_an_index_either_it_or_the_platform_s_manifest_is_signed(trusting, fake):
    registry = fake()
    for repository, sign_index in (("a/signed", True), ("b/signed", False)):
        row = put_image(registry, repository, repository.encode(), ARCHITECTURE) | {"platform": {"architecture": ARCHITECTURE, "os": "linux"}}
        index = json.dumps({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": [row]}).encode()
        top = registry.put(repository, "manifests", index, OCI + "index.v1+json", "1")
        refusal(trusting, f"{registry.address}/{repository}:1")
        digest = top["digest"] if sign_index else row["digest"]
        put_signatures(registry, repository, digest, simple(KEY, digest))
        pull(trusting, f"{registry.address}/{repository}:1")


def test_what_is_attested_is_as_good_as_the_index_that_lists_it(trusting, fake, folder):
    registry = fake()
    for repository, sign_index in (("a/signed", True), ("b/signed", False)):
        top = put_index(registry, repository, [ARCHITECTURE])
        own = json.loads(registry.documents[f"/v2/{repository}/manifests/1"][1])["manifests"][0]
        digest = top["digest"] if sign_index else own["digest"]
        put_signatures(registry, repository, digest, simple(KEY, digest))
        shown = statuses(trusting, f"{registry.address}/{repository}:1")
        (about,) = attestations(trusting, f"{registry.address}/{repository}:1").values()
        left_out = f"What is attested of {own['digest']} is left out: only the manifest is vouched for, not the index that lists that ({folder}/trust.yaml line 1)"
        assert (about["Available"], left_out in shown) == (sign_index, not sign_index)
        trusting.client.delete(f"/images/{registry.address}/{repository}:1", force=1)


def test_a_certificate(trusting, fake):
    registry = fake()
    row = put_image(registry, "certified", b"x", ARCHITECTURE, "1")
    stranger = cosign.certificate("stranger", AUTHORITY, email="release@other.example")
    put_signatures(registry, "certified", row["digest"], simple(stranger.key, row["digest"], stranger.certificate))
    assert "its certificate is for release@other.example, not for *@team.example" in refusal(trusting, f"{registry.address}/certified:1")
    put_signatures(registry, "certified", row["digest"], simple(SIGNER.key, row["digest"], SIGNER.certificate, AUTHORITY.certificate))
    pull(trusting, f"{registry.address}/certified:1")


def test_warned_of_and_pulled_all_the_same(trusting, fake):
    registry = fake()
    put_image(registry, "warned", b"x", ARCHITECTURE, "1")
    assert any(status.startswith(f"Warning: {registry.address}/warned:1 is not trusted: ") for status in statuses(trusting, f"{registry.address}/warned:1"))


def test_digests(trusting, fake, folder):
    registry = fake()
    row, other = (put_image(registry, "pinned", content, ARCHITECTURE, tag) for content, tag in ((b"x", "1"), (b"y", "2")))
    pinned = "sha256:" + "0" * 64
    assert f"its digest is {row['digest']}, pinned is {pinned} ({folder}/trust.yaml line 11" in refusal(trusting, f"{registry.address}/pinned:1")
    (folder / "trust.yaml").write_text(POLICY % row["digest"])  # an edit holds at once
    pull(trusting, f"{registry.address}/pinned:1")
    assert f"its digest {other['digest']} is none of those that are pinned" in refusal(trusting, f"{registry.address}/pinned:2")
    pull(trusting, f"{registry.address}/pinned@{row['digest']}")
    exact = put_image(registry, "exact", b"x", ARCHITECTURE, "1")
    assert f"must be asked for by digest, and {registry.address}/exact@{exact['digest']} is what it is now" in refusal(trusting, f"{registry.address}/exact:1")
    pull(trusting, f"{registry.address}/exact@{exact['digest']}")


def test_an_image_that_is_here_gets_no_name_that_is_not_its_own(trusting, fake):
    """Its content came under a name that nothing is asked of."""
    registry = fake()
    put_image(registry, "free", b"x", ARCHITECTURE, "1")
    put_image(registry, "signed", b"x", ARCHITECTURE, "1")
    pull(trusting, f"{registry.address}/free:1")
    refusal(trusting, f"{registry.address}/signed:1")


def test_a_real_registry(trusting, registry):
    """docker-registry 2.8 has no referrers API: the tag, and the tag of referrers."""
    def send(repository: str, what: str, data: bytes, kind: str) -> None:
        url = f"http://{registry}/v2/{repository}/{what}"
        if what.startswith("blobs"):
            with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10) as response:
                url = response.headers["Location"] + "&digest=sha256:" + hashlib.sha256(data).hexdigest()
        urllib.request.urlopen(urllib.request.Request(url, data=data, method="PUT", headers={"Content-Type": kind}), timeout=10).close()

    target = "team/signed"
    _, manifest = in_registry(registry, "busybox", "latest")
    for blob in (manifest["config"], *manifest["layers"]):
        url = f"http://{registry}/v2/{target}/blobs/uploads/?mount={blob['digest']}&from=busybox"
        urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10).close()
    data = json.dumps(manifest).encode()
    send(target, "manifests/1", data, manifest["mediaType"])
    digest = in_registry(registry, target, "1")[0]
    assert "has no signature of" in refusal(trusting, f"{registry}/{target}:1")
    document, blobs = cosign.signature_manifest(digest, [simple(KEY, digest)])
    for blob in blobs:
        send(target, "blobs/uploads/", blob, "application/octet-stream")
    send(target, f"manifests/{digest.replace(':', '-')}.sig", document, cosign.OCI_MANIFEST)
    pull(trusting, f"{registry}/{target}:1")


def test_a_policy_that_cannot_be_read(trusting, fake, folder):
    """Nothing is pulled meanwhile, and no engine starts with it."""
    registry = fake()
    put_image(registry, "free", b"x", ARCHITECTURE, "1")
    good = (folder / "trust.yaml").read_text()
    (folder / "trust.yaml").write_text("- repositories: x\n  mode: require\n")
    try:
        assert f"trust policy {folder}/trust.yaml line 1: mode require without" in refusal(trusting, f"{registry.address}/free:1")
        done = subprocess.run([os.path.join(os.path.dirname(sys.executable), "cortend"), "--config-file", f"{folder}/daemon.json", "--data-root", f"{folder}/root"],
                              capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
        assert done.returncode != 0
        assert "trust.yaml line 1" in done.stderr
    finally:
        (folder / "trust.yaml").write_text(good)
