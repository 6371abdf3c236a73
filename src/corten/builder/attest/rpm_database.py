"""rpm's package database where it is SQLite (rpm 4.16 and newer): every installed package's header. Pure: bytes in, values out.

Source: rpm's documentation, "Package file format" (header structure, tags and types). A header in the database begins with its two counts,
without the magic of one in a package file.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

_NAME, _VERSION, _RELEASE, _EPOCH, _VENDOR, _LICENSE, _URL, _ARCH, _SOURCE = 1000, 1001, 1002, 1003, 1011, 1014, 1020, 1022, 1044
_FOLDER_OF, _BASENAMES, _FOLDERS = 1116, 1117, 1118
_INT32, _STRING, _STRINGS, _TRANSLATED = 4, 6, 8, 9
_ENTRY = struct.Struct(">4I")
_LIMIT = 1 << 18  # entries of a header, elements of an array


@dataclass(frozen=True)
class RpmPackage:
    """`version` with its release; `epoch` None where there is none."""

    name: str
    version: str
    epoch: int | None
    architecture: str
    license: str
    vendor: str
    url: str
    source: str
    files: tuple[str, ...]


def packages(database: bytes) -> Iterator[RpmPackage]:
    """A database or header that is broken has no packages."""
    if not database:
        return
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.deserialize(database)
            rows = connection.execute("SELECT blob FROM Packages ORDER BY hnum").fetchall()
        except sqlite3.Error:
            return
    for (blob,) in rows:
        found = read_header(bytes(blob)) if isinstance(blob, bytes) else None
        if found:
            yield found


def read_header(data: bytes) -> RpmPackage | None:
    """None for what is no header of a package."""
    try:
        values = _values(data)
    except (struct.error, IndexError, ValueError):
        return None
    name = _first(values, _NAME)
    if not name or name == "gpg-pubkey":  # the keys that rpm trusts are packages of this name
        return None
    release, epochs = _first(values, _RELEASE), values.get(_EPOCH, [])
    version = _first(values, _VERSION) + (f"-{release}" if release else "")
    epoch = int(epochs[0]) if epochs else None
    architecture, license_text, vendor, url, source = (_first(values, tag) for tag in (_ARCH, _LICENSE, _VENDOR, _URL, _SOURCE))
    return RpmPackage(name, version, epoch, architecture, license_text, vendor, url, source, _files(values))


def _first(values: dict[int, list[str]], tag: int) -> str:
    return values[tag][0] if values.get(tag) else ""


def _files(values: dict[int, list[str]]) -> tuple[str, ...]:
    folders = values.get(_FOLDERS, [])
    pairs = zip(values.get(_FOLDER_OF, []), values.get(_BASENAMES, []), strict=False)
    return tuple(folders[int(number)] + base for number, base in pairs if int(number) < len(folders))


_WANTED = frozenset({_NAME, _VERSION, _RELEASE, _EPOCH, _VENDOR, _LICENSE, _URL, _ARCH, _SOURCE, _FOLDER_OF, _BASENAMES, _FOLDERS})


def _values(data: bytes) -> dict[int, list[str]]:
    """The wanted tags' values, numbers in decimal. Raises struct.error, IndexError, ValueError."""
    entries, length = struct.unpack_from(">2I", data)
    start = 8 + _ENTRY.size * entries
    if entries > _LIMIT or start + length > len(data):
        raise ValueError("a header that is cut off")
    store = data[start : start + length]
    found: dict[int, list[str]] = {}
    for number in range(entries):
        tag, kind, offset, count = _ENTRY.unpack_from(data, 8 + number * _ENTRY.size)
        if tag not in _WANTED or count > _LIMIT:
            continue
        if kind == _INT32:
            found[tag] = [str(value) for value in struct.unpack_from(f">{count}I", store, offset)]
        elif kind in (_STRING, _STRINGS, _TRANSLATED):
            found[tag] = _strings(store, offset, 1 if kind == _STRING else count)
    return found


def _strings(store: bytes, offset: int, count: int) -> list[str]:
    found: list[str] = []
    for _ in range(count):
        end = store.index(b"\0", offset)
        found.append(store[offset:end].decode("utf-8", "replace"))
        offset = end + 1
    return found
