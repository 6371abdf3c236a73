"""What a name's index lists, as `manifests=1` of the image list and of inspect shows it. Pure.

Source: ManifestSummary of the Engine API 1.51; moby daemon/containerd/image_list.go at v28.5.2.
"""

from __future__ import annotations

from typing import Any

from corten.engine.images import Manifests, PlatformManifest
from corten.spec.attestations import REFERENCE_DIGEST, REFERENCE_TYPE


def manifests_view(found: Manifests) -> dict[str, Any]:
    return {"Descriptor": found.descriptor, "Manifests": [_manifest(row) for row in found.rows]}


def _manifest(row: PlatformManifest) -> dict[str, Any]:
    """What is not here has no size."""
    marks = row.descriptor.get("annotations") or {}
    shown: dict[str, Any] = {
        "ID": row.descriptor["digest"], "Descriptor": row.descriptor, "Available": row.available,
        "Size": {"Total": row.packed + row.unpacked, "Content": row.packed},
    }  # fmt: skip
    if REFERENCE_TYPE in marks:
        return shown | {"Kind": "attestation", "AttestationData": {"For": marks.get(REFERENCE_DIGEST, "")}}
    own = row.image.config.platform if row.image else None
    platform = row.descriptor.get("platform") or ({"architecture": own.architecture, "os": own.os} if own else {})
    data = {"Platform": platform, "Size": {"Unpacked": row.unpacked}, "Containers": row.containers}
    return shown | {"Kind": "image", "ImageData": data}
