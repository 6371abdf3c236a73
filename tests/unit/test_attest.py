"""The packages of a tree from every kind of database, licences as expressions, the SPDX document, provenance. No engine."""

from __future__ import annotations

import json
import sqlite3
import struct
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder.attest import rpm_database
from corten.builder.attest.licenses import all_of, expression
from corten.builder.attest.packages import Package, System, find_packages, purl, read_system, stanzas
from corten.builder.attest.provenance import Invocation, materials_of, predicate, without_credentials
from corten.builder.attest.spdx import FileSums, document
from corten.builder.entries import FILE, FOLDER, Entry
from corten.builder.graph import Exec, File, Git, Http, Image, Local, Mkdir, Secret, Vertex
from corten.spec.build_outputs import Attest
from corten.spec.platform import Platform


class FakeTree:
    def __init__(self, **files: bytes | str) -> None:
        self._files = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}

    def look(self, path: str) -> Entry | None:
        if path in self._files:
            return Entry(path, FILE)
        return Entry(path, FOLDER) if any(name.startswith(f"{path}/") for name in self._files) or not path else None

    def names(self, path: str) -> list[str]:
        start = f"{path}/" if path else ""
        return sorted({name[len(start) :].partition("/")[0] for name in self._files if name.startswith(start)})

    def read(self, path: str, limit: int) -> bytes:
        return self._files.get(path, b"")[:limit]


def tree(**files: bytes | str) -> FakeTree:
    return FakeTree(**files)


# --- rpm: a header as librpm writes it
def rpm_header(tags: list[tuple[int, int, int, bytes]]) -> bytes:
    """`tags`: (tag, type, count, value)."""
    entries, store = b"", b""
    for tag, kind, count, value in tags:
        if kind == 4:
            store += bytes(-len(store) % 4)
        entries += struct.pack(">4I", tag, kind, len(store), count)
        store += value
    return struct.pack(">2I", len(tags), len(store)) + entries + store


def text(tag: int, value: str, kind: int = 6) -> tuple[int, int, int, bytes]:
    return tag, kind, 1, value.encode() + b"\0"


BASH = rpm_header([
    text(1000, "bash"), text(1001, "5.2"), text(1002, "3.fc40"), (1003, 4, 1, struct.pack(">I", 1)), text(1011, "Fedora"), text(1014, "GPL-3.0-or-later"),
    text(1022, "x86_64"), text(1044, "bash-5.2-3.fc40.src.rpm"), (1116, 4, 2, struct.pack(">2I", 0, 1)), (1117, 8, 2, b"bash\0README\0"),
    (1118, 8, 2, b"/usr/bin/\0/usr/share/doc/bash/\0"),
])  # fmt: skip
KEY = rpm_header([text(1000, "gpg-pubkey"), text(1001, "1")])


def rpm_file(*headers: bytes) -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
        connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(header,) for header in headers])
        connection.commit()
        return connection.serialize()


DPKG = """Package: bash
Status: install ok installed
Version: 5.2.15-2+b2
Architecture: amd64
Source: bash (5.2.15-2)
Maintainer: Matthias Klose <doko@debian.org>
Homepage: http://tiswww.case.edu/php/chet/bash/bashtop.html
Description: shell
 more

Package: gone
Status: deinstall ok config-files
Version: 1
"""
APK = "C:Q1x=\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\nU:https://musl.libc.org/\nm:Somebody\nF:lib\nR:ld-musl-x86_64.so.1\nZ:Q1\nF:\nR:top\n\nP:broken\n"


def test_every_kind_of_database():
    found = find_packages(
        tree(
            **{
                "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n',
                "var/lib/dpkg/status": DPKG,
                "var/lib/dpkg/info/bash.list": "/.\n/bin\n/bin/bash\n",
                "usr/share/doc/bash/copyright": "Format: x\nLicense: GPL-3+\n\nLicense: Expat or GPL-2\n",
                "var/lib/dpkg/status.d/base": "Package: base-files\nVersion: 12\nArchitecture: amd64\n",
                "var/lib/dpkg/status.d/base.md5sums": "0123  etc/debian_version\n",
                "lib/apk/db/installed": APK,
                "usr/lib/sysimage/rpm/rpmdb.sqlite": rpm_file(BASH, KEY, b"torn"),
                "usr/lib/python3/dist-packages/PyYAML-6.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: PyYAML\nVersion: 6.0\nLicense: MIT\n\nName: no\n",
                "usr/lib/python3/dist-packages/PyYAML-6.0.dist-info/RECORD": 'yaml/__init__.py,sha256=x,1\n"odd,name.py",,\n../../../bin/y,,\n',
                "usr/lib/python3/dist-packages/old.egg-info": "Name: old\nVersion: 0.1\n",
                "app/node_modules/@scope/pkg/package.json": '{"name":"@scope/pkg","version":"1.0.0","license":{"type":"ISC"},"author":{"name":"A"}}',
                "app/node_modules/bad/package.json": "{",
                "app/package.json": '{"name":"app","version":"9"}',
            }
        )
    )
    assert [(package.purl, package.license, package.files) for package in found] == [
        ("pkg:apk/debian/musl@1.2.4-r2?arch=x86_64&distro=debian-12", "MIT", ("lib/ld-musl-x86_64.so.1", "top")),
        ("pkg:deb/debian/base-files@12?arch=amd64&distro=debian-12", "", ("etc/debian_version",)),
        ("pkg:deb/debian/bash@5.2.15-2%2Bb2?arch=amd64&distro=debian-12&upstream=bash%405.2.15-2", "GPL-3+ AND (Expat or GPL-2)", ("bin", "bin/bash")),
        ("pkg:npm/%40scope/pkg@1.0.0", "ISC", ("app/node_modules/@scope/pkg/package.json",)),
        ("pkg:pypi/pyyaml@6.0", "MIT", ("usr/lib/python3/dist-packages/yaml/__init__.py", "usr/lib/python3/dist-packages/odd,name.py", "usr/bin/y")),
        ("pkg:pypi/old@0.1", "", ()),
        ("pkg:rpm/debian/bash@5.2-3.fc40?arch=x86_64&distro=debian-12&epoch=1&upstream=bash-5.2-3.fc40.src.rpm", "GPL-3.0-or-later", ("usr/bin/bash", "usr/share/doc/bash/README")),
    ]  # fmt: skip


def test_an_empty_tree_has_nothing():
    assert find_packages(tree()) == [] and read_system(tree()) == System()


@given(st.binary(max_size=400))
def test_a_header_of_anything_is_none_or_a_package(data):
    rpm_database.read_header(data)
    rpm_database.read_header(struct.pack(">2I", 2, len(data)) + data)


@given(st.binary(max_size=200))
def test_a_database_of_anything_has_no_packages(data):
    assert list(rpm_database.packages(data)) == []


@given(st.text(max_size=200))
def test_stanzas_of_anything(content):
    assert all(isinstance(value, str) for paragraph in stanzas(content) for value in paragraph.values())


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("", "NOASSERTION"),
        ("MIT", "MIT"),
        ("GPL-2+", "GPL-2.0-or-later"),
        ("LGPL-2.1", "LGPL-2.1-only"),
        ("GPLv3+", "GPL-3.0-or-later"),
        ("Expat or GPL-1+", "MIT OR GPL-1.0-or-later"),
        ("(MIT or Apache-2.0) and BSD-3-clause", "(MIT OR Apache-2.0) AND BSD-3-Clause"),
        ("GPL-2.0-or-later WITH Classpath-exception-2.0", "GPL-2.0-or-later WITH Classpath-exception-2.0"),
        ("GPL-3 with Bison exception", "LicenseRef-GPL-3.0-only-with-Bison-exception"),
        ("My own", "LicenseRef-My-own"),
        ("MIT and", "LicenseRef-MIT-and"),
        ("(MIT", "LicenseRef-MIT"),
    ],
)
def test_licences(text, wanted):
    found, references = expression(text)
    assert found == wanted
    assert set(references) == ({wanted} if wanted.startswith("LicenseRef") else set())


@given(st.text(max_size=60))
def test_every_text_is_some_expression(text):
    found, references = expression(text)
    assert found and found.count("(") == found.count(")")
    assert all(key.startswith("LicenseRef-") and key in found for key in references)


def test_licences_together():
    assert all_of(["GPL-3+", "Expat or GPL-2", "GPL-3+"]) == "GPL-3+ AND (Expat or GPL-2)"


def test_the_document():
    packages = [
        Package("deb", "a", "1", purl("deb", "debian", "a", "1"), "MIT", "Somebody", "http://a.invalid", "var/lib/dpkg/status", ("usr/bin/a", "absent")),
        Package("npm", "b", "2", purl("npm", "", "b", "2"), "My own"),
    ]
    sums = {"usr/bin/a": FileSums("1" * 40, "2" * 64)}
    made = document("box", "sha256:" + "0" * 64, "2024-01-01T00:00:00Z", System("debian", "12", "Debian 12"), packages, sums)
    assert made == document("box", "sha256:" + "0" * 64, "2024-01-01T00:00:00Z", System("debian", "12", "Debian 12"), packages, sums)
    found = json.loads(made)
    rows = {row["name"]: row for row in found["packages"]}
    assert rows["a"]["filesAnalyzed"] and rows["a"]["licenseDeclared"] == "MIT" and rows["b"]["filesAnalyzed"] is False
    assert found["hasExtractedLicensingInfos"] == [{"licenseId": "LicenseRef-My-own", "extractedText": "My own", "name": "My own"}]
    known = {"SPDXRef-DOCUMENT", *(row["SPDXID"] for row in [*found["packages"], *found["files"]])}
    assert len(known) == 1 + len(found["packages"]) + len(found["files"])
    for relation in found["relationships"]:
        assert {relation["spdxElementId"], relation["relatedSpdxElement"]} <= known
    assert {"spdxElementId": rows["a"]["SPDXID"], "relationshipType": "CONTAINS", "relatedSpdxElement": found["files"][0]["SPDXID"]} in found["relationships"]


def test_a_name_that_is_no_text():
    path = "odd\udcff/x.dist-info"
    packages = find_packages(tree(**{f"{path}/METADATA": "Name: x\nVersion: 1\n", f"{path}/RECORD": "odd/f,,\n", "var/lib/dpkg/status": b"Package: \xff\nVersion: 1\n"}))
    assert json.loads(document("box", "sha256:" + "0" * 64, "2024-01-01T00:00:00Z", System(), packages, {"odd\udcff/odd/f": FileSums("1" * 40, "2" * 64)}))["files"]


BASE = Vertex(Image("sha256:" + "5" * 64, "docker.io/library/debian:12"))
FETCHED = Vertex(Http("https://files.invalid/x.tar", "x.tar"))
REPOSITORY = Vertex(Git("https://code.invalid/a.git", "v1"))
TARGET = Vertex(
    Exec(("sh",), mounts=(Secret("token", "/run/secrets/token"),)), (Vertex(File((Mkdir("/x"),)), (BASE, FETCHED, REPOSITORY, Vertex(Local()))),)
)
INVOCATION = Invocation("id", 0, 1_000_000_000, "Dockerfile", "FROM debian:12\n", Platform("amd64"), "", {"A": "secretish"}, {"l": "v"})


def test_materials():
    resolved = {FETCHED: "sha256:" + "7" * 64, REPOSITORY: "8" * 40}
    found = {made.uri: made.digest for made in materials_of(TARGET, {BASE.op.id: "sha256:" + "6" * 64}, resolved, Platform("amd64"))}
    assert found == {
        "pkg:docker/debian@12?platform=linux%2Famd64": {"sha256": "6" * 64},
        "https://files.invalid/x.tar": {"sha256": "7" * 64},
        "https://code.invalid/a.git#v1": {"sha1": "8" * 40},
    }


def test_provenance():
    most = json.loads(predicate(TARGET, INVOCATION, [], Attest(provenance="max", builder_id="urn:me", reproducible=True)))
    request = most["buildDefinition"]["externalParameters"]["request"]
    assert request["args"] == {"build-arg:A": "secretish", "label:l": "v", "platform": "linux/amd64"}
    assert request["locals"] == [{"name": "context"}] and request["secrets"] == [{"id": "token", "optional": True}]
    assert len(most["buildDefinition"]["internalParameters"]["buildConfig"]["definition"]) == 6
    metadata = most["runDetails"]["metadata"]
    assert metadata["startedOn"] == "1970-01-01T00:00:00Z" and metadata["buildkit_reproducible"] and not metadata["buildkit_hermetic"]
    assert most["runDetails"]["builder"]["id"] == "urn:me"
    least = predicate(TARGET, INVOCATION, [], Attest(provenance="min"))
    assert b"secretish" not in least and b"token" not in least and b"RlJPTS" not in least


def test_no_address_tells_credentials():
    assert without_credentials("https://user:pa@ss@host/x.git#v1") == "https://host/x.git#v1"
    assert without_credentials("https://host/a@b") == "https://host/a@b" and without_credentials("git@host:x") == "git@host:x"
    secret = Vertex(Http("https://user:password@files.invalid/x", "x"))
    assert materials_of(secret, {}, {}, Platform("amd64"))[0].uri == "https://files.invalid/x"
    assert b"password" not in predicate(secret, INVOCATION, [], Attest(provenance="max"))
