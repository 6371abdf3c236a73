"""Signing images as cosign does (specs/SIGNATURE_SPEC.md, specs/BUNDLE_SPEC.md), with keys and certificates made on the spot."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


def sign(key, message: bytes, algorithm: hashes.HashAlgorithm | None = None) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(algorithm or hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(message)


KEYS = {"p256": lambda: ec.generate_private_key(ec.SECP256R1()), "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048), "ed25519": ed25519.Ed25519PrivateKey.generate}  # fmt: skip


def public_pem(key) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass
class Made:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def certificate(name: str, issuer: Made | None = None, *, email: str = "", usage: x509.ObjectIdentifier | None = x509.oid.ExtendedKeyUsageOID.CODE_SIGNING,
                start: dt.datetime = NOW - DAY, end: dt.datetime = NOW + DAY) -> Made:  # fmt: skip
    """An authority with `issuer` None or no `email`; a signer's certificate otherwise."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
    by = issuer.certificate.subject if issuer else own
    builder = x509.CertificateBuilder().subject_name(own).issuer_name(by).public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(start).not_valid_after(end)
    builder = builder.add_extension(x509.BasicConstraints(ca=not email, path_length=None), critical=True)
    authority = (issuer.key if issuer else key).public_key()
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
    if email:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(email)]), critical=False)
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    else:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        uses = {name: name in ("key_cert_sign", "crl_sign") for name in ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
                "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")}  # fmt: skip
        builder = builder.add_extension(x509.KeyUsage(**uses), critical=True)
    return Made(key, builder.sign(issuer.key if issuer else key, hashes.SHA256()))


def payload(digest: str, kind: str = "cosign container image signature") -> bytes:
    return json.dumps({"critical": {"identity": {"docker-reference": ""}, "image": {"docker-manifest-digest": digest}, "type": kind}, "optional": None}).encode()


def simple_annotations(key, message: bytes, *chain: x509.Certificate) -> dict[str, str]:
    found = {"dev.cosignproject.cosign/signature": base64.b64encode(sign(key, message)).decode()}
    if chain:
        found["dev.sigstore.cosign/certificate"] = pem(chain[0]).decode()
        found["dev.sigstore.cosign/chain"] = "".join(pem(each).decode() for each in chain[1:])
    return found


def bundle(key, digest: str, *chain: x509.Certificate, predicate: str = "https://sigstore.dev/cosign/sign/v1",
           algorithm: hashes.HashAlgorithm | None = None) -> bytes:  # fmt: skip
    statement = json.dumps({"_type": "https://in-toto.io/Statement/v1", "subject": [{"digest": {"sha256": digest.partition(":")[2]}}],
                            "predicateType": predicate, "predicate": {}}).encode()  # fmt: skip
    kind = b"application/vnd.in-toto+json"
    message = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(statement)).encode(), statement])
    material = {"certificate": {"rawBytes": base64.b64encode(chain[0].public_bytes(serialization.Encoding.DER)).decode()}} if chain else {"publicKey": {"hint": "x"}}
    envelope = {"payload": base64.b64encode(statement).decode(), "payloadType": kind.decode(),
                "signatures": [{"sig": base64.b64encode(sign(key, message, algorithm)).decode()}]}  # fmt: skip
    return json.dumps({"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope}).encode()


def signature_manifest(digest: str, layers: list[tuple[str, bytes, dict]], artifact: str = "") -> tuple[bytes, list[bytes]]:
    """(the manifest, every blob it names); with `artifact` one that refers to the image."""
    rows = [{"mediaType": kind, "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data), "annotations": annotations}
            for kind, data, annotations in layers]  # fmt: skip
    config = b"{}"
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": rows,
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:" + hashlib.sha256(config).hexdigest(), "size": 2}}  # fmt: skip
    if artifact:
        document |= {"artifactType": artifact, "subject": {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1}}
    return json.dumps(document).encode(), [config, *(data for _, data, _ in layers)]
