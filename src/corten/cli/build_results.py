"""What `corten build` shall give and attest, and where its cache goes: flags to a request's values, and results to where the user wants them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, cast

import click

from corten.api.client import Client
from corten.errors import Invalid
from corten.spec.build_cache import LOCAL as LOCAL_CACHE
from corten.spec.build_outputs import (
    IMAGE,
    LOCAL,
    REGISTRY,
    TO_CLIENT,
    Attest,
    OutputSpec,
    parse_attest,
    parse_output,
    parse_provenance,
    parse_sbom,
    split_attributes,
)
from corten.spec.digest import encoded, parse_digest

_STDOUT = "-"
FLAGS = [
    click.option("-o", "--output", "outputs", multiple=True, help="What to make: FOLDER, - or type=image|registry|oci|docker|tar|local,dest=PATH,..."),
    click.option("--push", is_flag=True, help="Short for --output=type=registry"),
    click.option("--load", is_flag=True, help="Short for --output=type=image: the engine's store"),
    click.option("--annotation", "annotations", multiple=True, help="Annotation of the manifest, or index:... of the index: NAME=VALUE"),
    click.option("--sbom", is_flag=False, flag_value="true", default="", help="Attest the packages in the image"),
    click.option("--provenance", is_flag=False, flag_value="true", default="", help="Attest where the image comes from: true, mode=min|max, ..."),
    click.option("--attest", "attests", multiple=True, help="type=sbom, or type=provenance,mode=max"),
    click.option("--cache-to", "cache_to", multiple=True, help="Send the cache: type=registry,ref=..., type=s3,bucket=..., type=local,dest=FOLDER, type=inline"),
    click.option("--cache-from", "cache_from", multiple=True, help="Take the cache from there: the same types, local with src=FOLDER"),
]  # fmt: skip


class Results:
    """Of one build. `query` is for the request, `cache_to` and `cache_from` for its header; `take` is told of every `aux` message; `receive` fetches what they named."""

    def __init__(self, options: dict[str, Any]) -> None:
        parsed = _outputs(options)
        self._places = [(spec.type, where) for spec, where in parsed if spec.type in TO_CLIENT]
        self.cache_to, cache_places = _cache_to(options["cache_to"])
        self._places += [(f"cache-{LOCAL_CACHE}", where) for where in cache_places]
        self._sources, self.cache_from = _cache_from(options["cache_from"])
        self._parcels: list[dict[str, Any]] = []
        values = {"outputs": [{"Type": spec.type, "Attrs": spec.attrs or {}} for spec, _ in parsed], "attest": _attest(options)}
        self.query = {key: json.dumps(value) for key, value in values.items() if value}
        self.takes_stdout = any(where == _STDOUT for _, where in self._places)
        if self.takes_stdout and sys.stdout.isatty():
            raise click.UsageError("an archive is not written to a terminal: use dest=FILE, or redirect the output")

    def send_caches(self, client: Client) -> None:
        """Of the user's folders. One that has none is told, and costs nothing but the cache."""
        for folder in self._sources:
            try:
                with _archive(folder) as body, client.open("POST", "/corten/build/cache", body=body) as response:
                    response.read()
            except (OSError, Invalid) as error:
                print(f"no cache from {folder}: {error}", file=sys.stderr)

    def take(self, aux: dict[str, Any]) -> None:
        if "corten.output" in aux:
            self._parcels.append(aux["corten.output"])

    def receive(self, client: Client) -> None:
        """In the order in which they were asked for."""
        for parcel, (kind, where) in zip(self._parcels, self._places, strict=True):
            with client.open("GET", f"/corten/build/outputs/{parcel['ID']}") as response:
                source = cast("IO[bytes]", response)
                if kind in (LOCAL, f"cache-{LOCAL_CACHE}"):
                    unpack(source, where)
                elif where == _STDOUT:
                    shutil.copyfileobj(source, sys.stdout.buffer)
                    sys.stdout.buffer.flush()
                else:
                    _write(source, where)


def _outputs(options: dict[str, Any]) -> list[tuple[OutputSpec, str]]:
    found = [parse_output(text) for text in options["outputs"]]
    found += [(OutputSpec(kind), "") for flag, kind in (("push", REGISTRY), ("load", IMAGE)) if options[flag]]
    more = dict(map(_annotation, options["annotations"]))
    if more and not found:
        found = [(OutputSpec(IMAGE), "")]
    return [(OutputSpec(spec.type, {**(spec.attrs or {}), **more}), where) for spec, where in found]


def _annotation(text: str) -> tuple[str, str]:
    """`index:NAME=VALUE` to the attribute's name and value."""
    name, equals, value = text.partition("=")
    kind, colon, rest = name.rpartition(":")
    if not equals or not name or kind not in ("", "index", "manifest"):
        raise click.BadParameter(f"invalid annotation {text!r}: want NAME=VALUE, index:NAME=VALUE or manifest:NAME=VALUE")
    return (f"annotation-{kind}.{rest}" if colon else f"annotation.{name}"), value


def _attest(options: dict[str, Any]) -> dict[str, Any]:
    found = Attest()
    for text in options["attests"]:
        found = parse_attest(text, found)
    found = parse_sbom(options["sbom"], found) if options["sbom"] else found
    found = parse_provenance(options["provenance"], found) if options["provenance"] else found
    values = {"Sbom": found.sbom, "Provenance": found.provenance, "BuilderId": found.builder_id, "Reproducible": found.reproducible}
    return {key: value for key, value in values.items() if value} if found.is_asked_for else {}


def _cache_to(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """(as the engine is told, the folders of those that are local)."""
    folders: list[str] = []
    for text in texts:
        attributes = split_attributes(text, "cache-to") if "=" in text else {}
        if attributes.get("type") == LOCAL_CACHE:
            if not attributes.get("dest"):
                raise click.BadParameter("a local cache needs dest=FOLDER")
            folders.append(attributes["dest"])
    return list(texts), folders


def _cache_from(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """(folders of the user's, as the engine is told)."""
    folders: list[str] = []
    rest: list[str] = []
    for text in texts:
        attributes = split_attributes(text, "cache-from") if "=" in text else {}
        if attributes.get("type") != LOCAL_CACHE:
            rest.append(text)
        elif set(attributes) == {"type", "src"}:
            folders.append(attributes["src"])
        else:
            raise click.BadParameter(f"a local cache is type=local,src=FOLDER, not {text!r}")
    return folders, rest


# --- files
@contextmanager
def _archive(folder: str) -> Iterator[IO[bytes]]:
    """An OCI layout as a tar: what its index leads to, and nothing else that is in the folder. Raises OSError, Invalid."""
    with open(f"{folder}/index.json", "rb") as file:
        index = json.load(file)
    try:
        root = index["manifests"][0]["digest"]
        with open(_blob(folder, root), "rb") as file:
            manifest = json.load(file)
        digests = [root, manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
        paths = dict.fromkeys(_blob("", digest).lstrip("/") for digest in digests)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Invalid(f"{folder} is no cache: {error}") from None
    with tempfile.TemporaryFile() as spool:
        with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in ("oci-layout", "index.json", *paths):
                tar.add(f"{folder}/{path}", path)
        spool.seek(0)
        yield spool


def _blob(folder: str, digest: str) -> str:
    return f"{folder}/blobs/sha256/{encoded(parse_digest(digest))}"


def _write(source: IO[bytes], path: str) -> None:
    """Whole or not at all."""
    part = f"{path}.part-{os.getpid()}"
    try:
        with open(part, "wb") as file:
            shutil.copyfileobj(source, file)
        os.rename(part, path)
    except OSError as error:
        raise Invalid(f"writing {path}: {error.strerror}") from None
    finally:
        if os.path.exists(part):
            os.unlink(part)


def unpack(source: IO[bytes], folder: str) -> None:
    """Into a folder, which may have files already. Nothing is written through a link; owners are kept by root only, as tar does; without root, devices are left out."""
    os.makedirs(folder, exist_ok=True)
    root = os.path.realpath(folder)
    is_root = os.geteuid() == 0
    with tarfile.open(fileobj=source, mode="r|") as archive:
        # Owners, modes and devices as they are: what is refused is refused here. Python before 3.11.4 knows no filters, and does just that.
        archive.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
        for item in archive:
            path = _inside(root, item.name)
            if item.islnk():
                _inside(root, item.linkname)
            if item.isdev() and not item.isfifo() and not is_root:
                continue
            if os.path.islink(path) or (os.path.isfile(path) and not item.isdir()):
                os.unlink(path)
            archive.extract(item, root, numeric_owner=True)


def _inside(root: str, name: str) -> str:
    """A path below the folder, no link on the way to it."""
    path = os.path.normpath(f"{root}/{name}")
    if not path.startswith(f"{root}/") or os.path.realpath(os.path.dirname(path)) != os.path.dirname(path):
        raise Invalid(f"{name} would be written through a link, or out of {root}")
    return path
