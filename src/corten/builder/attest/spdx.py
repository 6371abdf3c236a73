"""The packages of an image as an SPDX 2.3 document in JSON. Pure: the same packages give the same document.

Source: SPDX specification 2.3 (document creation, package, file, relationship information; annex F for purls).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from corten import __version__
from corten.builder.attest.licenses import NONE, expression
from corten.builder.attest.packages import Package, System
from corten.spec.digest import encoded

PREDICATE = "https://spdx.dev/Document"
_UNFIT = re.compile(r"[^A-Za-z0-9.-]+")
_ROOT = "SPDXRef-Image"


class FileSums(msgspec.Struct, frozen=True):
    """Hexadecimal digests of a file's content."""

    sha1: str
    sha256: str


def document(name: str, image_id: str, created: str, system: System, packages: Sequence[Package], sums: Mapping[str, FileSums]) -> bytes:
    """`created`: RFC 3339, UTC. `sums` are of files of packages that are there, by path without a slash in front."""
    made = _Document(sums)
    made.describe_image(name, image_id, system)
    for package in packages:
        made.add(package)
    return msgspec.json.encode(
        {
            "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": name,
            "documentNamespace": f"https://spdx.org/spdxdocs/corten-{encoded(image_id)}",
            "creationInfo": {"created": created, "creators": [f"Tool: corten-{__version__}"]},
            "packages": made.packages, "files": list(made.files.values()), "relationships": made.relationships,
            "hasExtractedLicensingInfos": [{"licenseId": key, "extractedText": text, "name": text} for key, text in sorted(made.licenses.items())],
        }
    )  # fmt: skip


class _Document:
    def __init__(self, sums: Mapping[str, FileSums]) -> None:
        self._sums = sums
        self.packages: list[dict[str, Any]] = []
        self.files: dict[str, dict[str, Any]] = {}
        self.relationships: list[dict[str, str]] = []
        self.licenses: dict[str, str] = {}

    def describe_image(self, name: str, image_id: str, system: System) -> None:
        self.packages.append(_package(_ROOT, name, image_id, "CONTAINER"))
        self._relate("SPDXRef-DOCUMENT", "DESCRIBES", _ROOT)
        if system.id:
            self.packages.append(_package("SPDXRef-System", system.id, system.version, "OPERATING_SYSTEM") | {"summary": system.name or system.id})
            self._relate(_ROOT, "CONTAINS", "SPDXRef-System")

    def add(self, package: Package) -> None:
        declared, references = expression(package.license)
        self.licenses |= references
        key = f"SPDXRef-Package-{package.kind}-{_fit(package.name)}-{_short(f'{package.purl} {package.origin}')}"
        row = _package(key, package.name, package.version, "LIBRARY" if package.kind in ("pypi", "npm") else "APPLICATION")
        row |= {
            "licenseDeclared": declared, "sourceInfo": _text(f"found in {package.origin}"),
            "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": package.purl}],
        }  # fmt: skip
        if package.supplier:
            row["supplier"] = f"Organization: {' '.join(package.supplier.split())}"
        if package.homepage:
            row["homepage"] = package.homepage
        there = [path for path in package.files if path in self._sums]
        if there:
            row |= {"filesAnalyzed": True, "packageVerificationCode": {"packageVerificationCodeValue": _verification([self._sums[path].sha1 for path in there])}}
        self.packages.append(row)
        self._relate(_ROOT, "CONTAINS", key)
        for path in there:
            self._relate(key, "CONTAINS", self._file(path))

    def _file(self, path: str) -> str:
        key = f"SPDXRef-File-{_fit(path.rpartition('/')[2])}-{_short(path)}"
        sums = self._sums[path]
        self.files[path] = {
            "SPDXID": key, "fileName": _text(f"./{path}"), "licenseConcluded": NONE, "copyrightText": NONE,
            "checksums": [{"algorithm": "SHA1", "checksumValue": sums.sha1}, {"algorithm": "SHA256", "checksumValue": sums.sha256}],
        }  # fmt: skip
        return key

    def _relate(self, one: str, how: str, other: str) -> None:
        self.relationships.append({"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other})


def _package(key: str, name: str, version: str, purpose: str) -> dict[str, Any]:
    return {
        "SPDXID": key, "name": name, **({"versionInfo": version} if version else {}), "downloadLocation": NONE, "filesAnalyzed": False,
        "licenseConcluded": NONE, "licenseDeclared": NONE, "copyrightText": NONE, "primaryPackagePurpose": purpose,
    }  # fmt: skip


def _verification(sums: Sequence[str]) -> str:
    """Section 7.9: SHA1 of the files' SHA1s in hexadecimal, sorted, one after the other."""
    return hashlib.sha1("".join(sorted(sums)).encode(), usedforsecurity=False).hexdigest()


def _text(name: str) -> str:
    """Names on a disk are bytes; those that are no UTF-8 cannot be in JSON."""
    return name.encode("utf-8", "replace").decode()


def _fit(text: str) -> str:
    return _UNFIT.sub("-", text).strip("-") or "unnamed"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
