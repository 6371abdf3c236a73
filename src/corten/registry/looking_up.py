"""What a registry has under a name, for `GET /distribution/{name}/json`: the descriptor, and for which platforms. Nothing is stored.

Source: moby daemon/server/router/distribution at v28.5.2. Docker tells the platform of its own manifest format only, not of OCI's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from corten.errors import ArchiveRefused
from corten.registry.client import Repository
from corten.spec.foreign_json import decode
from corten.spec.image import Index, parse_manifest
from corten.spec.reference import Reference

_CONFIG_LIMIT = 8 << 20
_PLATFORM_KEYS = ("architecture", "os", "os.version", "os.features", "variant")


@dataclass(frozen=True)
class Published:
    """`size` is the document's in bytes; `platforms` are OCI platform objects."""

    media_type: str
    digest: str
    size: int
    platforms: list[dict[str, Any]]


async def look_up(remote: Repository, reference: Reference) -> Published:
    """Raises what the registry refuses, ArchiveRefused for what is not what it says."""
    data, media_type, digest = await remote.manifest(reference.digest or reference.tag)
    document = parse_manifest(data, media_type)
    if isinstance(document, Index):
        rows = [row["platform"] for row in msgspec.json.decode(data)["manifests"] if row.get("platform")]
    else:
        rows = [_decode(await remote.document(document.config.digest, _CONFIG_LIMIT))]
    platforms = [{key: row[key] for key in _PLATFORM_KEYS if row.get(key)} for row in rows]
    return Published(media_type, digest, len(data), [platform for platform in platforms if platform])


def _decode(config: bytes) -> dict[str, Any]:
    try:
        return decode(config, dict[str, Any])
    except msgspec.DecodeError as error:
        raise ArchiveRefused(f"invalid image config: {error}") from None
