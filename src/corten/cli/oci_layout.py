"""`--build-context NAME=oci-layout://PATH[:TAG|@DIGEST]`: an image in a folder here, of which the engine is sent what it lacks.

Source: OCI image-spec image-layout.md; buildx for the address.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterator
from io import BytesIO
from typing import IO, cast

import msgspec

from corten.api.client import ApiError, Client
from corten.errors import Invalid
from corten.spec.digest import digest_of, encoded, is_digest
from corten.spec.image import OCI_MANIFEST, Descriptor, Index, Manifest, is_for_machines, parse_manifest
from corten.spec.platform import Platform, matches, parse_platform

SCHEME = "oci-layout://"
_NAME = "org.opencontainers.image.ref.name"
_DOCUMENT = 8 << 20  # bytes of a manifest or an index


class Layout:
    """A folder of an image or several. Raises Invalid, which names it, for what is wrong with it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        try:
            index = parse_manifest(self._read(f"{folder}/index.json"), "")
        except OSError as error:
            raise Invalid(f"{folder} is no OCI layout: index.json: {error.strerror}") from None
        if not isinstance(index, Index):
            raise Invalid(f"{folder} is no OCI layout: its index.json is no image index")
        self._entries = index.manifests

    def find(self, tag: str, digest: str, platform: Platform) -> tuple[Descriptor, Manifest]:
        """The image that is called so, or the only one there is; of an index the one for the platform."""
        entry = self._entry(tag, digest)
        document = parse_manifest(self.document(entry.digest), entry.media_type)
        if isinstance(document, Manifest):
            return entry, document
        offered = [each for each in document.manifests if each.platform and is_for_machines(each)]
        found = next((each for each in offered if each.platform and matches(platform, each.platform)), None)
        if found is None:
            raise Invalid(f"{self._folder} has no image for {platform}: there are {', '.join(str(each.platform) for each in offered) or 'none'}")
        manifest = parse_manifest(self.document(found.digest), found.media_type)
        if not isinstance(manifest, Manifest):
            raise Invalid(f"{self._folder}: {found.digest} is an index inside an index")
        return found, manifest

    def _entry(self, tag: str, digest: str) -> Descriptor:
        if digest:
            known = next((entry for entry in self._entries if entry.digest == digest), None)
            return known or Descriptor("", digest, 0)
        names = {(entry.annotations or {}).get(_NAME, ""): entry for entry in self._entries}
        if (tag or "latest") in names:
            return names[tag or "latest"]
        if not tag and len(self._entries) == 1:
            return self._entries[0]
        there = ", ".join(sorted(filter(None, names))) or "none"
        raise Invalid(f"{self._folder} has no image {tag or 'latest'}: there are the tags {there}; name one, or a digest (PATH@sha256:...)")

    def document(self, digest: str) -> bytes:
        try:
            data = self._read(self.path(digest))
        except OSError as error:
            raise Invalid(f"{self._folder}: {digest}: {error.strerror}") from None
        if digest_of(data) != digest:
            raise Invalid(f"{self._folder}: {digest} does not match its digest")
        return data

    def path(self, digest: str) -> str:
        if not is_digest(digest):
            raise Invalid(f"{self._folder}: {digest!r} is no digest")
        return f"{self._folder}/blobs/sha256/{encoded(digest)}"

    @staticmethod
    def _read(path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read(_DOCUMENT)


def parse_address(address: str) -> tuple[str, str, str]:
    """(folder, tag, digest), of which one of the last two at most is there."""
    where = address.removeprefix(SCHEME)
    if os.path.isdir(where):
        return where, "", ""
    folder, at, digest = where.rpartition("@")
    if at and is_digest(digest):
        return folder, "", digest
    folder, colon, tag = where.rpartition(":")
    return (folder, tag, "") if colon and "/" not in tag else (where, "", "")


def sent_layout(client: Client, address: str, platforms: str) -> str:
    """Have the engine have it; what it is called there. Raises Invalid, and what the engine refuses."""
    folder, tag, digest = parse_address(address)
    if "," in platforms:
        raise Invalid(f"{address}: an OCI layout as a context is one image, and {platforms} are several platforms: build one at a time")
    platform = parse_platform(platforms) if platforms else _engines(client)
    layout = Layout(folder)
    entry, manifest = layout.find(tag, digest, platform)
    if not _is_there(client, manifest.config.digest):
        blobs = [manifest.config.digest, *(layer.digest for layer in manifest.layers)]
        missing = client.post("/corten/build/layout/missing", list(dict.fromkeys(blobs)))
        with tempfile.TemporaryFile() as spool:
            _pack(spool, layout, Descriptor(entry.media_type or manifest.media_type or OCI_MANIFEST, entry.digest, 0), missing)
            spool.seek(0)
            with client.open("POST", "/corten/build/layout", body=cast("IO[bytes]", spool)) as response:
                response.read()
    return f"docker-image://{manifest.config.digest}"


def _engines(client: Client) -> Platform:
    version = client.get("/version")
    return Platform(version["Arch"], version["Os"])


def _is_there(client: Client, image_id: str) -> bool:
    try:
        return bool(client.get(f"/images/{image_id}/json")["Id"] == image_id)
    except ApiError as error:
        if error.http_status == 404:
            return False
        raise


def _pack(target: IO[bytes], layout: Layout, entry: Descriptor, blobs: list[str]) -> None:
    """A layout of the one image, without a name: the manifest, and of the blobs those."""
    data = layout.document(entry.digest)
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in _documents(msgspec.structs.replace(entry, size=len(data)), data):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
        for digest in blobs:
            try:
                tar.add(os.path.realpath(layout.path(digest)), f"blobs/sha256/{encoded(digest)}")
            except OSError as error:
                raise Invalid(f"{layout.path(digest)}: {error.strerror}") from None


def _documents(entry: Descriptor, data: bytes) -> Iterator[tuple[str, bytes]]:
    yield "oci-layout", b'{"imageLayoutVersion":"1.0.0"}'
    yield "index.json", msgspec.json.encode(Index([entry]))
    yield f"blobs/sha256/{encoded(entry.digest)}", data
