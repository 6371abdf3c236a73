"""What is attested of images, in the store: which of it is here, and what it holds.

There are no rows: it is what the indexes that an image is a part of list about it, as far as that is here. It comes, is held and goes with the
image. What an attestation is, spec/attestations.py says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from corten.errors import ArchiveRefused, StoreCorrupt
from corten.spec.attestations import about
from corten.spec.image import Descriptor, Index, Manifest
from corten.store.blobs import Blobs

ReadDocument = Callable[[str, str], Manifest | Index]


@dataclass(frozen=True)
class Attestation:
    """`entry` is the index's; `manifest` the digest that it speaks of."""

    entry: Descriptor
    document: Manifest
    manifest: str

    @property
    def parts(self) -> list[Descriptor]:
        """Config and statements."""
        return [self.document.config, *self.document.layers]

    @property
    def blobs(self) -> frozenset[str]:
        return frozenset((self.entry.digest, *(part.digest for part in self.parts)))

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return self.entry.size + sum(part.size for part in self.parts)


class Attestations:
    """`read` gives a stored manifest by digest and media type, and raises StoreCorrupt and ArchiveRefused."""

    def __init__(self, blobs: Blobs, read: ReadDocument) -> None:
        self._blobs, self._read = blobs, read

    def of(self, index: Index, manifest: str) -> list[Attestation]:
        """What is here whole and sound about one of the index's manifests."""
        found: list[Attestation] = []
        for entry in self._entries(index, manifest):
            with suppress(StoreCorrupt, ArchiveRefused):
                document = self._read(entry.digest, entry.media_type)
                if isinstance(document, Manifest):
                    found.append(Attestation(entry, document, manifest))
        return [one for one in found if all(map(self._blobs.has, one.blobs))]

    def held(self, index: Index, manifest: str) -> dict[str, Descriptor]:
        """By digest what is here or should be, broken or not: of a manifest that cannot be read, itself."""
        found: dict[str, Descriptor] = {}
        for entry in self._entries(index, manifest):
            found[entry.digest] = entry
            with suppress(StoreCorrupt, ArchiveRefused):
                document = self._read(entry.digest, entry.media_type)
                if isinstance(document, Manifest):
                    found |= {part.digest: part for part in (document.config, *document.layers)}
        return found

    def _entries(self, index: Index, manifest: str) -> Iterator[Descriptor]:
        """Those whose manifest is here: what was left out when the image came is none."""
        return (entry for entry in about(index, manifest) if self._blobs.has(entry.digest))
