"""What is attested of an image, as an index lists it: a manifest whose layers are in-toto statements about another manifest of the index. Pure.

Source: BuildKit docs/attestations/attestation-storage.md; in-toto attestation framework v0.1 (Statement).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from corten.spec.digest import digest_of, encoded
from corten.spec.image import Descriptor, Index

IN_TOTO = "application/vnd.in-toto+json"
REFERENCE_TYPE, REFERENCE_DIGEST = "vnd.docker.reference.type", "vnd.docker.reference.digest"
ATTESTATION = "attestation-manifest"
PREDICATE_TYPE = "in-toto.io/predicate-type"


def attests(entry: Descriptor) -> str:
    """The digest of the manifest that an index's entry is about; empty for an image to run, and for what else an index may list."""
    marks = entry.annotations or {}
    return marks.get(REFERENCE_DIGEST, "") if marks.get(REFERENCE_TYPE) == ATTESTATION else ""


def about(index: Index, manifest: str) -> list[Descriptor]:
    """What an index lists that attests one of its manifests."""
    return [entry for entry in index.manifests if attests(entry) == manifest]


@dataclass(frozen=True)
class Moved:
    """An attestation that speaks of another manifest: the index's entry, the attestation's manifest, and its blobs by digest."""

    entry: dict[str, Any]
    manifest: bytes
    blobs: Mapping[str, bytes]


def moved(entry: Mapping[str, Any], manifest: bytes, blobs: Mapping[str, bytes], old: str, new: str) -> Moved:
    """The same said of the manifest `new`, which has the layers of `old` packed otherwise. What speaks of something else stays as it is.

    `blobs`: config and statements by digest. Nothing is changed where both are the same. Raises msgspec.DecodeError.
    """
    if old == new:
        return Moved(dict(entry), manifest, blobs)
    document = msgspec.json.decode(manifest, type=dict[str, Any])
    found: dict[str, bytes] = {}
    renamed: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for row in document["layers"]:
        data = blobs[row["digest"]]
        if row["mediaType"] == IN_TOTO:
            data = _restated(data, old, new)
        rows.append(_kept(row, data, found, renamed))
    config = msgspec.json.decode(blobs[document["config"]["digest"]], type=dict[str, Any])
    if "rootfs" in config:
        config["rootfs"]["diff_ids"] = [renamed.get(each, each) for each in config["rootfs"]["diff_ids"]]
    head = _kept(document["config"], msgspec.json.encode(config), found, renamed)
    data = msgspec.json.encode(document | {"config": head, "layers": rows})
    annotations = entry.get("annotations", {}) | {REFERENCE_DIGEST: new}
    return Moved({**entry, "digest": digest_of(data), "size": len(data), "annotations": annotations}, data, found)


def _kept(row: Mapping[str, Any], data: bytes, found: dict[str, bytes], renamed: dict[str, str]) -> dict[str, Any]:
    """The descriptor of what is in a descriptor's place now."""
    digest = digest_of(data)
    found[digest] = data
    renamed[row["digest"]] = digest
    return {**row, "digest": digest, "size": len(data)}


def _restated(statement: bytes, old: str, new: str) -> bytes:
    """Subjects that are the old manifest are the new one; the predicate's bytes stay."""
    document = msgspec.json.decode(statement, type=dict[str, msgspec.Raw])
    subjects = msgspec.json.decode(document.get("subject", msgspec.Raw(b"[]")), type=list[dict[str, Any]])
    if not any(subject.get("digest", {}).get("sha256") == encoded(old) for subject in subjects):
        return statement
    for subject in subjects:
        if subject.get("digest", {}).get("sha256") == encoded(old):
            subject["digest"] = {**subject["digest"], "sha256": encoded(new)}
    return msgspec.json.encode({**document, "subject": subjects})
