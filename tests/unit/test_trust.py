"""The trust policy's text, and which signatures count. Keys and signatures are made here; what is refused is refused by its reason."""

from __future__ import annotations

import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import Invalid
from corten.registry import rate_limit
from corten.registry.auth import first_reason
from corten.registry.signatures import (
    READERS,
    Unusable,
    judge,
    load_certificate,
    load_key,
    read_bundle,
    read_simple_signing,
)
from corten.registry.trust import Trust
from corten.spec.reference import parse_reference
from corten.spec.trust import parse_policy, rule_for
from tests import cosign

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
POLICY = b"""\
- repositories: reg.example/team/*
  mode: require
  keys: [team.pub]
- repositories: [debian, reg.example/warned]
  mode: warn
  digests: {"12": sha256:%s}
- repositories: "*"
  mode: off
""" % (b"a" * 64)  # fmt: skip


def rule(name: str):
    return rule_for(parse_policy(POLICY, "/p"), parse_reference(name))


def test_the_first_rule_that_covers_a_reference():
    assert (rule("reg.example/team/a:1").line, rule("reg.example/team/a/b@" + DIGEST).line) == (1, 1)
    assert rule("debian").line == rule("docker.io/library/debian:12").line == rule("reg.example/warned").line == 4
    assert rule("reg.example/other") is rule("team/a") is None
    assert rule("debian").place == "/p line 4"


@pytest.mark.parametrize(("text", "told"), [
    ("x: 1", "want a list of rules"), ("", "want a list of rules"), ("- [", "while parsing"), ("- 1", "line 1: want a rule"),
    ("\n- repositories: a\n  mode: must\n", "line 2: Invalid enum value 'must'"), ("- {repositories: a, mode: require}", "line 1: mode require without keys"),
    ("- {repositories: a, mode: warn, key: x}", "unknown field `key`"), ("- {repositories: a, mode: off, line: 9}", "unknown field `line`"),
    ("- {repositories: a, mode: warn, keys: [x], identities: [y]}", "identities are those of certificates"), ("- {mode: off}", "missing required field `repositories`"),
    ("- {repositories: a, mode: warn, digests: {'1': sha256:x}}", "'sha256:x' is no digest"),
])  # fmt: skip
def test_a_bad_policy_is_refused_by_line(text, told):
    with pytest.raises(Invalid, match="trust policy /p") as refused:
        parse_policy(text.encode(), "/p")
    assert told in refused.value.message


@given(st.binary(max_size=200))
def test_no_text_does_harm(text):
    try:
        parse_policy(text, "/p")
    except Invalid as error:
        assert error.message.startswith("trust policy /p")


def test_a_key_that_cannot_be_read_is_named(tmp_path):
    policy = tmp_path / "trust.yaml"
    policy.write_text("- {repositories: a, mode: off}\n- repositories: b\n  mode: require\n  keys: [team.pub]\n")
    with pytest.raises(Invalid, match=r"trust.yaml line 2: team.pub: No such file"):
        Trust(str(policy)).rules()
    (tmp_path / "team.pub").write_text("no key")
    with pytest.raises(Invalid, match=r"trust.yaml line 2: team.pub: no public key in PEM"):
        Trust(str(policy)).rules()
    (tmp_path / "team.pub").write_bytes(cosign.public_pem(cosign.KEYS["p256"]()))
    assert len(Trust(str(policy)).rules()) == 2
    with pytest.raises(Invalid, match="trust policy /nosuch: No such file"):
        Trust("/nosuch").rules()


# --- signatures
def judged(signature, signers, identities=(), digests=(DIGEST,), now=cosign.NOW) -> str:
    return judge(signature, digests, signers, identities, now).name


@pytest.mark.parametrize("kind", cosign.KEYS)
def test_both_formats_with_every_kind_of_key(kind):
    key, other = cosign.KEYS[kind](), cosign.KEYS[kind]()
    message = cosign.payload(DIGEST)
    found = [read_simple_signing(message, cosign.simple_annotations(key, message)), read_bundle(cosign.bundle(key, DIGEST), {})]
    signer, stranger = load_key("mine", cosign.public_pem(key)), load_key("other", cosign.public_pem(other))
    for signature in found:
        assert judged(signature, [stranger, signer]) == "mine"
        with pytest.raises(Unusable, match="not made with other"):
            judged(signature, [stranger])
        with pytest.raises(Unusable, match=f"it speaks of {DIGEST}"):
            judged(signature, [signer], digests=(OTHER,))


def test_the_hash_of_a_larger_curve():
    key = cosign.KEYS["p384"]()
    assert judged(read_bundle(cosign.bundle(key, DIGEST, algorithm=hashes.SHA384()), {}), [load_key("k", cosign.public_pem(key))]) == "k"


def test_a_changed_message_is_not_signed():
    key = cosign.KEYS["p256"]()
    annotations = cosign.simple_annotations(key, cosign.payload(OTHER))
    with pytest.raises(Unusable, match="not made with k"):
        judged(read_simple_signing(cosign.payload(DIGEST), annotations), [load_key("k", cosign.public_pem(key))])


def test_what_is_no_signature_of_an_image():
    key = cosign.KEYS["p256"]()
    with pytest.raises(Unusable, match="it is a 'something'"):
        read_simple_signing(cosign.payload(DIGEST, "something"), {})
    with pytest.raises(Unusable, match=r"it is an attestation \(https://slsa.dev"):
        read_bundle(cosign.bundle(key, DIGEST, predicate="https://slsa.dev/provenance/v1"), {})
    document = json.loads(cosign.bundle(key, DIGEST))
    document["dsseEnvelope"]["signatures"] *= 2
    with pytest.raises(Unusable, match="2 signatures"):
        read_bundle(json.dumps(document).encode(), {})


@given(st.sampled_from(sorted(READERS)), st.binary(max_size=200), st.dictionaries(st.sampled_from(
    ["dev.cosignproject.cosign/signature", "dev.sigstore.cosign/certificate", "dev.sigstore.cosign/chain"]), st.text(max_size=80)))  # fmt: skip
def test_no_document_does_harm(kind, document, annotations):
    for data in (document, cosign.payload(DIGEST)):
        try:
            READERS[kind](data, annotations)
        except Unusable:
            continue


AUTHORITY = cosign.certificate("authority")
BETWEEN = cosign.certificate("between", AUTHORITY)
SIGNER = cosign.certificate("signer", BETWEEN, email="release@team.example")


def by(made: cosign.Made, *chain: cosign.Made):
    message = cosign.payload(DIGEST)
    return read_simple_signing(message, cosign.simple_annotations(made.key, message, made.certificate, *(each.certificate for each in chain)))


def listed(made: cosign.Made):
    return load_certificate("ca.pem", cosign.pem(made.certificate))


def test_certificates():
    signature = by(SIGNER, BETWEEN)
    assert judged(signature, listed(AUTHORITY)) == judged(signature, listed(AUTHORITY), ["*@team.example"]) == "ca.pem"
    assert judged(by(SIGNER), listed(BETWEEN)) == judged(by(SIGNER), listed(SIGNER)) == "ca.pem"
    direct = cosign.certificate("signer", AUTHORITY, email="release@team.example")
    assert judged(read_bundle(cosign.bundle(direct.key, DIGEST, direct.certificate), {}), listed(AUTHORITY)) == "ca.pem"
    message = cosign.payload(DIGEST)  # the certificate is the policy's alone
    assert judged(read_simple_signing(message, cosign.simple_annotations(SIGNER.key, message)), listed(SIGNER)) == "ca.pem"


@pytest.mark.parametrize(("signature", "identities", "told"), [
    (by(SIGNER), (), "its certificate is not from ca.pem"),
    (by(SIGNER, BETWEEN), ["*@other.example"], r"is for release@team.example, not for \*@other.example"),
    (by(cosign.certificate("late", AUTHORITY, email="a@b", end=cosign.NOW - cosign.DAY / 2)), (), "CN=late is valid from"),
    (by(cosign.certificate("web", AUTHORITY, email="a@b", usage=x509.oid.ExtendedKeyUsageOID.SERVER_AUTH)), (), "not for code signing"),
    (by(cosign.certificate("self", email="a@b")), (), "its certificate is not from ca.pem"),
    (by(cosign.certificate("below", cosign.Made(SIGNER.key, SIGNER.certificate), email="a@b"), SIGNER, BETWEEN), (), "its certificate is not from ca.pem"),
    (by(cosign.Made(cosign.KEYS["p256"](), cosign.certificate("theirs", AUTHORITY, email="a@b").certificate)), (), "not made with ca.pem"),
])  # fmt: skip
def test_certificates_that_do_not_count(signature, identities, told):
    with pytest.raises(Unusable, match=told):
        judged(signature, listed(AUTHORITY), identities)


# --- what registries say
def test_rate_limits():
    assert rate_limit.described({"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "76;w=21600"}) == "76 of 100 pulls left, counted over 6 h"
    assert rate_limit.described({"RateLimit-Limit": "5;w=90", "RateLimit-Remaining": "0"}) == "0 of 5 pulls left, counted over 90 s"
    assert rate_limit.described({"RateLimit-Limit": "many", "RateLimit-Remaining": "0"}) == rate_limit.described({}) == ""


def test_reasons():
    assert first_reason(b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}') == "toomanyrequests: slow down"
    assert first_reason(b"<html>") == first_reason(b'{"errors":[]}') == first_reason(b'{"errors":{}}') == ""
