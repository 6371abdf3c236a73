"""The state database: every mutable thing is a row, changed in a transaction. SQLite, write-ahead log.

Owns the schema and the statements. A record is an opaque JSON value here; its type belongs to the service that stores it.
A committed row survives kill -9 of the engine; after a power cut the last moments may be missing, never half there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_SCHEMA = """
CREATE TABLE IF NOT EXISTS containers (id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS layers (
    number INTEGER PRIMARY KEY AUTOINCREMENT, diff_id TEXT UNIQUE NOT NULL, blob TEXT NOT NULL, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    id TEXT PRIMARY KEY, manifest TEXT NOT NULL, media_type TEXT NOT NULL, manifest_size INTEGER NOT NULL, stored INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS names (
    reference TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images(id), tagged INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS volumes (name TEXT PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS packings (diff_id TEXT PRIMARY KEY, digest TEXT NOT NULL, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS parents (image TEXT PRIMARY KEY REFERENCES images(id) ON DELETE CASCADE, parent TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS networks (id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS build_cache (key TEXT PRIMARY KEY, record BLOB NOT NULL, inputs BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS held_layers (holder TEXT NOT NULL, diff_id TEXT NOT NULL, PRIMARY KEY (holder, diff_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class LayerRow:
    number: int
    diff_id: str
    blob: str
    size: int


@dataclass(frozen=True)
class ImageRow:
    """`id` is the config's digest; `stored` is nanoseconds since the epoch."""

    id: str
    manifest: str
    media_type: str
    manifest_size: int
    stored: int


class NameTaken(Exception):
    """A unique name has a row already."""


class Database:
    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("PRAGMA foreign_keys=ON")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    # --- containers
    def containers(self) -> list[bytes]:
        return [row[0] for row in self._connection.execute("SELECT record FROM containers")]

    def put_container(self, container_id: str, name: str, record: bytes) -> None:
        """Insert or replace. Raises NameTaken if another container has the name."""
        try:
            self._connection.execute(
                "INSERT INTO containers VALUES (?, ?, ?) "
                "ON CONFLICT(id) DO UPDATE SET name = excluded.name, record = excluded.record",
                (container_id, name, record),
            )
        except sqlite3.IntegrityError:
            raise NameTaken(name) from None

    def delete_container(self, container_id: str) -> None:
        self._connection.execute("DELETE FROM containers WHERE id = ?", (container_id,))

    # --- volumes
    def volumes(self) -> list[bytes]:
        return [row[0] for row in self._connection.execute("SELECT record FROM volumes")]

    def put_volume(self, name: str, record: bytes) -> None:
        self._connection.execute("INSERT OR REPLACE INTO volumes VALUES (?, ?)", (name, record))

    def delete_volume(self, name: str) -> None:
        self._connection.execute("DELETE FROM volumes WHERE name = ?", (name,))

    # --- networks
    def networks(self) -> list[bytes]:
        return [row[0] for row in self._connection.execute("SELECT record FROM networks ORDER BY rowid")]

    def put_network(self, network_id: str, name: str, record: bytes) -> None:
        """Insert. Raises NameTaken if another network has the name."""
        try:
            self._connection.execute("INSERT INTO networks VALUES (?, ?, ?)", (network_id, name, record))
        except sqlite3.IntegrityError:
            raise NameTaken(name) from None

    def delete_network(self, network_id: str) -> None:
        self._connection.execute("DELETE FROM networks WHERE id = ?", (network_id,))

    # --- layers
    def layer(self, diff_id: str) -> LayerRow | None:
        row = self._connection.execute("SELECT number, diff_id, blob, size FROM layers WHERE diff_id = ?", (diff_id,)).fetchone()
        return LayerRow(*row) if row else None

    def layers(self) -> list[LayerRow]:
        return [LayerRow(*row) for row in self._connection.execute("SELECT number, diff_id, blob, size FROM layers")]

    def next_layer_number(self) -> int:
        """Taken once and never again, also when the unpacking fails."""
        with self.transaction():
            number = self._connection.execute("SELECT value FROM settings WHERE key = 'layer'").fetchone()
            following = int(number[0]) + 1 if number else 1
            self._connection.execute("INSERT OR REPLACE INTO settings VALUES ('layer', ?)", (str(following),))
        return following

    def add_layer(self, row: LayerRow) -> bool:
        """False if the diff id has a layer already (two pulls at once): the caller's copy is not needed."""
        cursor = self._connection.execute(
            "INSERT OR IGNORE INTO layers VALUES (?, ?, ?, ?)", (row.number, row.diff_id, row.blob, row.size)
        )
        return cursor.rowcount == 1

    def delete_layer(self, number: int) -> None:
        self._connection.execute("DELETE FROM packings WHERE diff_id = (SELECT diff_id FROM layers WHERE number = ?)", (number,))
        self._connection.execute("DELETE FROM layers WHERE number = ?", (number,))

    def packing(self, diff_id: str) -> tuple[str, int] | None:
        """(digest, size) of a layer's gzipped form, if it has been made."""
        row = self._connection.execute("SELECT digest, size FROM packings WHERE diff_id = ?", (diff_id,)).fetchone()
        return (row[0], row[1]) if row else None

    def put_packing(self, diff_id: str, digest: str, size: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO packings VALUES (?, ?, ?)", (diff_id, digest, size))

    # --- the build cache
    def build_cache(self) -> list[bytes]:
        return [row[0] for row in self._connection.execute("SELECT record FROM build_cache ORDER BY rowid")]

    def build_inputs(self, key: str) -> bytes:
        """What the row was made from; empty if there is no such row."""
        row = self._connection.execute("SELECT inputs FROM build_cache WHERE key = ?", (key,)).fetchone()
        return bytes(row[0]) if row else b""

    def update_build_cache(self, key: str, record: bytes) -> None:
        self._connection.execute("UPDATE build_cache SET record = ? WHERE key = ?", (record, key))

    def put_build_cache(self, key: str, record: bytes, inputs: bytes, diff_ids: Iterable[str]) -> None:
        """Insert or replace. No image's removal takes the layers (diff ids) away while the row is there."""
        with self.transaction():
            self._connection.execute("INSERT OR REPLACE INTO build_cache VALUES (?, ?, ?)", (key, record, inputs))
            self._connection.executemany("INSERT OR IGNORE INTO held_layers VALUES (?, ?)", [(key, diff_id) for diff_id in diff_ids])

    def delete_build_cache(self, keys: Iterable[str]) -> None:
        with self.transaction():
            for key in keys:
                self._connection.execute("DELETE FROM build_cache WHERE key = ?", (key,))
                self._connection.execute("DELETE FROM held_layers WHERE holder = ?", (key,))

    def hold_layers(self, holder: str, diff_ids: Iterable[str]) -> None:
        """No image's removal takes them away until `release_layers`."""
        with self.transaction():
            self._connection.executemany("INSERT OR IGNORE INTO held_layers VALUES (?, ?)", [(holder, diff_id) for diff_id in diff_ids])

    def release_layers(self, prefix: str) -> None:
        """Of every holder whose name begins so."""
        self._connection.execute("DELETE FROM held_layers WHERE substr(holder, 1, ?) = ?", (len(prefix), prefix))

    def held_layers(self) -> frozenset[str]:
        """Diff ids."""
        return frozenset(row[0] for row in self._connection.execute("SELECT DISTINCT diff_id FROM held_layers"))

    # --- images and their names
    def images(self) -> list[ImageRow]:
        return [ImageRow(*row) for row in self._connection.execute("SELECT * FROM images ORDER BY stored DESC")]

    def image(self, image_id: str) -> ImageRow | None:
        row = self._connection.execute("SELECT * FROM images WHERE id = ?", (image_id,)).fetchone()
        return ImageRow(*row) if row else None

    def put_image(self, row: ImageRow) -> None:
        self._connection.execute(
            "INSERT INTO images VALUES (?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET manifest = excluded.manifest, "
            "media_type = excluded.media_type, manifest_size = excluded.manifest_size",
            (row.id, row.manifest, row.media_type, row.manifest_size, row.stored),
        )

    def delete_image(self, image_id: str) -> None:
        self._connection.execute("DELETE FROM images WHERE id = ?", (image_id,))

    def parents(self) -> dict[str, str]:
        """Image id -> id of the image that it was made from, of those made here."""
        return dict(self._connection.execute("SELECT image, parent FROM parents"))

    def put_parent(self, image_id: str, parent: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO parents VALUES (?, ?)", (image_id, parent))

    def names(self) -> list[tuple[str, str]]:
        """(reference, image id) of every tag and repository digest."""
        return list(self._connection.execute("SELECT reference, image FROM names ORDER BY reference"))

    def put_name(self, reference: str, image_id: str, tagged: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", (reference, image_id, tagged))

    def delete_name(self, reference: str) -> None:
        self._connection.execute("DELETE FROM names WHERE reference = ?", (reference,))

    # --- single values
    def setting(self, key: str) -> str | None:
        row = self._connection.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else None

    def put_setting(self, key: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (key, value))
