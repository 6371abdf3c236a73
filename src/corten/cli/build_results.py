"""What `corten build` shall give and attest, and where its cache goes: flags to a request's values, and results to where the user wants them."""

from __future__ import annotations

import sys
from typing import IO, Any, cast

import click
import msgspec

from corten.api.client import Client
from corten.errors import Invalid

_STDOUT = "-"
_FOLDERS = ("local", "cache-local")  # kinds of results that are unpacked
_KEYS = ("outputs", "push", "load", "annotations", "sbom", "provenance", "attests", "cache_to", "cache_from")
FLAGS = [
    click.option("-o", "--output", "outputs", multiple=True, help="What to make: FOLDER, - or type=image|registry|oci|docker|tar|local,dest=PATH,..."),
    click.option("--push", is_flag=True, help="Short for --output=type=registry"),
    click.option("--load", is_flag=True, help="Short for --output=type=image: the engine's store"),
    click.option("--annotation", "annotations", multiple=True, help="Annotation of the manifest, manifest[PLATFORM]:..., index:..., manifest-descriptor:...: NAME=VALUE"),
    click.option("--sbom", is_flag=False, flag_value="true", default="", help="Attest the packages in the image"),
    click.option("--provenance", is_flag=False, flag_value="true", default="", help="Attest where the image comes from: true, mode=min|max, ..."),
    click.option("--attest", "attests", multiple=True, help="type=sbom, or type=provenance,mode=max"),
    click.option("--cache-to", "cache_to", multiple=True, help="Send the cache: type=registry,ref=..., type=s3,bucket=..., type=local,dest=FOLDER, type=inline"),
    click.option("--cache-from", "cache_from", multiple=True, help="Take the cache from there: the same types, local with src=FOLDER"),
]  # fmt: skip


class Results:
    """Of one build. `query` is for the request, `cache_to` and `cache_from` for its header; `take` is told of every `aux` message; `receive` fetches what they named."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._places: list[tuple[str, str]] = []
        self._sources: list[str] = []
        self._parcels: list[dict[str, Any]] = []
        self.cache_to: list[str] = []
        self.cache_from: list[str] = []
        self.query: dict[str, str] = {}
        if any(options[key] for key in _KEYS):
            self._read(options)
        self.takes_stdout = any(where == _STDOUT for _, where in self._places)
        if self.takes_stdout and sys.stdout.isatty():
            raise click.UsageError("an archive is not written to a terminal: use dest=FILE, or redirect the output")

    def _read(self, options: dict[str, Any]) -> None:
        from corten.cli import build_result_flags as flags  # most builds have none

        outputs, self._places = flags.read_outputs(options)
        self.cache_to, folders = flags.read_cache_to(options["cache_to"])
        self._places += [("cache-local", where) for where in folders]
        self._sources, self.cache_from = flags.read_cache_from(options["cache_from"])
        values = {"outputs": outputs, "attest": flags.read_attest(options)}
        self.query = {key: msgspec.json.encode(value).decode() for key, value in values.items() if value}

    def send_caches(self, client: Client) -> None:
        """Of the user's folders. One that has none is told, and costs nothing but the cache."""
        for folder in self._sources:
            from corten.cli.build_result_files import cache_archive

            try:
                with cache_archive(folder) as body, client.open("POST", "/corten/build/cache", body=body) as response:
                    response.read()
            except (OSError, Invalid) as error:
                print(f"no cache from {folder}: {error}", file=sys.stderr)

    def take(self, aux: dict[str, Any]) -> None:
        if "corten.output" in aux:
            self._parcels.append(aux["corten.output"])

    def receive(self, client: Client) -> None:
        """In the order in which they were asked for."""
        for parcel, (kind, where) in zip(self._parcels, self._places, strict=True):
            from corten.cli.build_result_files import unpack, unpack_layout, write_to_stdout, write_whole

            with client.open("GET", f"/corten/build/outputs/{parcel['ID']}") as response:
                source = cast("IO[bytes]", response)
                if kind in _FOLDERS:
                    unpack(source, where)
                elif kind.startswith("folder of "):
                    unpack_layout(source, where)
                elif where == _STDOUT:
                    write_to_stdout(source)
                else:
                    write_whole(source, where)
