"""Signatures in cosign's formats: reading them, and telling whether a trusted key or certificate made one. No network, no files.

Two formats hold the same three things, what was signed, the signature, and perhaps a certificate: simple signing (cosign
specs/SIGNATURE_SPEC.md) and the sigstore bundle (specs/BUNDLE_SPEC.md, cosign 3's default), whose message is a DSSE envelope
(secure-systems-lab/dsse protocol.md) around an in-toto statement. Transparency logs and time stamps are not evaluated: a
certificate must be valid now.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509 import verification

from corten.errors import Invalid
from corten.spec.foreign_json import decode

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIGNATURE_ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
ARTIFACTS = frozenset({SIGNATURE_ARTIFACT, BUNDLE})  # artifact types of the referrers that hold signatures
_SIGNED_IMAGE = "cosign container image signature"
_SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
_ANNOTATION = "dev.cosignproject.cosign/signature"
_CERTIFICATE, _CHAIN = "dev.sigstore.cosign/certificate", "dev.sigstore.cosign/chain"
_T = TypeVar("_T")
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
_CURVE_HASHES: dict[str, hashes.HashAlgorithm] = {"secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}


class Unusable(Invalid):
    """Why a signature does not count. The text is for the reader of a refusal."""


@dataclass(frozen=True)
class Signature:
    """`message` are the signed bytes, `subjects` the digests that they speak of; `certificates` the signer's first, then its chain."""

    message: bytes
    signature: bytes
    subjects: frozenset[str]
    certificates: tuple[x509.Certificate, ...] = ()


@dataclass(frozen=True)
class Signer:
    """A public key, or a certificate: of the signer itself, or of an authority. `name` is what the policy calls it."""

    name: str
    key: PublicKey | None = None
    certificate: x509.Certificate | None = None


# --- reading
def load_key(name: str, data: bytes) -> Signer:
    """A PEM public key as `cosign generate-key-pair` writes it. Raises Unusable."""
    try:
        key = serialization.load_pem_public_key(data)
    except ValueError as error:
        raise Unusable(f"no public key in PEM: {error}") from None
    return Signer(name, key=_usable(key))


def load_certificate(name: str, data: bytes) -> list[Signer]:
    """Every certificate of a PEM file. Raises Unusable."""
    try:
        return [Signer(name, certificate=certificate) for certificate in x509.load_pem_x509_certificates(data)]
    except ValueError as error:
        raise Unusable(f"no certificate in PEM: {error}") from None


def _usable(key: Any) -> PublicKey:
    if not isinstance(key, PublicKey):
        raise Unusable("keys of its kind are not supported: want ECDSA, RSA or Ed25519")
    return key


class _Image(msgspec.Struct, rename="kebab"):
    docker_manifest_digest: str


class _Critical(msgspec.Struct):
    image: _Image
    type: str


class _Payload(msgspec.Struct):
    critical: _Critical


def read_simple_signing(payload: bytes, annotations: Mapping[str, str]) -> Signature:
    """A layer of a signature's manifest: the blob, and the descriptor's annotations. Raises Unusable."""
    with_ = _decode(payload, _Payload)
    if with_.critical.type != _SIGNED_IMAGE:
        raise Unusable(f"it is a {with_.critical.type!r}, not a {_SIGNED_IMAGE!r}")
    pems = "\n".join(annotations.get(key, "") for key in (_CERTIFICATE, _CHAIN)).strip()
    try:
        certificates = x509.load_pem_x509_certificates(pems.encode()) if pems else []
    except ValueError as error:
        raise Unusable(f"its certificate cannot be read: {error}") from None
    subjects = frozenset({with_.critical.image.docker_manifest_digest})
    return Signature(payload, _base64(annotations.get(_ANNOTATION, "")), subjects, tuple(certificates))


class _Raw(msgspec.Struct, rename="camel"):
    raw_bytes: str


class _Chain(msgspec.Struct):
    certificates: list[_Raw]


class _Material(msgspec.Struct, rename="camel"):
    certificate: _Raw | None = None
    x509_certificate_chain: _Chain | None = None


class _EnvelopeSignature(msgspec.Struct):
    sig: str


class _Envelope(msgspec.Struct, rename="camel"):
    payload: str
    payload_type: str
    signatures: list[_EnvelopeSignature]


class _Bundle(msgspec.Struct, rename="camel"):
    verification_material: _Material
    dsse_envelope: _Envelope


class _Subject(msgspec.Struct):
    digest: dict[str, str]


class _Statement(msgspec.Struct, rename="camel"):
    subject: list[_Subject]
    predicate_type: str


def read_bundle(document: bytes, _annotations: Mapping[str, str]) -> Signature:
    """A sigstore bundle of `cosign sign`. Raises Unusable, also for attestations: what they say of an image is not that it is good."""
    bundle = _decode(document, _Bundle)
    envelope = bundle.dsse_envelope
    payload = _base64(envelope.payload)
    statement = _decode(payload, _Statement)
    if statement.predicate_type != _SIGN_PREDICATE:
        raise Unusable(f"it is an attestation ({statement.predicate_type}), no signature")
    if len(envelope.signatures) != 1:
        raise Unusable(f"its envelope has {len(envelope.signatures)} signatures, not one")
    material = bundle.verification_material
    raw = [material.certificate] if material.certificate else material.x509_certificate_chain.certificates if material.x509_certificate_chain else []
    try:
        certificates = tuple(x509.load_der_x509_certificate(_base64(each.raw_bytes)) for each in raw)
    except ValueError as error:
        raise Unusable(f"its certificate cannot be read: {error}") from None
    kind = envelope.payload_type.encode()
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    subjects = frozenset(f"sha256:{subject.digest['sha256']}" for subject in statement.subject if "sha256" in subject.digest)
    return Signature(message, _base64(envelope.signatures[0].sig), subjects, certificates)


# media type of a layer -> what reads it
READERS: dict[str, Callable[[bytes, Mapping[str, str]], Signature]] = {SIMPLE_SIGNING: read_simple_signing, BUNDLE: read_bundle}


def _decode(data: bytes, kind: type[_T]) -> _T:
    try:
        return decode(data, kind)
    except msgspec.DecodeError as error:
        raise Unusable(f"it is not in cosign's format: {error}") from None


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unusable(f"it is not base64: {error}") from None


# --- judging
def judge(signature: Signature, digests: Sequence[str], signers: Sequence[Signer], identities: Sequence[str], now: datetime) -> Signer:
    """Which signer signed one of the digests. Raises Unusable with what speaks against every one of them."""
    if not signature.subjects & set(digests):
        raise Unusable(f"it speaks of {', '.join(sorted(signature.subjects)) or 'nothing'}")
    against: list[str] = []
    for signer in signers:
        try:
            key = signer.key or _key_by_certificate(signature.certificates, signer, identities, now)
        except Unusable as error:
            against.append(error.message)
            continue
        if is_signed_by(key, signature.signature, signature.message):
            return signer
        against.append(f"not made with {signer.name}")
    raise Unusable("; ".join(dict.fromkeys(against)))


def is_signed_by(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """With SHA-256, or with the hash of the key's curve, as cosign's versions do."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        candidates = (hashes.SHA256(), _CURVE_HASHES.get(key.curve.name, hashes.SHA256()))
        return any(_verifies(key, signature, message, ec.ECDSA(candidate)) for candidate in candidates)
    if isinstance(key, rsa.RSAPublicKey):
        return _verifies(key, signature, message, padding.PKCS1v15(), hashes.SHA256())
    return _verifies(key, signature, message)


def _verifies(key: Any, *what: Any) -> bool:
    try:
        key.verify(*what)
    except InvalidSignature:
        return False
    return True


def _key_by_certificate(shown: Sequence[x509.Certificate], signer: Signer, identities: Sequence[str], now: datetime) -> PublicKey:
    """The key of the certificate shown with a signature (or of the listed one, where none is), if the signer's certificate vouches for it."""
    assert signer.certificate is not None
    leaf, chain = (shown[0], shown[1:]) if shown else (signer.certificate, ())
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        raise Unusable(f"the certificate {leaf.subject.rfc4514_string()} is valid from {leaf.not_valid_before_utc:%F} to {leaf.not_valid_after_utc:%F} only")
    if leaf != signer.certificate:
        _check_chain(leaf, chain, signer, now)
    names = _identities(leaf)
    if identities and not any(fnmatchcase(name, pattern) for name in names for pattern in identities):
        raise Unusable(f"its certificate is for {', '.join(names) or 'nobody'}, not for {' or '.join(identities)}")
    return _usable(leaf.public_key())


def _check_chain(leaf: x509.Certificate, chain: Sequence[x509.Certificate], signer: Signer, now: datetime) -> None:
    assert signer.certificate is not None
    anything = verification.ExtensionPolicy.permit_all()
    builder = verification.PolicyBuilder().store(verification.Store([signer.certificate])).time(now)
    verifier = builder.extension_policies(ca_policy=verification.ExtensionPolicy.webpki_defaults_ca(), ee_policy=anything).build_client_verifier()
    try:
        verifier.verify(leaf, list(chain))
    except verification.VerificationError as error:
        raise Unusable(f"its certificate is not from {signer.name}: {error}") from None
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if x509.oid.ExtendedKeyUsageOID.CODE_SIGNING not in usage:
        raise Unusable("its certificate is not for code signing")


def _identities(certificate: x509.Certificate) -> list[str]:
    """The names of its subjectAltName: addresses, URIs, hosts."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names if isinstance(name, x509.RFC822Name | x509.UniformResourceIdentifier | x509.DNSName)]
