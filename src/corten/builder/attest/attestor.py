"""What is attested of one built image: asked of the scanner and of the build's own plan. The documents are spdx.py's and provenance.py's."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from corten.builder.attest import provenance, spdx
from corten.builder.attest.scan_job import SCAN_JOB, ScanRequest
from corten.builder.graph import Image, Vertex, in_order
from corten.builder.outputs.documents import Predicate
from corten.spec.build_outputs import Attest
from corten.spec.digest import digest_of
from corten.spec.image import parse_config
from corten.store.images import Images
from corten.store.layers import Layers
from corten.store.layout import Layout
from corten.store.worker_stream import read_from_worker
from corten.store.workers import RunJob


class Attestor:
    def __init__(self, layout: Layout, layers: Layers, images: Images, run_job: RunJob) -> None:
        self._layout, self._layers, self._images, self._run_job = layout, layers, images, run_job

    async def attest(self, wanted: Attest, target: Vertex, config: bytes, name: str, invocation: provenance.Invocation,
                     resolved: Mapping[Vertex, str]) -> tuple[Predicate, ...]:  # fmt: skip
        """`config` is the image's document, `name` what the image is called in the SBOM."""
        found: list[Predicate] = []
        if wanted.sbom:
            found.append(Predicate(spdx.PREDICATE, await self._sbom(config, name), "sbom.spdx.json"))
        if wanted.provenance:
            materials = provenance.materials_of(target, self._digests(target), resolved, invocation.platform)
            found.append(Predicate(provenance.PREDICATE, provenance.predicate(target, invocation, materials, wanted), "provenance.json"))
        return tuple(found)

    async def _sbom(self, config: bytes, name: str) -> bytes:
        document = parse_config(config)
        layers = [self._layers.need(diff_id).number for diff_id in reversed(document.rootfs.diff_ids)]
        request = ScanRequest(layers, name, digest_of(config), document.created)
        folder = os.open(self._layout.layers, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            pieces = read_from_worker(lambda output: self._run_job(SCAN_JOB, msgspec.json.encode(request), (folder, output)))
            return b"".join([data async for data in pieces])
        finally:
            os.close(folder)

    def _digests(self, target: Vertex) -> dict[str, str]:
        """Image id -> the digest under which a registry has it, else that of its manifest here."""
        found: dict[str, str] = {}
        for image_id in {vertex.op.id for vertex in in_order([target]) if isinstance(vertex.op, Image)}:
            image = self._images.get(image_id)
            if image:
                named = [reference.partition("@")[2] for reference in image.digests]
                found[image_id] = named[0] if named else image.row.manifest
        return found
