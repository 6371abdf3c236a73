"""Layers' blobs that the store has let go (store/thinning.py), from the registries that are known to have them, when these very bytes are needed."""

from __future__ import annotations

from corten.errors import CortenError, StoreCorrupt
from corten.registry.auth import Credentials
from corten.registry.blob_download import refetch_blob
from corten.registry.client import Repository
from corten.registry.hosts import RegistryHosts
from corten.spec.image import Descriptor
from corten.spec.reference import parse_reference
from corten.store.blobs import Blobs
from corten.store.layers import Layers


class Refetching:
    def __init__(self, hosts: RegistryHosts, blobs: Blobs, layers: Layers) -> None:
        self._hosts, self._blobs, self._layers = hosts, blobs, layers

    async def bring_back(self, blob: Descriptor, credentials: Credentials | None = None, domain: str = "") -> str:
        """Have the blob here again, for as long as the caller holds a lease; where it came from, or empty if it was here.

        `credentials` are those of the registry `domain`; others are asked without. Raises StoreCorrupt, which says why nobody gave it.
        """
        if self._blobs.has(blob.digest):
            return ""
        reason = "no registry is known that has it: remove its image, and load or build it again"
        for place in self._layers.tars.origins(blob.digest):
            reference = parse_reference(place)
            for endpoint in self._hosts.endpoints(reference.domain):
                known = credentials if credentials and reference.domain == domain and not endpoint.is_mirror else Credentials()
                try:
                    async with Repository(reference, known, endpoint) as remote:
                        await refetch_blob(remote, blob, self._blobs)
                except CortenError as error:
                    reason = error.message
                else:
                    return reference.familiar_name
        raise StoreCorrupt(f"blob {blob.digest} is not kept here, and cannot be fetched: {reason}")
