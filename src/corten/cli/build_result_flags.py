"""Flags of what a build shall give and attest, and where its cache goes, to a request's values. Imported when there is such a flag."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import click

from corten.spec.build_cache import LOCAL as LOCAL_CACHE
from corten.spec.build_outputs import (
    IMAGE,
    REGISTRY,
    TO_CLIENT,
    Attest,
    OutputSpec,
    is_folder,
    parse_attest,
    parse_output,
    parse_provenance,
    parse_sbom,
    split_attributes,
)

FOLDER = "folder of "  # in front of the kind of an archive that is unpacked here
_ANNOTATION = re.compile(r"(?:(index|manifest|index-descriptor|manifest-descriptor)?(\[[^]]+\])?:)?([^=:\[]+)=(.*)", re.DOTALL)


def read_outputs(options: dict[str, Any]) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """(as the engine is told, what of it comes to the client: kind and where to)."""
    found = [parse_output(text) for text in options["outputs"]]
    found += [(OutputSpec(kind), "") for flag, kind in (("push", REGISTRY), ("load", IMAGE)) if options[flag]]
    more = dict(map(_annotation, options["annotations"]))
    if more and not found:
        found = [(OutputSpec(IMAGE), "")]
    outputs = [{"Type": spec.type, "Attrs": {**(spec.attrs or {}), **more}} for spec, _ in found]
    return outputs, [(f"{FOLDER}{spec.type}" if is_folder(spec) else spec.type, where) for spec, where in found if spec.type in TO_CLIENT]


def _annotation(text: str) -> tuple[str, str]:
    """`index:NAME=VALUE`, `manifest[linux/amd64]:NAME=VALUE` to the attribute's name and value."""
    found = _ANNOTATION.fullmatch(text)
    if not found:
        raise click.BadParameter(f"invalid annotation {text!r}: want NAME=VALUE, index:NAME=VALUE or manifest[PLATFORM]:NAME=VALUE")
    kind, platform, name, value = found.groups(default="")
    return f"annotation{f'-{kind}' if kind else ''}{platform}.{name}", value


def read_attest(options: dict[str, Any]) -> dict[str, Any]:
    found = Attest()
    for text in options["attests"]:
        found = parse_attest(text, found)
    found = parse_sbom(options["sbom"], found) if options["sbom"] else found
    found = parse_provenance(options["provenance"], found) if options["provenance"] else found
    values = {"Sbom": found.sbom, "Provenance": found.provenance, "BuilderId": found.builder_id, "Reproducible": found.reproducible}
    return {key: value for key, value in values.items() if value} if found.is_asked_for else {}


def read_cache_to(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """(as the engine is told, the folders of those that are local)."""
    folders: list[str] = []
    for text in texts:
        attributes = split_attributes(text, "cache-to") if "=" in text else {}
        if attributes.get("type") == LOCAL_CACHE:
            if not attributes.get("dest"):
                raise click.BadParameter("a local cache needs dest=FOLDER")
            folders.append(attributes["dest"])
    return list(texts), folders


def read_cache_from(texts: Sequence[str]) -> tuple[list[str], list[str]]:
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
