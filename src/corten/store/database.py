"""The state database: every mutable thing is a row, changed in a transaction. SQLite, write-ahead log.

Owns the schema and the statements. A record is an opaque JSON value here; its type belongs to the service that stores it.
A committed row survives kill -9 of the engine; after a power cut the last moments may be missing, never half there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from corten.errors import CortenError
from corten.store import spare_room

_SCHEMA = """
CREATE TABLE IF NOT EXISTS containers (id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS layers (
    number INTEGER PRIMARY KEY AUTOINCREMENT, diff_id TEXT UNIQUE NOT NULL, blob TEXT NOT NULL, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    id TEXT PRIMARY KEY, manifest TEXT NOT NULL, media_type TEXT NOT NULL, manifest_size INTEGER NOT NULL, stored INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS names (
    reference TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images(id), tagged INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS volumes (name TEXT PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS volume_history (number INTEGER PRIMARY KEY, volume TEXT NOT NULL, record BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS volume_history_of ON volume_history (volume);
CREATE TABLE IF NOT EXISTS tars (diff_id TEXT PRIMARY KEY, length INTEGER NOT NULL, recorded INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS origins (digest TEXT NOT NULL, repository TEXT NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (digest, repository));
CREATE TABLE IF NOT EXISTS packings (diff_id TEXT PRIMARY KEY, digest TEXT NOT NULL, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS parents (image TEXT PRIMARY KEY REFERENCES images(id) ON DELETE CASCADE, parent TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS members (
    target TEXT NOT NULL, manifest TEXT NOT NULL, image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE, PRIMARY KEY (target, manifest));
CREATE TABLE IF NOT EXISTS targets (reference TEXT PRIMARY KEY REFERENCES names(reference) ON DELETE CASCADE, target TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS uses (image TEXT PRIMARY KEY REFERENCES images(id) ON DELETE CASCADE, used INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS retags (image TEXT PRIMARY KEY REFERENCES images(id) ON DELETE CASCADE, at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS pins (image TEXT PRIMARY KEY REFERENCES images(id) ON DELETE CASCADE);
CREATE TABLE IF NOT EXISTS networks (id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS build_cache (key TEXT PRIMARY KEY, record BLOB NOT NULL, inputs BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class LayerRow:
    number: int
    diff_id: str
    blob: str
    size: int


@dataclass(frozen=True)
class TarRow:
    """That a layer's tar of `length` bytes can be made from its folder: with its record of `recorded` bytes (tar_record.py), or where that is
    0 as layer_diff.py writes it.
    """

    diff_id: str
    length: int
    recorded: int


@dataclass(frozen=True)
class ImageRow:
    """`id` is the config's digest; `stored` is nanoseconds since the epoch."""

    id: str
    manifest: str
    media_type: str
    manifest_size: int
    stored: int


@dataclass(frozen=True)
class NameRow:
    """A tag or repository digest. `image` is the one it means; `target` the index that it stands for, or empty for a single manifest."""

    reference: str
    image: str
    target: str = ""


@dataclass(frozen=True)
class MemberRow:
    """That the manifest of the index `target` is here as the image `image`."""

    target: str
    manifest: str
    image: str


class NameTaken(Exception):
    """A unique name has a row already."""


class DiskFull(CortenError):
    """What the client is told in the engine's own words: sqlite3 does not name the file."""

    template = "write {path}: no space left on device"


class _Connection(sqlite3.Connection):
    """`path` is the database's, for the error."""

    path = ""

    def execute(self, statement: str, parameters: Any = (), /) -> sqlite3.Cursor:
        try:
            return super().execute(statement, parameters)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise DiskFull(path=self.path) from None
            raise


class Database:
    """What the file system has for it is reserved beforehand (spare_room.py). Raises DiskFull when that is used up too."""

    def __init__(self, path: str) -> None:
        self._path = path
        spare_room.before_opening(path)
        self._connection = sqlite3.connect(path, isolation_level=None, factory=_Connection)
        self._connection.path = path
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("PRAGMA foreign_keys=ON")
        self._connection.executescript(_SCHEMA)
        spare_room.opened(path)

    def close(self) -> None:
        self._connection.close()  # which removes the log, and with it the room that was reserved
        spare_room.closed(self._path)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # what met a full disk SQLite may have rolled back itself
                self._connection.execute("ROLLBACK")
            raise

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
        """Its history goes with it."""
        self._connection.execute("DELETE FROM volumes WHERE name = ?", (name,))
        self._connection.execute("DELETE FROM volume_history WHERE volume = ?", (name,))

    def volume_history(self, name: str) -> list[bytes]:
        """Oldest first."""
        return [row[0] for row in self._connection.execute("SELECT record FROM volume_history WHERE volume = ? ORDER BY number", (name,))]

    def add_volume_history(self, name: str, record: bytes, keep: int) -> None:
        """Only the newest `keep` records of a volume stay."""
        self._connection.execute("INSERT INTO volume_history (volume, record) VALUES (?, ?)", (name, record))
        self._connection.execute(
            "DELETE FROM volume_history WHERE volume = ?1 AND number <= "
            "(SELECT number FROM volume_history WHERE volume = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            (name, keep),
        )

    def move_volume_history(self, name: str, new: str) -> None:
        self._connection.execute("UPDATE volume_history SET volume = ? WHERE volume = ?", (new, name))

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
        for table in ("packings", "tars"):
            self._connection.execute(f"DELETE FROM {table} WHERE diff_id = (SELECT diff_id FROM layers WHERE number = ?)", (number,))
        self._connection.execute("DELETE FROM layers WHERE number = ?", (number,))

    def packing(self, diff_id: str) -> tuple[str, int] | None:
        """(digest, size) of a layer's gzipped form, if it has been made."""
        row = self._connection.execute("SELECT digest, size FROM packings WHERE diff_id = ?", (diff_id,)).fetchone()
        return (row[0], row[1]) if row else None

    def put_packing(self, diff_id: str, digest: str, size: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO packings VALUES (?, ?, ?)", (diff_id, digest, size))

    def delete_packings(self) -> None:
        self._connection.execute("DELETE FROM packings")

    def tars(self) -> list[TarRow]:
        return [TarRow(*row) for row in self._connection.execute("SELECT diff_id, length, recorded FROM tars")]

    def tar(self, diff_id: str) -> TarRow | None:
        row = self._connection.execute("SELECT diff_id, length, recorded FROM tars WHERE diff_id = ?", (diff_id,)).fetchone()
        return TarRow(*row) if row else None

    def put_tar(self, row: TarRow) -> None:
        self._connection.execute("INSERT OR REPLACE INTO tars VALUES (?, ?, ?)", (row.diff_id, row.length, row.recorded))

    def origins(self, digest: str) -> list[tuple[str, int]]:
        """(Repository in full that has a blob, the blob's bytes), newest first."""
        return list(self._connection.execute("SELECT repository, size FROM origins WHERE digest = ? ORDER BY rowid DESC", (digest,)))

    def put_origin(self, digest: str, repository: str, size: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO origins VALUES (?, ?, ?)", (digest, repository, size))

    def delete_origins(self, digest: str) -> None:
        self._connection.execute("DELETE FROM origins WHERE digest = ?", (digest,))

    # --- the build cache
    def build_cache(self) -> list[bytes]:
        return [row[0] for row in self._connection.execute("SELECT record FROM build_cache ORDER BY rowid")]

    def build_inputs(self, key: str) -> bytes:
        """What the row was made from; empty if there is no such row."""
        row = self._connection.execute("SELECT inputs FROM build_cache WHERE key = ?", (key,)).fetchone()
        return bytes(row[0]) if row else b""

    def update_build_cache(self, key: str, record: bytes) -> None:
        self._connection.execute("UPDATE build_cache SET record = ? WHERE key = ?", (record, key))

    def put_build_cache(self, key: str, record: bytes, inputs: bytes) -> None:
        """Insert or replace."""
        self._connection.execute("INSERT OR REPLACE INTO build_cache VALUES (?, ?, ?)", (key, record, inputs))

    def delete_build_cache(self, keys: Iterable[str]) -> None:
        with self.transaction():
            self._connection.executemany("DELETE FROM build_cache WHERE key = ?", [(key,) for key in keys])

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

    def uses(self) -> dict[str, int]:
        """Image id -> when it was last used, nanoseconds since the epoch."""
        return dict(self._connection.execute("SELECT image, used FROM uses"))

    def touch(self, image_id: str, used: int) -> None:
        """Nothing, for an image that is not here any more."""
        self._connection.execute("INSERT OR REPLACE INTO uses SELECT id, ? FROM images WHERE id = ?", (used, image_id))

    def retags(self) -> dict[str, int]:
        """Image id -> when it was last given a tag here, nanoseconds since the epoch."""
        return dict(self._connection.execute("SELECT image, at FROM retags"))

    def put_retag(self, image_id: str, at: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO retags VALUES (?, ?)", (image_id, at))

    def pins(self) -> set[str]:
        return {row[0] for row in self._connection.execute("SELECT image FROM pins")}

    def pin(self, image_id: str, *, pinned: bool) -> None:
        self._connection.execute("INSERT OR IGNORE INTO pins VALUES (?)" if pinned else "DELETE FROM pins WHERE image = ?", (image_id,))

    def names(self) -> list[NameRow]:
        """Of every tag and repository digest."""
        rows = self._connection.execute("SELECT reference, image, coalesce(target, '') FROM names LEFT JOIN targets USING (reference) ORDER BY reference")
        return [NameRow(*row) for row in rows]

    def put_name(self, reference: str, image_id: str, tagged: int, target: str = "") -> None:
        self._connection.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", (reference, image_id, tagged))
        self._connection.execute("DELETE FROM targets WHERE reference = ?", (reference,))
        if target:
            self._connection.execute("INSERT INTO targets VALUES (?, ?)", (reference, target))

    def delete_name(self, reference: str) -> None:
        self._connection.execute("DELETE FROM names WHERE reference = ?", (reference,))

    def members(self) -> list[MemberRow]:
        return [MemberRow(*row) for row in self._connection.execute("SELECT target, manifest, image FROM members ORDER BY rowid")]

    def put_member(self, row: MemberRow) -> None:
        self._connection.execute("INSERT OR REPLACE INTO members VALUES (?, ?, ?)", (row.target, row.manifest, row.image))

    def delete_members(self, image_id: str) -> None:
        """Of every index: the image is no part of them any more."""
        self._connection.execute("DELETE FROM members WHERE image = ?", (image_id,))

    def delete_loose_members(self) -> None:
        """Of indexes that no name stands for any more."""
        self._connection.execute("DELETE FROM members WHERE target NOT IN (SELECT target FROM targets)")

    # --- single values
    def setting(self, key: str) -> str | None:
        row = self._connection.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else None

    def put_setting(self, key: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (key, value))
