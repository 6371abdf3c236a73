"""The packages of a file tree, as the databases in it tell: one reader a kind of database. Reads a Tree, changes nothing.

What cannot be read of a database is left out, one entry at a time: the tree is anybody's. Sources: deb-control(5), dpkg-query(1); APK
"installed" format (Alpine wiki, Apk spec); Python Packaging "Recording installed projects"; npm package.json. rpm's is rpm_database.py's.
"""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from corten.builder.attest import rpm_database
from corten.builder.attest.licenses import all_of
from corten.builder.entries import FILE, FOLDER, Entry

_LIMIT = 64 << 20  # bytes of a database that are looked at
_DPKG, _APK = "var/lib/dpkg", ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_RPM = ("var/lib/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite")
_LICENSE = re.compile(r"^License: *(\S.*)$", re.MULTILINE)


class Readable(Protocol):
    """What is read of a builder.trees.Tree."""

    def look(self, path: str) -> Entry | None: ...

    def names(self, path: str) -> Iterable[str]: ...

    def read(self, path: str, limit: int) -> bytes: ...


@dataclass(frozen=True)
class Package:
    """`kind` is the purl type (deb, apk, rpm, pypi, npm). `license` is the database's own text, `files` are paths from the root, without a slash."""

    kind: str
    name: str
    version: str
    purl: str
    license: str = ""
    supplier: str = ""
    homepage: str = ""
    origin: str = ""  # the database's path
    files: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class System:
    """os-release: `id`, `version` and what to call it. All empty where there is none."""

    id: str = ""
    version: str = ""
    name: str = ""

    @property
    def qualifier(self) -> str:
        """A purl's `distro`."""
        return "-".join(part for part in (self.id, self.version) if part)


def read_system(tree: Readable) -> System:
    values: dict[str, str] = {}
    for path in ("etc/os-release", "usr/lib/os-release"):
        for line in _text(tree, path).splitlines():
            key, separator, value = line.partition("=")
            if separator:
                values.setdefault(key.strip(), value.strip().strip("\"'"))
        if values:
            break
    return System(values.get("ID", ""), values.get("VERSION_ID", ""), values.get("PRETTY_NAME", ""))


def find_packages(tree: Readable) -> list[Package]:
    """All of them, sorted by kind, name, version, and place; the same tree gives the same list."""
    system = read_system(tree)
    found = [*_dpkg(tree, system), *_apk(tree, system), *_rpm(tree, system)]
    for folder, names in walk(tree):
        found += _python(tree, folder, names)
        found += _npm(tree, folder, names)
    return sorted(found, key=lambda package: (package.kind, package.name, package.version, package.origin))


def walk(tree: Readable, folder: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every folder with its entries' names; no link is followed."""
    todo = [folder]
    while todo:
        path = todo.pop()
        names = list(tree.names(path))
        yield path, names
        for name in reversed(names):
            inside = f"{path}/{name}" if path else name
            entry = tree.look(inside)
            if entry is not None and entry.kind == FOLDER:
                todo.append(inside)


def _text(tree: Readable, path: str) -> str:
    return tree.read(path, _LIMIT).decode("utf-8", "replace")


def purl(kind: str, namespace: str, name: str, version: str, **qualifiers: str) -> str:
    """purl-spec: `pkg:deb/debian/bash@5.2?arch=amd64`."""
    parts = "/".join(quote(part, safe="") for part in (*filter(None, namespace.split("/")), name))
    asked = "&".join(f"{key}={quote(value, safe='')}" for key, value in sorted(qualifiers.items()) if value)
    return f"pkg:{kind}/{parts}" + (f"@{quote(version, safe='')}" if version else "") + (f"?{asked}" if asked else "")


# --- dpkg
def _dpkg(tree: Readable, system: System) -> Iterator[Package]:
    places = [f"{_DPKG}/status", *(f"{_DPKG}/status.d/{name}" for name in tree.names(f"{_DPKG}/status.d") if not name.endswith(".md5sums"))]
    for place in places:
        for paragraph in stanzas(_text(tree, place)):
            name, version = paragraph.get("package", ""), paragraph.get("version", "")
            if not name or not paragraph.get("status", "install ok installed").endswith(" installed"):
                continue
            source, _, source_version = paragraph.get("source", "").partition(" ")
            upstream = f"{source}@{source_version.strip('()')}" if source_version else source
            made = purl("deb", system.id or "debian", name, version, arch=paragraph.get("architecture", ""), distro=system.qualifier, upstream=upstream)
            listed = [f"{_DPKG}/info/{name}.list", f"{_DPKG}/info/{name}:{paragraph.get('architecture', '')}.list"]
            files = next((lines for path in listed if (lines := _text(tree, path).splitlines())), [])
            sums = [line.partition("  ")[2] for line in _text(tree, f"{place}.md5sums").splitlines()] if "status.d" in place else []
            yield Package(
                "deb", name, version, made, _copyright(tree, name), paragraph.get("maintainer", ""), paragraph.get("homepage", ""), place,
                _relative([*files, *sums]),
            )  # fmt: skip


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """deb822 paragraphs with lower-case keys; of a folded field all lines."""
    found: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        if not line.strip():
            if found:
                yield found
            found, key = {}, ""
        elif line[0] in " \t":
            if key:
                found[key] += f"\n{line.strip()}"
        elif ":" in line:
            key, _, value = line.partition(":")
            key = key.strip().lower()
            found[key] = value.strip()
    if found:
        yield found


def _copyright(tree: Readable, name: str) -> str:
    """What a machine-readable copyright file says, joined; Debian's database has no field for it."""
    return all_of(found.strip() for found in _LICENSE.findall(_text(tree, f"usr/share/doc/{name}/copyright")))


# --- apk
def _apk(tree: Readable, system: System) -> Iterator[Package]:
    for place in _APK:
        for block in _text(tree, place).split("\n\n"):
            fields: dict[str, str] = {}
            files: list[str] = []
            folder = ""
            for line in block.splitlines():
                key, separator, value = line.partition(":")
                if key == "F":
                    folder = value
                elif key == "R":
                    files.append(f"{folder}/{value}" if folder else value)
                elif separator:
                    fields.setdefault(key, value)
            if "P" in fields and "V" in fields:
                made = purl("apk", system.id or "alpine", fields["P"], fields["V"], arch=fields.get("A", ""), distro=system.qualifier)
                yield Package("apk", fields["P"], fields["V"], made, fields.get("L", ""), fields.get("m", ""), fields.get("U", ""), place, _relative(files))


# --- rpm
def _rpm(tree: Readable, system: System) -> Iterator[Package]:
    for place in _RPM:
        data = tree.read(place, _LIMIT)
        for found in rpm_database.packages(data) if data else ():
            qualifiers = {"arch": found.architecture, "epoch": str(found.epoch or ""), "upstream": found.source, "distro": system.qualifier}
            made = purl("rpm", system.id, found.name, found.version, **qualifiers)
            yield Package("rpm", found.name, found.version, made, found.license, found.vendor, found.url, place, _relative(found.files))


# --- Python
def _python(tree: Readable, folder: str, names: list[str]) -> Iterator[Package]:
    for name in names:
        place = f"{folder}/{name}" if folder else name
        if name.endswith(".dist-info"):
            metadata = _text(tree, f"{place}/METADATA")
            files = [row[0] for row in csv.reader(_text(tree, f"{place}/RECORD").splitlines()) if row]
        elif name.endswith(".egg-info"):
            entry = tree.look(place)
            metadata = _text(tree, place if entry and entry.kind == FILE else f"{place}/PKG-INFO")
            files = [f"{name}/{line}" for line in _text(tree, f"{place}/installed-files.txt").splitlines()]
        else:
            continue
        headers = next(stanzas(metadata), {})
        title, version = headers.get("name", ""), headers.get("version", "")
        if title and version:
            normal = re.sub(r"[-_.]+", "-", title).lower()
            license_text = headers.get("license-expression") or headers.get("license", "").partition("\n")[0]
            author, homepage = headers.get("author") or headers.get("author-email", ""), headers.get("home-page", "")
            paths = [posixpath.normpath(posixpath.join(folder, path)) for path in files]
            yield Package("pypi", title, version, purl("pypi", "", normal, version), license_text, author, homepage, place, _relative(paths))


# --- npm
def _npm(tree: Readable, folder: str, names: list[str]) -> Iterator[Package]:
    parts = folder.split("/")
    owner = parts[-3:-2] if len(parts) > 2 and parts[-2].startswith("@") else parts[-2:-1]
    if "package.json" not in names or owner != ["node_modules"]:
        return
    place = f"{folder}/package.json"
    try:
        document = msgspec.json.decode(tree.read(place, _LIMIT), type=dict[str, Any])
    except msgspec.DecodeError:
        return
    title, version = document.get("name"), document.get("version")
    if not isinstance(title, str) or not isinstance(version, str) or not title:
        return
    scope, _, plain = title.rpartition("/")
    author = document.get("author")
    yield Package(
        "npm", title, version, purl("npm", scope, plain, version), _npm_license(document), str(author.get("name", "") if isinstance(author, dict) else author or ""),
        document["homepage"] if isinstance(document.get("homepage"), str) else "", place, (place,),
    )  # fmt: skip


def _npm_license(document: dict[str, Any]) -> str:
    """`license` is a text, or in old packages an object or a list of them under `licenses`."""
    found = document.get("license") or document.get("licenses") or ""
    kinds = [item.get("type", "") if isinstance(item, dict) else item for item in (found if isinstance(found, list) else [found])]
    return " OR ".join(kind for kind in kinds if isinstance(kind, str) and kind)


def _relative(paths: Iterable[str]) -> tuple[str, ...]:
    """Without a slash in front, each once, none that leads out of the tree."""
    clean = (path.strip().lstrip("/").removeprefix("./") for path in paths)
    return tuple(dict.fromkeys(path for path in clean if path not in ("", ".") and not path.startswith("../")))
